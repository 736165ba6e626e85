"""What is played and searched: jobs that a process does alone, and the rows that they bring back.

Everybody is priced in the same way: the reward's terms, with drift from the measured table
(kvroam/envs/handover/harm/charges.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from kvroam.agents.handover.constant import Constant
from kvroam.agents.handover.hindsight.book import without
from kvroam.agents.handover.hindsight.search import Episode, search
from kvroam.agents.registry import catalogue
from kvroam.benchmarks.headroom.constants import constant_plans
from kvroam.benchmarks.playing import totals
from kvroam.envs import make_core
from kvroam.envs.handover.harm.charges import TableCharges
from kvroam.experiment import load_experiment

CONSTANT, NAMED, PREDICTED, HINDSIGHT, LEVER = "constant", "named", "perfect predictor", "hindsight", "lever"
_BOUNDS = ("hindsight", "foresight")


@dataclass(frozen=True)
class Row:
    """One episode under one policy, or under what a search found.

    Args:
        scenario: its name.
        kind: CONSTANT, NAMED, PREDICTED, HINDSIGHT, or LEVER (hindsight without one of its levers).
        name: the policy's name as evaluate.py reads it; of a LEVER the lever, `: ` and the level it is held to.
        seed: of the episode.
        cost, unavoidable: of the episode, mean over the UEs.
        used: what a search simulated [episodes].
    """

    scenario: str
    kind: str
    name: str
    seed: int
    cost: float
    unavoidable: float
    used: float = 0.0


@dataclass(frozen=True)
class Job:
    """One policy in some episodes of a scenario, or (policy None) the searches in one of them.

    Args:
        scenario: its name.
        path: its file, or name.
        overrides: KEY=VALUE of its settings.
        policy: as evaluate.py takes it; None: hindsight, and hindsight without each lever.
        kind: of the rows.
        seeds: of the episodes.
        budget, lever_budget: of a search [episodes].
    """

    scenario: str
    path: str
    overrides: tuple[str, ...]
    policy: str | None
    kind: str
    seeds: tuple[int, ...]
    budget: float
    lever_budget: float


def policies(path: str, overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Everybody who plays in a scenario, (kind, name): constant plans, and the names and aliases of the catalogue.

    Aliases for 8 bit are left out: they lie between 16 and 4.
    """
    listed = catalogue(_config(path, tuple(overrides)).task)
    named = [name for name in [*listed.entries, *listed.aliases]
             if name not in ("constant", *_BOUNDS) and not name.endswith("-int8")]
    return [*((CONSTANT, Constant(**asdict(plan)).name) for plan in constant_plans()),
            *((NAMED, name) for name in named), (PREDICTED, "foresight")]


def rows(job: Job) -> list[dict[str, Any]]:
    """Do a job: one row per episode and policy, as plain data."""
    config = _config(job.path, job.overrides)
    found = _played(job, config) if job.policy is not None else _searched(job, config)
    return [asdict(row) for row in found]


def _played(job: Job, config: Any) -> list[Row]:
    cost, unavoidable = totals(str(job.policy), config, job.seeds, TableCharges(config, len(job.seeds)))
    return [Row(job.scenario, job.kind, str(job.policy), seed, float(c), float(f))
            for seed, c, f in zip(job.seeds, cost, unavoidable, strict=True)]


def _searched(job: Job, config: Any) -> list[Row]:
    """Hindsight, then hindsight without each lever, which begins from the book just found.

    A book without a lever is also a book with it, so the cheapest of all counts as hindsight.
    """
    result = []
    for seed in job.seeds:
        core = make_core(config, 1)
        core.reset([seed])
        episode = Episode(core.task.sim, 0, config)
        full = search(episode, budget=job.budget)
        floor, used, best = full.unavoidable, full.used, full.cost
        for lever, choices in without(config).items() if job.lever_budget > 0 else ():
            for level, limits in choices.items():
                found = search(episode, limits, job.lever_budget, [full.book])
                result.append(Row(job.scenario, LEVER, f"{lever}: {level}", seed, found.cost + floor, floor,
                                  found.used))
                best = min(best, found.cost)
        result.append(Row(job.scenario, HINDSIGHT, "hindsight", seed, best + floor, floor, used))
    return result


@cache
def _config(path: str, overrides: tuple[str, ...]) -> Any:
    return load_experiment(path, ["scoring.mode=none", *overrides]).environment
