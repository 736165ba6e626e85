"""What policies of this task write: plans to start from, and the checks of what a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...envs.handover.config import PLAN_BITS
from ...envs.handover.view import NetworkView
from ...envs.handover.world.simulator import idle_plans
from ...envs.handover.world.state import INTERRUPTED, PLAN, TOKEN
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


def next_cell(view: NetworkView) -> np.ndarray:
    """Cell that a UE which changes cell now most likely changes to: that of its A3 timer, or the strongest [E, U]."""
    return np.where(view.handover_cell >= 0, view.handover_cell, np.maximum(view.candidates[..., 1], 0))


def forwarded(view: NetworkView, cell: np.ndarray | None = None) -> np.ndarray:
    """Whether the tokens of each session could be forwarded to `cell`, by default to `next_cell(view)`, bool [E, U]."""
    cell = next_cell(view) if cell is None else cell
    return (view.hops[view.server_cell, cell] <= view.forwarding_hops) & (view.forwarding_hops > 0)


def prefill_pace(view: NetworkView) -> tuple[np.ndarray, float, np.ndarray]:
    """How long a prefill takes on every server now, as near as p(L) = a L + b can say it.

    Chunked prefill has an overhead per chunk, and a decode iteration between two chunks where somebody decodes.

    Returns:
        (a, b, wait): a and the wait until a prefill would begin, float [E, C] [s]; b [s].
    """
    p = view.sim.params[0]  # how prefill is scheduled is no secret
    if not p["chunked"]:
        return view.prefill_s_per_token, view.prefill_overhead_s, view.prefill_wait_s
    chunk_s = view.prefill_s_per_token * p["chunk_tokens"] + view.prefill_overhead_s
    busy = np.zeros(chunk_s.shape, bool)
    e, u = np.nonzero(view.streaming & (view.phase != INTERRUPTED))
    busy[e, view.server_cell[e, u]] = True
    between_s = np.where(busy, view.iteration_s, 0.0)
    return (chunk_s + between_s) / p["chunk_tokens"], 0.0, view.prefill_wait_s * (1.0 + between_s / chunk_s)


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
