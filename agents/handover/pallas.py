"""Pallas: the predicted target prepares before the handover (Ding, Liu, Xu, arXiv 2608.16477).

A window before the handover, the target rebuilds the prefix that exists then; the source goes on answering and
streams the KV of what it produces. `service_interruption_s` and `window` need no environment; the policy is at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import CANCEL, IDLE, INTERRUPTED, MEDIA, PREPARING, TOKEN
from ...errors import require
from ..base import label
from .plans import checked_bits, prefill_pace, reactive_plans

_GRID = 65  # windows that are tried, ends included
_SMOOTHING = 0.2  # weight of a new rate in the moving averages


def service_interruption_s(window_s, *, remaining_s, context_tokens, decode_tokens_per_s, backhaul_tokens_per_s,
                           prefill_s_per_token, load_s=0.0, floor_s=0.0, radio_s=0.0, block_s=0.0, split=False):
    """Interruption T_SIT and idle time T_early if the target prepares for `window_s` before the handover.

    T_hist = T_load + L_hist / r_p, L_hist = K_curr + r_d (T_remain - T_w), S_inc = r_d T_w,
    T_res = [S_inc / B - T_w]^+, T_SIT = T_0 + [T_hist - T_w, T_res]^+, T_early = [T_w - T_hist]^+.

    Args, floats or arrays that broadcast:
        window_s: T_w [s].
        remaining_s: T_remain, time until the handover [s].
        context_tokens: K_curr [tokens].
        decode_tokens_per_s: r_d [token/s].
        backhaul_tokens_per_s: B / s_KV, what the increments get [token/s].
        prefill_s_per_token: 1 / r_p [s].
        load_s: T_load, before the prefill runs [s].
        floor_s: T_0, what no preparation avoids [s].
        radio_s: ours: radio interruption, in parallel with what is still missing [s]; 0 in the paper.
        block_s: ours: increments leave once in this time, and at the handover [s]; 0 streams them, as the paper.
        split: ours: the prefill is balanced against a transfer of the rest of L_hist, which leaves first.

    Returns:
        (T_SIT, T_early), float arrays [s].

    Source: arXiv 2608.16477; `radio_s`, `block_s` and `split` are our extensions.
    """
    window, remaining = np.asarray(window_s, np.float64), np.asarray(remaining_s, np.float64)
    rate, speed = np.asarray(backhaul_tokens_per_s, np.float64), np.asarray(prefill_s_per_token, np.float64)
    decode, load = np.asarray(decode_tokens_per_s, np.float64), np.asarray(load_s, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        history = np.asarray(context_tokens, np.float64) + decode * (remaining - window)
        suffix = np.zeros(np.broadcast(history, rate).shape)
        if split:
            ahead = np.where(rate > 0.0, (history / rate - load) / (speed + 1.0 / rate), history)
            suffix = history - np.clip(ahead, 0.0, history)
        prefix = history - suffix
        done = np.where(prefix > 0.0, load + prefix * speed, 0.0)  # T_hist
        block = np.asarray(block_s, np.float64)
        whole = np.where(block > 0.0, np.ceil(window / np.where(block > 0.0, block, 1.0) - 1e-9) - 1.0, 0.0)
        last = np.where(block > 0.0, window - np.maximum(whole, 0.0) * block, 0.0)
        increment = decode * window  # `last` seconds of it leave at the handover
        # A queue served in order: the backlog counted from the first block on, from the last, or with the suffix.
        first = np.where(block > 0.0, np.minimum(block, window), 0.0)
        backlog = np.maximum(_over(increment, rate) - (window - first), _over(decode * last, rate))
        backlog = np.maximum(backlog, np.where(suffix > 0.0, _over(suffix + increment, rate) - window, 0.0))
    missing = np.maximum(np.maximum(done - window, backlog), np.asarray(radio_s, np.float64))
    return floor_s + np.maximum(0.0, missing), np.maximum(0.0, window - done)


def _over(tokens, rate):
    """Time to send, 0 for nothing even without a link."""
    return np.where(tokens > 0.0, tokens / rate, 0.0)


@dataclass(frozen=True)
class Window:
    """The best preparation windows; arrays [N]."""

    window_s: np.ndarray  # T_w*
    interruption_s: np.ndarray  # T_SIT at T_w*
    early_s: np.ndarray  # T_early at T_w*
    cost: np.ndarray  # J at T_w*


def window(remaining_s, context_tokens, *, decode_tokens_per_s, backhaul_tokens_per_s, prefill_s_per_token,
           alpha: float = 0.8, longest_s: float = 5.0, load_s=0.0, floor_s=0.0, radio_s=0.0, block_s=0.0,
           split: bool = False, points: int = _GRID) -> Window:
    """Grid search for the window that minimises J = alpha T_SIT + (1 - alpha) T_early.

    Args:
        remaining_s: T_remain, float [N] or scalar [s].
        context_tokens: K_curr, float [N] or scalar [tokens].
        alpha: weight of the interruption against idle preparation, [0, 1].
        longest_s: T_max; the grid covers [0, min(T_max, T_remain)] [s].
        points: of the grid, ends included, at least 2.
        others: see service_interruption_s.

    Returns:
        Window; of equal windows the shortest. With N = 0 empty arrays.

    Raises:
        ValueError: an argument out of range, named.

    Source: arXiv 2608.16477.
    """
    numbers = dict(remaining_s=remaining_s, context_tokens=context_tokens, decode_tokens_per_s=decode_tokens_per_s,
                   backhaul_tokens_per_s=backhaul_tokens_per_s, prefill_s_per_token=prefill_s_per_token,
                   load_s=load_s, floor_s=floor_s, radio_s=radio_s, block_s=block_s, longest_s=longest_s)
    arrays = {name: np.asarray(value, np.float64) for name, value in numbers.items()}
    for name, value in arrays.items():
        require(bool((value >= 0.0).all()), f"{name} is {numbers[name]}: it must not be negative")
        require(name == "backhaul_tokens_per_s" or bool(np.isfinite(value).all()), f"{name} must be finite")
    require(0.0 <= alpha <= 1.0, f"alpha is {alpha}: it must lie in [0, 1]")
    require(points >= 2, f"points is {points}: the grid needs at least its 2 ends")
    arrays = dict(zip(arrays, np.broadcast_arrays(*(np.atleast_1d(value) for value in arrays.values())), strict=True))
    longest = np.minimum(arrays.pop("longest_s"), arrays["remaining_s"])
    tried = longest[:, None] * np.linspace(0.0, 1.0, points)
    interruption, early = service_interruption_s(tried, split=split,
                                                 **{name: value[:, None] for name, value in arrays.items()})
    cost = alpha * interruption + (1.0 - alpha) * early
    # Rounding must not decide between windows that are equally good.
    best = (cost <= cost.min(axis=1, keepdims=True) * (1.0 + 1e-12)).argmax(axis=1)[:, None]
    return Window(*(np.take_along_axis(array, best, axis=1)[:, 0] for array in (tried, interruption, early, cost)))


class Pallas:
    """Pallas online: window search every decision interval, cancellation of a wrong target, recomputation without one.

    The predictor is constant velocity (view.predicted_cell). The preparation starts in the last interval before the
    window opens. It is cancelled when another cell is predicted, or when no handover has come `longest_s` after the
    predicted one. A handover that comes unprepared is recomputed at the target, as in the paper.

    Args:
        bits: precision of the KV that is streamed; 16 is the paper's.
        alpha: weight of the interruption in J.
        medium: token, the paper's; split balances the prefix between prefill and transfer (ours).
        longest_s: T_max [s].
    """

    def __init__(self, bits: int = 16, alpha: float = 0.8, medium: str = "token", longest_s: float = 5.0) -> None:
        require(0.0 <= alpha <= 1.0, f"alpha is {alpha}: it must lie in [0, 1]")
        require(medium in ("token", "split"), f"medium is {medium!r}: choose token or split")
        require(0.0 < longest_s < np.inf, f"longest_s is {longest_s}: it must be above 0 and finite")
        self.bits, self.alpha, self.longest_s, self.medium = checked_bits(bits), alpha, longest_s, MEDIA.index(medium)
        self.name = label("pallas", bits=(bits, 16), alpha=(alpha, 0.8), medium=(medium, "token"),
                          longest_s=(longest_s, 5.0))

    def reset(self, view: NetworkView) -> None:
        """Forget the measured rates and the preparations."""
        everybody = (view.num_envs, view.num_ues)
        self._context = view.context_tokens
        self._decode = np.full(everybody, np.nan)
        self._share = np.ones((view.num_envs, view.num_cells))
        self._give_up_s = np.full(everybody, np.inf)

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        if view.context_tokens.shape != getattr(self, "_context", np.empty(0)).shape:
            self.reset(view)
        self._measure(view)
        plans = reactive_plans(view, TOKEN, bits=self.bits)
        cell, in_s = self.forecast(view)
        now, phase = view.time_s[:, None], view.phase
        preparing = phase == PREPARING
        known = (cell >= 0) & np.isfinite(in_s)
        self._give_up_s = np.where(preparing & known & (cell == view.migration_target),
                                   now + in_s + self.longest_s, np.where(preparing, self._give_up_s, np.inf))
        wrong = preparing & ((known & (cell != view.migration_target)) | (now > self._give_up_s))
        plans["target"] = np.where(wrong, CANCEL, plans["target"])
        able = known & (cell != view.server_cell) & ((phase == IDLE) | wrong) & (phase != INTERRUPTED)
        able &= np.take_along_axis(view.free_memory_bytes, np.maximum(cell, 0), axis=1) >= view.session_bytes
        if able.any():
            e, u = np.nonzero(able)
            opens = self._window_s(view, e, u, cell[e, u], in_s[e, u])
            # The last decision before the window opens: too early by an interval costs less than too late.
            start = in_s[e, u] < opens + view.interval_s
            e, u = e[start], u[start]
            plans["target"][e, u] = cell[e, u]
            plans["medium"][e, u] = self.medium
            self._give_up_s[e, u] = view.time_s[e] + in_s[e, u] + self.longest_s
        return plans

    def forecast(self, view: NetworkView) -> tuple[np.ndarray, np.ndarray]:
        """Next cell (-1: none) and time until the handover (inf: none) of every UE, [E, U]."""
        return view.predicted_cell, view.predicted_in_s

    def _window_s(self, view, e, u, cell, in_s) -> np.ndarray:
        """T_w* of the listed sessions [s]."""
        source = view.server_cell[e, u]
        egress, ingress = view.egress_bps, view.ingress_bps
        link = egress[e, 0] if view.pool else np.minimum(egress[e, source] * self._share[e, source], ingress[e, cell])
        rate = link * (self._share[e, 0] if view.pool else 1.0) / view.kv_bits_per_token(self.bits)
        # Who has not answered yet is expected to answer like the others of the same environment.
        seen = np.isfinite(self._decode)
        typical = np.where(seen, self._decode, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        decode = self._decode[e, u]
        decode = np.where(np.isfinite(decode), decode, typical[e])
        per_token, overhead, wait = prefill_pace(view)
        context, speed, load = view.context_tokens[e, u], per_token[e, cell], overhead + wait[e, cell]
        # No window is longer than the prefill of everything: who is farther from the handover need not be searched.
        result = np.zeros(len(in_s))
        near = in_s <= load + speed * (context + decode * in_s) + view.interval_s + self.longest_s / (_GRID - 1)
        if near.any():
            result[near] = window(
                in_s[near], context[near], decode_tokens_per_s=decode[near], backhaul_tokens_per_s=rate[near],
                prefill_s_per_token=speed[near], alpha=self.alpha, longest_s=self.longest_s, load_s=load[near],
                block_s=view.interval_s, split=MEDIA[self.medium] == "split").window_s
        return result

    def _measure(self, view: NetworkView) -> None:
        """Moving averages of the decode rate of each session and of the share of its egress that one more transfer
        gets."""
        context, busy = view.context_tokens, view.bits_left > 0.0
        rate = (context - self._context) / view.interval_s
        self._context = context
        fresh = np.where(np.isnan(self._decode), rate, self._decode + _SMOOTHING * (rate - self._decode))
        self._decode = np.where(view.streaming & (rate > 0.0), fresh, self._decode)
        flows = np.zeros_like(self._share)
        e, u = np.nonzero(busy)
        np.add.at(flows, (e, np.zeros_like(e) if view.pool else view.server_cell[e, u]), 1.0)
        self._share += _SMOOTHING * (1.0 / (1.0 + flows) - self._share)
