"""Constant plans: the same medium, keep ratio, precision and moment at every handover; what a learner must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...envs.handover.actions import can_repair
from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import ARRIVALS, DETOUR, IDLE, INTERRUPTED, MEDIA
from ...errors import require
from ..base import label
from .plans import checked_bits, forwarded, reactive_plans

When = Literal["early", "predicted", "at", "after"]
Arrival = Literal["wait", "resume", "forward"]


@dataclass(frozen=True)
class ConstantPlan:
    """One plan for every session and every handover.

    Args:
        medium: token, kv, split or detour.
        keep: share of the transferred tokens that is kept, (0, 1].
        bits: precision of the transferred KV, one of PLAN_BITS.
        when: early: preparation begins as soon as the A3 time-to-trigger runs, towards its target; predicted: also when
            a handover is predicted within `lead_s`; at: with the radio handover; after: the tokens take the detour at
            the handover and the session is fetched meanwhile.
        weight: bandwidth weight of the transfer, above 0.
        backfill: bandwidth weight of the rows that `keep` leaves out, and of what arrival resume has left out, which
            then follow; 0: they do not.
        arrival: at a handover whose preparation is not finished: wait, resume on what is there, or forward.
        repair: whether a cache that is not whole is rebuilt in place.
        lead_s: see `when` [s]; a preparation is given up only for another cell.

    Where the new cell is out of reach of forwarding (backhaul.forwarding), `after` is `at`, and the world turns medium
    detour into a rebuild from token ids and arrival forward into wait.
    """

    medium: str = "split"
    keep: float = 1.0
    bits: int = 16
    when: When = "at"
    weight: float = 1.0
    backfill: float = 0.0
    arrival: Arrival = "wait"
    repair: bool = False
    lead_s: float = 2.0

    def __post_init__(self) -> None:
        require(self.medium in MEDIA, f"medium is {self.medium!r}: choose among {', '.join(MEDIA)}")
        require(0.0 < self.keep <= 1.0, f"keep is {self.keep}: it must lie in (0, 1]")
        checked_bits(self.bits)
        require(self.when in ("early", "predicted", "at", "after"),
                f"when is {self.when!r}: choose early, predicted, at or after")
        require(0.0 < self.weight < np.inf, f"weight is {self.weight}: it must be above 0 and finite")
        require(0.0 <= self.backfill < np.inf, f"backfill is {self.backfill}: it must be finite and not negative")
        require(self.arrival in ARRIVALS, f"arrival is {self.arrival!r}: choose among {', '.join(ARRIVALS)}")
        require(0.0 < self.lead_s < np.inf, f"lead_s is {self.lead_s}: it must be above 0 and finite")

    @property
    def name(self) -> str:
        """Such as `split 8 bit, keep 0.5, after`."""
        if self.medium == "detour":
            return "detour"
        parts = [self.medium if self.medium == "token" else f"{self.medium} {self.bits} bit"]
        if self.keep < 1.0:
            parts.append(f"keep {self.keep:g}")
        if self.when != "at":
            parts.append(f"predicted {self.lead_s:g} s" if self.when == "predicted" else self.when)
        if self.weight != 1.0:
            parts.append(f"weight {self.weight:g}")
        if self.backfill > 0.0:
            parts.append(f"backfill {self.backfill:g}")
        if self.arrival != "wait":
            parts.append(self.arrival)
        return ", ".join([*parts, *(["repair"] if self.repair else [])])

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        plans = reactive_plans(view, MEDIA.index(self.medium), self.keep, self.bits)
        plans["weight"], plans["backfill"] = self.weight, self.backfill
        plans["arrival"] = ARRIVALS.index(self.arrival)
        if self.repair:
            plans["repair"] = can_repair(view)
        if self.when in ("early", "predicted"):
            cell, known = view.handover_cell, np.isfinite(view.handover_in_s)
            if self.when == "predicted":
                ahead = ~known & (view.predicted_in_s <= self.lead_s) & (view.predicted_cell >= 0)
                cell, known = np.where(ahead, view.predicted_cell, cell), known | ahead
            soon = known & (cell != view.server_cell) & (view.phase != INTERRUPTED)
            plans["target"] = np.where(soon, cell, plans["target"])
        elif self.when == "after":
            # Prepared towards the cell that the UE is in already: the simulator switches once everything is there.
            behind = (view.server_cell != view.radio_cell) & (view.phase == IDLE)
            plans["target"] = np.where(behind, view.radio_cell, plans["target"])
            plans["medium"] = np.where(~behind & forwarded(view), DETOUR, plans["medium"])
        return plans


class Constant(ConstantPlan):
    """A constant plan under the name that makes it, `constant:medium=kv,bits=4`; arguments as ConstantPlan's."""

    @property
    def name(self) -> str:
        """As the registry reads it."""
        return label("constant", **{key: (getattr(self, key), field.default)
                                    for key, field in self.__dataclass_fields__.items()})
