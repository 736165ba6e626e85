"""The one interface of every policy."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..envs.handover.view import NetworkView
from ..envs.handover.world.simulator import idle_plans
from ..envs.handover.world.state import TOKEN
from ..errors import require


class Policy(Protocol):
    """Decides for all UEs of all environments at once."""

    name: str

    def reset(self, view: NetworkView) -> None:
        """A new episode begins everywhere."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans for the coming decision interval, PLAN [E, U] (kvroam.envs.handover.world.state)."""


def reactive_plans(view: NetworkView, medium: int = TOKEN, keep: float = 1.0, bits: int = 16) -> np.ndarray:
    """Plans that prepare nothing and move every session in the same way once its UE has changed cell, PLAN [E, U]."""
    plans = idle_plans(view.num_envs, view.num_ues)
    plans["medium"], plans["keep"], plans["bits"] = medium, keep, bits
    return plans


def checked_bits(bits: int) -> int:
    """The precision of a transfer [bit].

    Raises:
        ValueError: it is none of those that a plan can have.
    """
    require(bits in (16, 8, 4), f"bits is {bits}: choose 16, 8 or 4")
    return bits


def label(name: str, **given: tuple[object, object]) -> str:
    """The name of a policy with the arguments that differ from their defaults, as the registry reads it.

    Args:
        name: of the policy.
        given: key=(value, default).
    """
    changed = [f"{key}={float(value)!r}" if isinstance(value, float) else f"{key}={value}"
               for key, (value, default) in given.items() if value != default]
    return f"{name}:{','.join(changed)}" if changed else name
