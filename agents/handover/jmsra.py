"""JMSRA: which medium and how much bandwidth for each of many senders (Dai, Xiang, Yang, arXiv 2605.25422).

A message goes out as tokens (NL) or as KV cache. Its latency is a part that no bandwidth changes, plus bits over
rate: T_i = A_i + Q_i / (e_i B_i), with sum B_i <= B. The paper chooses media and bandwidth together by a
bi-directional greedy search. Its equations are not public; the model of this file is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import IDLE, KV, TOKEN
from ...errors import require
from ..base import label
from .plans import checked_bits, prefill_pace, reactive_plans

NL, CACHE = 0, 1
Objective = Literal["minmax", "sum"]


@dataclass(frozen=True)
class Allocation:
    """Media and bandwidth of all senders."""

    medium: np.ndarray  # [K], NL or CACHE
    bandwidth_hz: np.ndarray  # [K], sums to at most the total
    latency_s: np.ndarray  # [K]
    value_s: float  # the objective: the largest latency, or their sum


@dataclass(frozen=True)
class Costs:
    """What no bandwidth changes, and what has to be sent, for both media: row NL, row CACHE."""

    compute_s: np.ndarray  # A [2, K] [s]
    bits: np.ndarray  # Q [2, K] [bit]


def costs(input_tokens, message_tokens, latent_steps, *, prefill_s_per_token, decode_s_per_token,
          receiver_prefill_s_per_token: float, kv_bits_per_token: float, token_bits: float = 16.0, keep=1.0,
          restore_s: float = 0.0) -> Costs:
    """Latency parts of each sender under both media.

    T_NL = a_i X_i + M_i d_i + M_i b_tok / R_i + a_rx M_i;
    T_KV = a_i X_i + m_i d_i + (X_i + m_i) keep_i s_KV / R_i + restore (ours).

    Args:
        input_tokens, message_tokens, latent_steps: X, M, m, [K] [tokens].
        prefill_s_per_token, decode_s_per_token: a, d of the senders, scalar or [K] [s].
        receiver_prefill_s_per_token: a_rx [s].
        kv_bits_per_token: s_KV [bit].
        token_bits: b_tok [bit].
        keep: share of the cache that is sent, scalar or [K].
        restore_s: received cache into GPU memory [s].

    Raises:
        ValueError: an argument that is negative or not finite, named.
    """
    values = dict(input_tokens=input_tokens, message_tokens=message_tokens, latent_steps=latent_steps,
                  prefill_s_per_token=prefill_s_per_token, decode_s_per_token=decode_s_per_token,
                  receiver_prefill_s_per_token=receiver_prefill_s_per_token, kv_bits_per_token=kv_bits_per_token,
                  token_bits=token_bits, keep=keep, restore_s=restore_s)
    found = {name: _not_negative(name, value) for name, value in values.items()}
    x, m_nl, m_kv = (np.atleast_1d(found[name]) for name in ("input_tokens", "message_tokens", "latent_steps"))
    prefill = found["prefill_s_per_token"] * x
    compute = np.stack(np.broadcast_arrays(
        prefill + m_nl * found["decode_s_per_token"] + found["receiver_prefill_s_per_token"] * m_nl,
        prefill + m_kv * found["decode_s_per_token"] + found["restore_s"]))
    bits = np.stack(np.broadcast_arrays(m_nl * found["token_bits"],
                                        (x + m_kv) * found["keep"] * found["kv_bits_per_token"]))
    return Costs(compute, bits)


def switching_rate_bps(cost: Costs) -> np.ndarray:
    """Rate above which the KV cache is the faster medium, [K] [bit/s]; 0: always, inf: never (ours).

    T_KV < T_NL  iff  R > (Q_KV - Q_NL) / (A_NL - A_KV) when the cache has more bits and less computation; where both
    are smaller it always wins, where both are larger never. A sender for which the cache has fewer bits but more
    computation switches the other way: it wins below that rate, and the result is NaN.
    """
    more_bits = cost.bits[CACHE] - cost.bits[NL]
    saved = cost.compute_s[NL] - cost.compute_s[CACHE]
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = more_bits / saved
    rate = np.where((more_bits <= 0) & (saved >= 0), 0.0, rate)
    rate = np.where((more_bits >= 0) & (saved <= 0) & ~((more_bits == 0) & (saved == 0)), np.inf, rate)
    return np.where((more_bits < 0) & (saved < 0), np.nan, rate)


def share_bandwidth(compute_s, bits, efficiency, bandwidth_hz: float, objective: Objective = "minmax") -> np.ndarray:
    """The bandwidth of each sender for given media, [..., K] [Hz] (ours).

    minmax: the common latency T at which the shares B_i = Q_i / (e_i (T - A_i)) sum to B. sum: B_i proportional to
    sqrt(Q_i / e_i), from the Lagrangian. Who sends nothing gets nothing.

    Args:
        compute_s, bits: A [s], Q [bit], [..., K].
        efficiency: e, [K] [bit/s/Hz].
        bandwidth_hz: B, above 0 where somebody sends.
        objective: minmax or sum.
    """
    load = np.where(bits > 0, bits / efficiency, 0.0)
    if objective == "sum":
        share = np.sqrt(load)
        total = share.sum(axis=-1, keepdims=True)
        return bandwidth_hz * np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    sends = load > 0
    if not sends.any():
        return np.zeros_like(load)
    # T solves sum load / (T - A) = B, convex and falling; from the left of the root Newton's method never overshoots.
    end = np.where(sends, compute_s + load / bandwidth_hz, -np.inf).max(axis=-1, keepdims=True)
    end = np.where(np.isfinite(end), end, 1.0 + compute_s.max(axis=-1, keepdims=True))
    for _ in range(50):
        slack = np.where(sends, end - compute_s, 1.0)
        need = load / slack
        slope = (need / slack).sum(axis=-1, keepdims=True)
        step = np.maximum(need.sum(axis=-1, keepdims=True) - bandwidth_hz, 0.0) / np.where(slope > 0.0, slope, 1.0)
        end = end + step
        if (step <= 1e-15 * end).all():
            break
    return np.where(sends, load / np.where(sends, end - compute_s, 1.0), 0.0)


def solve(compute_s, bits, efficiency, bandwidth_hz: float, objective: Objective = "minmax") -> Allocation:
    """Media and bandwidth by bi-directional greedy search (JMSRA).

    Forward: from all NL, flip the sender whose flip lowers the objective most, until none does. Backward: the same
    from all KV. The better of the two.

    Args:
        compute_s, bits: rows NL and CACHE, [2, K] (see `costs`).
        efficiency: spectral efficiency of each sender, scalar or [K], above 0 [bit/s/Hz].
        bandwidth_hz: total, above 0 unless no medium sends anything [Hz].
        objective: minmax (the last message) or sum.

    Returns:
        Allocation; empty for K = 0, with value 0.

    Raises:
        ValueError: shapes that do not fit, a negative or infinite cost, no bandwidth for what must be sent.

    Source: arXiv 2605.25422 for the algorithm; the latency model is ours.
    """
    compute, size, rate = _checked(compute_s, bits, efficiency, bandwidth_hz, objective)
    count = compute.shape[1]
    if count == 0:
        return _allocation(np.empty(0, np.int64), compute, size, rate, bandwidth_hz, objective)
    best = None
    for start in (NL, CACHE):
        medium = np.full(count, start)
        value = float(_values(medium[None], compute, size, rate, bandwidth_hz, objective)[0])
        while True:
            flips = np.repeat(medium[None], count, axis=0)
            flips[np.arange(count), np.arange(count)] = 1 - start
            tried = _values(flips, compute, size, rate, bandwidth_hz, objective)
            tried[medium != start] = np.inf
            i = int(tried.argmin())
            if not tried[i] < value * (1.0 - 1e-12):
                break
            medium, value = flips[i], float(tried[i])
        if best is None or value < best[0]:
            best = value, medium
    assert best is not None
    return _allocation(best[1], compute, size, rate, bandwidth_hz, objective)


def exhaustive(compute_s, bits, efficiency, bandwidth_hz: float, objective: Objective = "minmax") -> Allocation:
    """The optimum over all 2^K choices of media; for K up to 16. Arguments and errors as in `solve`."""
    compute, size, rate = _checked(compute_s, bits, efficiency, bandwidth_hz, objective)
    count = compute.shape[1]
    require(count <= 16, f"there are {count} senders: an exhaustive search takes at most 16")
    media = np.array(np.meshgrid(*[[NL, CACHE]] * count, indexing="ij")).reshape(count, -1).T.astype(np.int64)
    values = _values(media, compute, size, rate, bandwidth_hz, objective)
    return _allocation(media[int(values.argmin())], compute, size, rate, bandwidth_hz, objective)


def _values(media, compute, size, rate, bandwidth_hz, objective) -> np.ndarray:
    """The objective of each row of media [N, K]; infinite where something must be sent over no bandwidth."""
    latency = _latencies(media, compute, size, rate, bandwidth_hz, objective)[1]
    return latency.max(axis=-1) if objective == "minmax" else latency.sum(axis=-1)


def _latencies(media, compute, size, rate, bandwidth_hz, objective) -> tuple[np.ndarray, np.ndarray]:
    a, q = (np.where(media == CACHE, both[CACHE], both[NL]) for both in (compute, size))
    if bandwidth_hz == 0:
        return np.zeros_like(a), np.where(q > 0, np.inf, a)
    share = share_bandwidth(a, q, rate, bandwidth_hz, objective)
    with np.errstate(divide="ignore", invalid="ignore"):
        return share, a + np.where(q > 0, q / (rate * share), 0.0)


def _allocation(medium, compute, size, rate, bandwidth_hz, objective) -> Allocation:
    share, latency = _latencies(medium[None], compute, size, rate, bandwidth_hz, objective)
    value = float(latency.max(initial=0.0) if objective == "minmax" else latency.sum())
    require(math.isfinite(value), f"bandwidth_hz is {bandwidth_hz}: some sender must send bits over it in both media")
    return Allocation(medium, share[0], latency[0], value)


def _checked(compute_s, bits, efficiency, bandwidth_hz, objective) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    compute, size = _not_negative("compute_s", compute_s), _not_negative("bits", bits)
    require(compute.ndim == 2 and compute.shape[0] == 2 and compute.shape == size.shape,
            f"compute_s has shape {compute.shape}, bits {size.shape}: both must be [2, K]")
    rate = np.broadcast_to(_not_negative("efficiency", efficiency), compute.shape[1:])
    require(bool((rate > 0).all()), "efficiency contains 0: a sender without any rate can reach nobody; leave it out")
    require(bandwidth_hz >= 0 and math.isfinite(bandwidth_hz),
            f"bandwidth_hz is {bandwidth_hz}: it must be finite and not negative")
    require(objective in ("minmax", "sum"), f"objective is {objective!r}: choose minmax or sum")
    return compute, size, rate


def _not_negative(name: str, value) -> np.ndarray:
    array = np.asarray(value, np.float64)
    require(bool(np.isfinite(array).all() and (array >= 0).all()), f"{name} must be finite and not negative")
    return array


class JMSRA:
    """JMSRA online, applied to concurrent handovers: sessions that leave one gNB share its egress.

    At every step, for each source with sessions that are moving or whose A3 timer runs: NL is a rebuild from token ids
    at the target (no bits, prefill time and the server's wait), KV is the transfer of the cache. Media are chosen for
    sessions that have not started; the bandwidth of all becomes the weights of their transfers.

    Args:
        objective: minmax or sum.
        bits: precision of the transferred KV, one of PLAN_BITS.
    """

    def __init__(self, objective: Objective = "minmax", bits: int = 16) -> None:
        require(objective in ("minmax", "sum"), f"objective is {objective!r}: choose minmax or sum")
        self.objective, self.bits = objective, checked_bits(bits)
        self.name = label("jmsra", objective=(objective, "minmax"), bits=(bits, 16))

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        plans = reactive_plans(view, TOKEN, bits=self.bits)
        plans["medium"] = self._alone(view)
        coming = np.isfinite(view.handover_in_s) & (view.handover_cell != view.server_cell) & (view.phase == IDLE)
        sending = (view.phase != IDLE) & (view.bits_left > 0)
        involved = coming | sending
        server = view.server_cell
        for e in np.flatnonzero(involved.any(axis=1)):
            sources = [0] if view.pool else np.unique(server[e, involved[e]])
            for source in sources:
                group = np.flatnonzero(involved[e] & (view.pool | (server[e] == source)))
                self._plan_group(view, plans, int(e), group, int(source), coming[e, group])
        return plans

    def _alone(self, view: NetworkView) -> np.ndarray:
        """Medium [E, U] for a handover that no timer announced: the faster one towards the strongest neighbour."""
        rows = np.arange(view.num_envs)[:, None]
        target, source = np.maximum(view.candidates[..., 1], 0), 0 if view.pool else view.server_cell
        per_token, overhead, wait = prefill_pace(view)
        rebuild = wait[rows, target] + per_token[rows, target] * view.context_tokens + overhead
        send = view.context_tokens * view.kv_bits_per_token(self.bits) / view.egress_bps[rows, source]
        return np.where(send < rebuild, KV, TOKEN)

    def _plan_group(self, view, plans, e: int, group: np.ndarray, source: int, coming: np.ndarray) -> None:
        context, target = view.context_tokens[e, group], view.handover_cell[e, group]
        per_token, overhead, wait = prefill_pace(view)
        rebuild = np.where(coming, wait[e, target] + per_token[e, target] * context + overhead, 0.0)
        left = np.where(coming, context * view.kv_bits_per_token(self.bits), view.bits_left[e, group])
        compute = np.stack([rebuild, np.zeros(len(group))])
        # A transfer under way has no other medium: it is the same in both rows.
        size = np.stack([np.where(coming, 0.0, left), left])
        chosen = solve(compute, size, 1.0, float(view.egress_bps[e, source]), self.objective)
        share = chosen.bandwidth_hz / max(chosen.bandwidth_hz.max(), 1.0)
        plans["medium"][e, group] = np.where(coming, np.where(chosen.medium == CACHE, KV, TOKEN),
                                             plans["medium"][e, group])
        plans["weight"][e, group] = np.where(share > 0, np.maximum(share, 1e-3), 1.0)
