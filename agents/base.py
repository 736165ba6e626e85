"""The one interface of every policy."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..envs.sim.simulator import idle_plans
from ..envs.sim.state import TOKEN
from ..envs.view import NetworkView


class Policy(Protocol):
    """Decides for all UEs of all environments at once."""

    name: str

    def reset(self, view: NetworkView) -> None:
        """A new episode begins everywhere."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans for the coming decision interval, PLAN [E, U] (kvroam.envs.sim.state)."""


def reactive_plans(view: NetworkView, medium: int = TOKEN, keep: float = 1.0, bits: int = 16) -> np.ndarray:
    """Plans that prepare nothing and move every session in the same way once its UE has changed cell, PLAN [E, U]."""
    plans = idle_plans(view.num_envs, view.num_ues)
    plans["medium"], plans["keep"], plans["bits"] = medium, keep, bits
    return plans
