"""The constant plans that are played beside everybody: one plan for every session and every handover."""

from __future__ import annotations

import itertools
from typing import Any

from kvroam.agents.handover.constant import ConstantPlan


def constant_plans() -> list[ConstantPlan]:
    """Every constant plan that is played: media, keep ratios and precisions at every moment; and, where the rest of a
    cache may follow or tokens be forwarded, the settings that say so."""
    moments: list[dict[str, Any]] = [{"when": "early"}, {"when": "at"}, {"when": "after"}]
    predicted: list[dict[str, Any]] = [{"when": "predicted", "lead_s": lead_s} for lead_s in (1.0, 3.0, 5.0)]
    arrivals: list[dict[str, Any]] = [{"backfill": 0.25, "arrival": "resume"}, {"arrival": "forward"}]
    plans = [ConstantPlan("detour")]
    for moment in (*moments, *predicted):
        plans.append(ConstantPlan("token", **moment))
        plans += [ConstantPlan(medium, keep, bits, **moment) for medium, keep, bits
                  in itertools.product(("kv", "split"), (1.0, 0.5, 0.25), (16, 4))]
    for moment in ({"when": "early"}, *predicted):
        plans += [ConstantPlan(medium, keep, 4, backfill=0.25, **moment) for medium, keep
                  in itertools.product(("kv", "split"), (0.5, 0.25, 0.1))]
        plans += [ConstantPlan(medium, keep, 4, **arrival, **moment) for medium, keep, arrival
                  in itertools.product(("kv", "split"), (1.0, 0.25), arrivals)]
    return plans
