"""Constant plans: the same medium, keep ratio, precision and moment at every handover; what a learner must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import DETOUR, IDLE, MEDIA
from ...errors import require
from ..base import label
from .plans import checked_bits, reactive_plans

When = Literal["early", "at", "after"]


@dataclass(frozen=True)
class ConstantPlan:
    """One plan for every session and every handover.

    Args:
        medium: token, kv, split or detour.
        keep: share of the transferred tokens that is kept, (0, 1].
        bits: precision of the transferred KV, one of PLAN_BITS.
        when: early: preparation begins as soon as the A3 time-to-trigger runs, towards its target; at: with the radio
            handover; after: the tokens take the detour at the handover and the session is fetched meanwhile.
    """

    medium: str = "split"
    keep: float = 1.0
    bits: int = 16
    when: When = "at"

    def __post_init__(self) -> None:
        require(self.medium in MEDIA, f"medium is {self.medium!r}: choose among {', '.join(MEDIA)}")
        require(0.0 < self.keep <= 1.0, f"keep is {self.keep}: it must lie in (0, 1]")
        checked_bits(self.bits)
        require(self.when in ("early", "at", "after"), f"when is {self.when!r}: choose early, at or after")

    @property
    def name(self) -> str:
        """Such as `split 8 bit, keep 0.5, after`."""
        if self.medium == "detour":
            return "detour"
        parts = [self.medium if self.medium == "token" else f"{self.medium} {self.bits} bit"]
        if self.keep < 1.0:
            parts.append(f"keep {self.keep:g}")
        return ", ".join([*parts, *([] if self.when == "at" else [self.when])])

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        plans = reactive_plans(view, MEDIA.index(self.medium), self.keep, self.bits)
        if self.when == "early":
            soon = np.isfinite(view.handover_in_s) & (view.handover_cell != view.server_cell)
            plans["target"] = np.where(soon, view.handover_cell, plans["target"])
        elif self.when == "after":
            # Prepared towards the cell that the UE is in already: the simulator switches once everything is there.
            behind = (view.server_cell != view.radio_cell) & (view.phase == IDLE)
            plans["target"] = np.where(behind, view.radio_cell, plans["target"])
            plans["medium"] = np.where(behind, plans["medium"], DETOUR)
        return plans


class Constant(ConstantPlan):
    """A constant plan under the name that makes it, `constant:medium=kv,bits=4`; arguments as ConstantPlan's."""

    @property
    def name(self) -> str:
        """As the registry reads it."""
        return label("constant", **{key: (getattr(self, key), field.default)
                                    for key, field in self.__dataclass_fields__.items()})
