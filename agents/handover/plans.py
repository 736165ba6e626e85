"""What policies of this task write: plans to start from, and the checks of what a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...envs.handover.config import PLAN_BITS
from ...envs.handover.view import NetworkView
from ...envs.handover.world.simulator import idle_plans
from ...envs.handover.world.state import PLAN, TOKEN
from ...errors import PolicyError, require


def reactive_plans(view: NetworkView, medium: int = TOKEN, keep: float = 1.0, bits: int = PLAN_BITS[0]) -> np.ndarray:
    """Plans that prepare nothing and move every session in the same way once its UE has changed cell, PLAN [E, U].

    Args:
        view: the network.
        medium: TOKEN, KV, SPLIT or DETOUR.
        keep: share of the transferred tokens that is kept, (0, 1].
        bits: precision of the transferred KV, one of PLAN_BITS.
    """
    plans = idle_plans(view.num_envs, view.num_ues)
    plans["medium"], plans["keep"], plans["bits"] = medium, keep, bits
    return plans


def checked_bits(bits: int) -> int:
    """The precision of a transfer [bit].

    Raises:
        ValueError: it is none of those that a plan can have.
    """
    *first, last = PLAN_BITS
    require(bits in PLAN_BITS, f"bits is {bits}: choose {', '.join(map(str, first))} or {last}")
    return bits


def checked_plans(plans: Any, view: NetworkView, name: str) -> np.ndarray:
    """What the policy `name` returned.

    Raises:
        PolicyError: it is not PLAN [E, U].
    """
    shape = (view.num_envs, view.num_ues)
    if isinstance(plans, np.ndarray) and plans.dtype == PLAN and plans.shape == shape:
        return plans
    found = type(plans).__name__
    if isinstance(plans, np.ndarray):
        found = f"{'PLAN' if plans.dtype == PLAN else 'records' if plans.dtype.names else plans.dtype} {plans.shape}"
    raise PolicyError(f"policy {name!r} returned {found}: expected PLAN {shape}; "
                      "start from kvroam.agents.handover.reactive_plans(view)")
