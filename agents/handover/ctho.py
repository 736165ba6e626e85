"""ctHO: joint KV-cache transfer and token prefill (Lee, Park, Zheng, Park, arXiv 2603.28018), exact.

K UEs move from one source to one target. A common prefix of L tokens is rebuilt there in one batch, the KV of the rest
crosses the backhaul meanwhile; L and the order of the transfers minimise the worst UE's delay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import INTERRUPTED, KV, PREPARING, SPLIT, TOKEN
from ...errors import require
from ..base import label
from .plans import checked_bits, prefill_pace, reactive_plans

# Bandwidth weights that serve the UEs one after the other, as close to strict priority as double precision allows.
_PRIORITY_RATIO = 1e3


@dataclass(frozen=True)
class Solution:
    """The optimum of one handover problem."""

    prefix_tokens: int  # L: tokens rebuilt at the target (at most C_i of UE i)
    delay_s: float  # of the worst UE
    user_delay_s: np.ndarray  # [K], in the order of the arguments
    order: np.ndarray  # [K], indices in the order in which the transfers are served


def solve(handover_times_s, context_tokens, *, backhaul_tokens_per_s: float, prefill_s_per_token: float,
          prefill_overhead_s: float, cycle_s: float, bound: Literal["exact", "paper"] = "exact",
          backlog_tokens: float = 0.0, server_free_s: float = -math.inf) -> Solution:
    """The prefix length and transfer order that minimise the worst UE's handover delay.

    Args:
        handover_times_s: tau, float [K] [s], any order.
        context_tokens: C, int [K] [tokens].
        backhaul_tokens_per_s: R = R_bh / s_KV [token/s]; 0 allows prefill only.
        prefill_s_per_token, prefill_overhead_s: a, b of p(L) = a L + b [s].
        cycle_s: T_c; the batch starts at the first cycle after the last handover [s].
        bound: "exact" is ours: the link may idle between handovers, so D_tx = max_{j <= k} [(S_k - S_{j-1}) / R -
            (tau_k - tau_j)]^+ over k that send something. "paper" keeps eq. 18 (j = 1 only) for choosing L; delays are
            then those the choice really has.
        backlog_tokens: transfers of others that the link serves first; ours, 0 in the paper [tokens].
        server_free_s: instant from which the target's server can start the batch; ours [s].

    Returns:
        Solution; with K = 0 a prefix of 0, a delay of 0 and empty arrays. L = 0 needs no batch, so the result is never
        worse than tHO (L = C_max) or cHO (L = 0).

    Raises:
        ValueError: an argument out of range, named.

    Source: arXiv 2603.28018, propositions 1 to 3; the exact bound is our derivation.
    """
    tau = np.asarray(handover_times_s, dtype=np.float64)
    context = np.asarray(context_tokens, dtype=np.float64)
    require(tau.ndim == 1 and tau.shape == context.shape,
            f"handover_times_s has shape {tau.shape}, context_tokens {context.shape}: both must be [K]")
    require(bool(np.isfinite(tau).all()), "handover_times_s must be finite")
    require(bool((context >= 0).all() and np.isfinite(context).all()), "context_tokens must be finite and not negative")
    for name, value, low in (("backhaul_tokens_per_s", backhaul_tokens_per_s, 0.0),
                             ("prefill_s_per_token", prefill_s_per_token, 0.0),
                             ("prefill_overhead_s", prefill_overhead_s, 0.0), ("backlog_tokens", backlog_tokens, 0.0)):
        require(value >= low and not math.isnan(value), f"{name} is {value}: it must not be negative")
    require(cycle_s > 0, f"cycle_s is {cycle_s}: it must be above 0")
    require(not math.isnan(server_free_s), f"server_free_s is {server_free_s}: it must be a number or -inf")
    require(bound in ("exact", "paper"), f"bound is {bound!r}: choose exact or paper")
    if tau.size == 0:
        return Solution(0, 0.0, np.empty(0), np.empty(0, np.int64))

    order = np.argsort(tau, kind="stable")
    t, c = tau[order], context[order]
    start = max(math.ceil(t[-1] / cycle_s - 1e-9) * cycle_s, server_free_s)
    # Whose prefill delay counts: the paper's tau_1, or the first UE that has tokens at all.
    first = t[0] if bound == "paper" or not c.any() else t[c > 0][0]

    def prefill_end(prefix: int) -> float:
        return start + prefill_s_per_token * prefix + prefill_overhead_s

    def transfer_ends(prefix: int) -> np.ndarray:
        return _fifo_ends(t, np.maximum(c - prefix, 0.0), backhaul_tokens_per_s, backlog_tokens)

    def transfer_delay(prefix: int) -> float:
        send = np.maximum(c - prefix, 0.0)
        if bound == "paper":
            if backhaul_tokens_per_s == 0:
                return math.inf if send.any() else 0.0
            return float(max(0.0, np.max(np.cumsum(send) / backhaul_tokens_per_s - (t - t[0]))))
        return float(np.max(transfer_ends(prefix) - t, initial=0.0))

    # Prefill delay grows with L, transfer delay falls: bisect for the first L at which prefill is the later one.
    low, high = 1, max(1, math.ceil(c.max()))
    while low < high:
        middle = (low + high) // 2
        if prefill_end(middle) - first >= transfer_delay(middle):
            high = middle
        else:
            low = middle + 1

    def delays(prefix: int) -> np.ndarray:
        ends = transfer_ends(prefix)
        if prefix > 0:
            # Who has no tokens at all waits for nobody.
            ends = np.where(c > 0, np.maximum(ends, prefill_end(prefix)), ends)
        return np.maximum(ends - t, 0.0)

    candidates = [0, max(1, low - 1), low] if c.max() > 0 else [0]
    best = min(candidates, key=lambda prefix: (delays(prefix).max(), prefix))
    user = np.empty(tau.size)
    user[order] = delays(best)
    return Solution(best, float(user.max()), user, order)


def _fifo_ends(t: np.ndarray, send: np.ndarray, rate: float, backlog: float) -> np.ndarray:
    """When each transfer ends if the link serves them one after the other: F_i = max(F_{i-1}, tau_i) + n_i / R.

    Deadlines tau_i + const make earliest-deadline-first the same as first come, first served (ours).
    """
    ends = t.copy()
    if rate == 0:
        return np.where(send > 0, math.inf, t)
    free = t[0] + backlog / rate if backlog > 0 else -math.inf
    for i in range(len(t)):
        if send[i] > 0:
            free = max(free, t[i]) + send[i] / rate
            ends[i] = free
    return ends


class CtHO:
    """ctHO online: at every step it solves each group of handovers (same source and target) whose A3 timers run.

    What is under way already enters as the backlog of the link and the wait at the target's server. Transfers are
    served in the order of their handovers.

    Args:
        bits: precision of the transferred KV; 16 is the paper's.
        per_user: ours: every UE solves for itself alone (K = 1), and transfers share the backhaul equally.
    """

    def __init__(self, bits: int = 16, per_user: bool = False) -> None:
        self.bits, self.per_user = checked_bits(bits), per_user
        self.name = label("ctho-per-user" if per_user else "ctho", bits=(bits, 16))

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        # A handover that no timer announced (a lost command, a failed link) is split for that UE alone, at its instant.
        plans = reactive_plans(view, SPLIT, bits=self.bits)
        if not self.per_user:
            plans["weight"] = self._first_come_first_served(view)
        soon = np.isfinite(view.handover_in_s) & (view.handover_cell != view.server_cell)
        if not soon.any():
            return plans
        in_s, cells, servers = view.handover_in_s, view.handover_cell, view.server_cell
        for e in np.flatnonzero(soon.any(axis=1)):
            ues = np.flatnonzero(soon[e])
            for source, target in sorted({(servers[e, u], cells[e, u]) for u in ues}):
                group = [u for u in ues if servers[e, u] == source and cells[e, u] == target]
                for part in [[u] for u in group] if self.per_user else [group]:
                    self._plan_group(view, plans, e, part, source, target, in_s[e, part])
        return plans

    def _plan_group(self, view, plans, e, group, source, target, in_s) -> None:
        context = view.context_tokens[e, group]
        bits = view.kv_bits_per_token(self.bits)
        rate, queued = view.link(e, source, target)
        per_token, overhead, wait = prefill_pace(view)
        solution = solve(
            in_s, np.floor(context), backhaul_tokens_per_s=rate / bits,
            prefill_s_per_token=per_token[e, target], prefill_overhead_s=overhead,
            cycle_s=view.cycle_s, backlog_tokens=max(0.0, queued - in_s.min()) * rate / bits,
            server_free_s=wait[e, target])
        for u, tokens in zip(group, context, strict=True):
            plans[e, u]["prefix"] = min(solution.prefix_tokens, math.ceil(tokens))
            plans[e, u]["medium"] = (KV if solution.prefix_tokens == 0 else
                                     TOKEN if solution.prefix_tokens >= tokens else SPLIT)

    @staticmethod
    def _first_come_first_served(view: NetworkView) -> np.ndarray:
        """Weights that fall steeply with the order of the handovers, past ones first, float64 [E, U]."""
        moving = (view.phase == INTERRUPTED) | (view.phase == PREPARING)
        time = np.where(moving, -view.interrupted_s, view.handover_in_s)
        rank = np.argsort(np.argsort(time, axis=1, kind="stable"), axis=1)
        return _PRIORITY_RATIO ** -np.minimum(rank, 30).astype(np.float64)
