"""Greedy planner: enumerates the plans of every UE near a handover and takes the cheapest by the environment's prices.

The delay model is that of the simulator (queues, waits, rates of the view), the drift a table that was measured
(agents/handover/drift_table.py). Each UE is planned alone: that others will also begin transfers in this interval
is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...envs.handover.config import HandoverConfig
from ...envs.handover.view import NetworkView
from ...envs.handover.world.simulator import idle_plans
from ...envs.handover.world.state import CONTINUE, DETOUR, IDLE, KV, PREPARING, SPLIT, TOKEN
from ...errors import require
from ..base import label
from .drift_table import drift_per_token

_EARLY, _AT, _FETCH, _STAY = range(4)


@dataclass(frozen=True)
class Option:
    """One plan that is considered."""

    when: int  # _EARLY: prepare now; _AT: with the handover; _FETCH: behind the scenes; _STAY: never
    medium: int
    keep: float = 1.0
    bits: int = 16


def options(config: HandoverConfig) -> list[Option]:
    """All plans: stay, and each moment with token, and with kv and split at every keep ratio and precision."""
    moves = [(TOKEN, 1.0, 16)] + [(medium, keep, bits) for medium in (KV, SPLIT) for keep in config.actions.keep
                                  for bits in config.actions.bits]
    return [Option(_STAY, DETOUR)] + [Option(when, *move) for when in (_EARLY, _AT, _FETCH) for move in moves]


@dataclass(frozen=True)
class Situation:
    """What the delay model needs to know of N sessions, arrays [N]."""

    context: np.ndarray  # [tokens]
    rest: np.ndarray  # tokens that the session will still produce [tokens]
    forwarded: np.ndarray  # how many of them take the detour if it stays [tokens]
    ahead_s: np.ndarray  # until the handover; 0 for one that was left behind [s]
    behind: np.ndarray  # left behind already: the UE is at the target [bool]
    drift: np.ndarray  # KL per measured token that the cache has now [nat]
    rate_bps: np.ndarray  # what a transfer would get [bit/s]
    queue_s: np.ndarray  # until it would get that [s]
    wait_s: np.ndarray  # until the target's server starts a prefill [s]
    prefill_s_per_token: np.ndarray  # [s]
    tokens_per_s: np.ndarray  # produced per second now, thinking included [token/s]


def costs(option: Option, s: Situation, config: HandoverConfig, bits_per_token) -> np.ndarray:
    """Expected cost of a plan for every session, in the prices of config.reward, float [N].

    Args:
        option: the plan; keep and bits may be arrays [P, 1], and `bits_per_token` with them: the cost is then [P, N].
        s: the sessions.
        config: prices, hop delay, radio interruption, overheads.
        bits_per_token: KV of one token at the option's precision [bit].

    Source: ours; delays as in envs/handover/world/migration.py: interruption = max(radio, prefill, transfer) + restore
    + first token.
    """
    price, serving = config.reward, config.serving
    first, radio = 1.0 / serving.decode_tokens_per_s, config.radio.interruption_s
    scale, hop = serving.context_scale, config.backhaul.hop_s
    if option.when == _STAY:
        base = np.where(s.behind, 0.0, price.interruption * (radio + first))
        return base + price.detour * hop * s.forwarded + price.drift * s.drift * s.rest / scale
    sent = option.keep * bits_per_token
    prefix = s.context if option.medium == TOKEN else np.zeros_like(s.context)
    if option.medium == SPLIT:
        per = sent / s.rate_bps
        prefix = (s.context * per + s.queue_s - s.wait_s - serving.prefill_overhead_s) / (s.prefill_s_per_token + per)
        prefix = np.clip(np.floor(prefix), 0.0, s.context)
    gpu_s = np.where(prefix > 0, serving.prefill_overhead_s + s.prefill_s_per_token * prefix, 0.0)
    bits = (s.context - prefix) * sent
    ready_s = np.maximum(np.where(prefix > 0, s.wait_s + gpu_s, 0.0),
                         np.where(bits > 0, s.queue_s + bits / s.rate_bps, 0.0))
    lead_s = s.ahead_s if option.when == _EARLY else np.zeros_like(s.ahead_s)
    restore = sent / 8.0 / serving.restore_bytes_per_s
    made = s.tokens_per_s * (ready_s if option.when == _FETCH else np.minimum(ready_s, lead_s))
    bits = bits + made * bits_per_token
    if option.when == _FETCH:
        # Nothing waits at the handover; the switch later costs a first token, and what the last interval produced.
        last = np.minimum(made, s.tokens_per_s * config.interval_s) * bits_per_token
        idle = np.where(s.behind, 0.0, radio + first) + first + last / s.rate_bps
        detour = price.detour * hop * np.minimum(made, s.rest)
    else:
        late = np.maximum(ready_s - lead_s, 0.0)
        idle = np.maximum(radio, late) + first + np.minimum(late * s.rate_bps, bits) / sent * restore
        detour = np.zeros_like(idle)
    added = drift_per_token(option.keep, option.bits)
    # Rebuilt tokens are whole again; of a split only the suffix is degraded, and the rest of an old loss remains.
    suffix = 1.0 - prefix / np.maximum(s.context, 1.0)
    drift = suffix * np.maximum(s.drift, added)
    return (price.interruption * idle + detour + price.drift * drift * s.rest / scale
            + price.traffic * bits / 8e9 + price.gpu * gpu_s)


class GreedyPlanner:
    """The cheapest plan of each UE whose A3 timer runs, or whose session was left behind.

    Assumptions: the prices and delays of the configuration; drift from the table; a session goes on to the end of its
    script (or `rest_tokens` where that is less), and no other UE begins a transfer meanwhile.

    Args:
        config: the environment (prices, action levels, delays that the view does not show).
        rest_tokens: horizon of the expected cost of detour and drift [serving tokens].
    """

    def __init__(self, config: HandoverConfig, rest_tokens: float = 1000.0) -> None:
        require(0.0 <= rest_tokens < np.inf, f"rest_tokens is {rest_tokens}: it must be finite and not negative")
        self.config, self.rest_tokens, self.options = config, rest_tokens, options(config)
        self._added = [float(drift_per_token(option.keep, option.bits)) for option in self.options]
        self.name = label("greedy-planner", rest_tokens=(rest_tokens, 1000.0))

    def reset(self, view: NetworkView) -> None:
        """Every cache is whole, and nobody has been observed."""
        shape = (view.num_envs, view.num_ues)
        self._drift, self._moving = np.zeros(shape), np.zeros(shape)

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        if getattr(self, "_drift", np.empty(0)).shape != view.phase.shape:
            self.reset(view)
        phase, server = view.phase, view.server_cell
        # A migration that ended leaves the drift its plan was expected to leave; a whole cache has none.
        self._drift = np.where(view.healthy, 0.0, np.where(phase == IDLE, np.maximum(self._drift, self._moving),
                                                           self._drift))
        behind = (server != view.radio_cell) & (phase == IDLE)
        cell, in_s = self.forecast(view)
        soon = np.isfinite(in_s) & (cell >= 0) & (cell != server)
        soon &= (phase == IDLE) | ((phase == PREPARING) & (view.migration_target != cell))
        # A handover that no timer announced (a link failure): stay, then fetch.
        plans = idle_plans(view.num_envs, view.num_ues)
        e, u = np.nonzero(soon | behind)
        if not e.size:
            return plans
        leaving = soon[e, u]
        target = np.where(leaving, cell[e, u], view.radio_cell[e, u])
        situation = self.situation(view, e, u, target, np.where(leaving, in_s[e, u], 0.0), ~leaving)
        table = self._table(situation, view)
        # Somebody who is left behind has no handover to prepare for or to move with.
        reactive = np.array([option.when in (_EARLY, _AT) for option in self.options])
        table[reactive[:, None] & ~leaving] = np.inf
        # A server without memory for the session would refuse it.
        moves = np.array([option.when != _STAY for option in self.options])
        table[moves[:, None] & (view.free_memory_bytes[e, target] < view.session_bytes)] = np.inf
        chosen = table.argmin(axis=0)
        for i in np.flatnonzero(self.decides(situation, table, chosen, view)):
            best = chosen[i]
            self._write(plans[e[i], u[i]], self.options[best], int(target[i]), bool(leaving[i]))
            self._moving[e[i], u[i]] = self._added[best]
        return plans

    def _table(self, situation: Situation, view: NetworkView) -> np.ndarray:
        """Cost of every option for every session [P, N]; options that differ in keep and bits only go together."""
        table = np.empty((len(self.options), len(situation.context)))
        for when, medium in {(option.when, option.medium): None for option in self.options}:
            rows = [i for i, option in enumerate(self.options) if (option.when, option.medium) == (when, medium)]
            keep, bits = (np.array([[getattr(self.options[i], name)] for i in rows]) for name in ("keep", "bits"))
            size = np.array([[view.kv_bits_per_token(int(b))] for b in bits[:, 0]])
            table[rows] = costs(Option(when, medium, keep, bits), situation, self.config, size)  # type: ignore
        return table

    @staticmethod
    def _write(plan: np.void, option: Option, target: int, leaving: bool) -> None:
        """Put the decision into a plan."""
        now = option.when == _EARLY or (option.when == _FETCH and not leaving)
        plan["target"] = target if now else CONTINUE
        stays = option.when == _STAY or (option.when == _FETCH and leaving)
        plan["medium"] = DETOUR if stays else option.medium
        plan["keep"], plan["bits"] = option.keep, option.bits

    def forecast(self, view: NetworkView) -> tuple[np.ndarray, np.ndarray]:
        """Next cell (-1: none) and time until the handover (inf: none) of every UE: running A3 timers, [E, U]."""
        return view.handover_cell, view.handover_in_s

    def decides(self, situation: Situation, table: np.ndarray, chosen: np.ndarray, view: NetworkView) -> np.ndarray:
        """Whether the cheapest option of each session is put into its plan now, bool [N]."""
        return np.ones(len(chosen), bool)

    def situation(self, view: NetworkView, e, u, target, ahead_s, behind) -> Situation:
        """The delay model's inputs for the listed sessions."""
        source, config = view.server_cell[e, u], self.config
        capacity, queue = view.link(e, source, target)
        context = view.context_tokens[e, u]
        end = config.sessions.script_tokens * config.serving.context_scale
        rate = config.serving.decode_tokens_per_s
        talk_s = config.sessions.answer_tokens[0] / rate
        share = talk_s / (talk_s + config.sessions.think_s)
        rest = np.clip(end - context, 0.0, self.rest_tokens)
        return Situation(
            context=context, rest=rest, forwarded=rest, ahead_s=np.maximum(ahead_s, 0.0), behind=behind,
            drift=self._drift[e, u], rate_bps=capacity, queue_s=queue,
            wait_s=view.prefill_wait_s[e, target], prefill_s_per_token=view.prefill_s_per_token[e, target],
            tokens_per_s=np.where(view.streaming[e, u], rate, share * rate))
