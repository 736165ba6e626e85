"""What a plan for one session is expected to cost: the delay model of the planner, in the prices of the environment.

Queues, rates and decode iterations are those of this instant; what others begin later is not seen. Drift and wrong
answers come from a table that was measured (drift_table.py).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...envs.handover.config import PLAN_BITS, HandoverConfig
from ...envs.handover.harm.drift_numbers import KL
from ...envs.handover.harm.drift_table import SCORER, harm_per_token
from ...envs.handover.world.migration import LEAST_FIRST
from ...envs.handover.world.state import DETOUR, KV, SPLIT, TOKEN
from .judgement import Judgement

EARLY, AT, FETCH, STAY = range(4)
# Handovers come earlier or later than predicted, in shares of the predicted time: about the quantiles .05, .2, .5, .8
# of the predictor in the default world.
_TIMING = (-0.5, -0.2, 0.0, 0.4)
_GRID = 1000
PREFIXES = (0.1, 0.25, 0.5, 0.75)  # shares of a context that a split rebuilds


@dataclass(frozen=True)
class Option:
    """One plan that is considered; any number of them at once where the fields are arrays [P, 1]."""

    when: Any  # EARLY: prepare now; AT: with the handover; FETCH: behind the scenes; STAY: never
    medium: Any
    keep: Any = 1.0
    bits: Any = 16
    prefix: Any = 0.0  # share that is rebuilt
    backfill: Any = 0.0


def options(config: HandoverConfig) -> list[Option]:
    """All plans: stay, and each moment with token, and with kv and split at every level of the actions."""
    fill = max(config.actions.backfill)
    moves: list[tuple] = [(TOKEN, 1.0, 16, 1.0, 0.0)]
    for keep in config.actions.keep:
        for backfill in {0.0, fill} if keep < 1.0 else {fill}:
            for bits in config.actions.bits:
                moves.append((KV, keep, bits, 0.0, backfill))
                moves += [(SPLIT, keep, bits, share, backfill) for share in PREFIXES]
    moments = (EARLY, AT, FETCH) if config.actions.prepare else (AT, FETCH)
    return [Option(STAY, DETOUR)] + [Option(when, *move) for when in moments for move in moves]


def together(many: list[Option]) -> Option:
    """Options as one whose fields are arrays [P, 1]."""
    return Option(*(np.array([[getattr(one, name)] for one in many]) for name in Option.__dataclass_fields__))


@dataclass(frozen=True)
class Situation:
    """What the delay model needs to know of N sessions, arrays [N]."""

    context: np.ndarray  # [tokens]
    density: np.ndarray  # share of them that the cache holds [1]
    rest: np.ndarray  # tokens that the session will still produce [tokens]
    ahead_s: np.ndarray  # until the handover; 0 for one that was left behind [s]
    sure: np.ndarray  # that it comes, and to this cell [1]
    known: np.ndarray  # its time is known: the A3 timer runs [bool]
    behind: np.ndarray  # left behind already: the UE is at the target [bool]
    waits: np.ndarray  # that the user waits for tokens then [1]
    delay_s: np.ndarray  # that forwarding adds to the stream; inf out of reach [s]
    rate_bps: np.ndarray  # of the narrower link [bit/s]
    backlog_bits: np.ndarray  # of other transfers on the busier link [bit]
    flows: np.ndarray  # how many they are
    wait_s: np.ndarray  # GPU time (chunked), or time, until the target's server starts a prefill [s]
    prefill_s_per_token: np.ndarray  # [s]
    iteration_s: np.ndarray  # one decode iteration of the target's server [s]
    sharers: np.ndarray  # sessions that decode there
    tokens_per_s: np.ndarray  # produced per second now, thinking included [token/s]
    company: Any = 0.0  # others who are about to use the same link
    judge: Judgement = field(default_factory=Judgement)  # with arrays [N], or numbers


def harm(keep, bits, config: HandoverConfig) -> np.ndarray:
    """Price of one measured token of a cache with that keep ratio and precision: its drift, and wrong answers [1].

    As measured for the configured scorer, or for the default one where that was not measured.
    """
    ranks = config.scoring.scorer + ("@head" if config.scoring.scope == "head" else "")
    ranks = ranks if ranks in KL else SCORER
    grid = _harm_grid(ranks, config.reward.drift, config.reward.wrong)
    keep, bits = np.asarray(keep, np.float64), np.asarray(bits)
    below = np.minimum((keep * _GRID).astype(np.int64), _GRID - 1)
    part, row = keep * _GRID - below, np.searchsorted(PLAN_BITS[::-1], bits)
    return (1.0 - part) * grid[row, below] + part * grid[row, below + 1]


@functools.cache
def _harm_grid(ranks: str, drift_price: float, wrong_price: float) -> np.ndarray:
    """The harm of each precision, from low to high, at every thousandth of keep; exact, since no knot lies between."""
    keep = np.linspace(0.0, 1.0, _GRID + 1)
    return np.stack([harm_per_token(keep, bits, drift_price, wrong_price, ranks) for bits in PLAN_BITS[::-1]])


def work_s(tokens, prefill_s_per_token, config: HandoverConfig):
    """GPU time of a prefill alone [s]."""
    chunks = np.ceil(tokens / config.compute.chunk_tokens) if config.compute.prefill == "chunked" else 1.0
    return np.where(tokens > 0.0, prefill_s_per_token * tokens + config.serving.prefill_overhead_s * chunks, 0.0)


def others_s(work, s: Situation, config: HandoverConfig):
    """How long a prefill takes at the target [s], and the price of what it does to the sessions of others [1].

    Between its chunks everybody gets a token: it takes longer, and tokens come slower than the objective. Who asks
    meanwhile waits for its end.
    """
    busy = s.sharers > 0
    if config.compute.prefill != "chunked":
        each = np.where(busy, s.iteration_s / max(1.0 - config.compute.decode_slowdown, 1e-3), 0.0)
        takes = work
    else:
        chunk = s.prefill_s_per_token * config.compute.chunk_tokens + config.serving.prefill_overhead_s
        each = np.where(busy, s.iteration_s + chunk, 0.0)
        takes = work * np.where(busy, each / chunk, 1.0)
    slow = np.maximum(0.0, 1.0 - config.sessions.tpot_objective_s / np.maximum(each, 1e-9))
    turn_s = config.sessions.think_s + config.sessions.answer_tokens[0] * s.iteration_s
    late = np.maximum(takes - config.sessions.ttft_objective_s, 0.0) ** 2 / 2.0 / np.maximum(turn_s, 0.1)
    prompts = config.reward.late if config.sessions.prompt_tokens[0] > 0.0 else 0.0
    return takes, s.sharers * (config.reward.slow * slow * takes + prompts * late)


def costs(option: Option, s: Situation, config: HandoverConfig, bits_per_token) -> np.ndarray:
    """Expected cost of a plan for every session, in the prices of config.reward, float [N].

    Args:
        option: the plan, or several of one moment with fields [P, 1] and `bits_per_token` with them: then [P, N].
        s: the sessions.
        config: prices and what the simulator's delays depend on.
        bits_per_token: KV of one whole token at the option's precision [bit].

    Source: ours; delays as in envs/handover/world/migration.py: interruption = max(radio, prefill, transfer) +
    attaching + first token.
    """
    price, serving = config.reward, config.serving
    when = int(np.ravel(option.when)[0])
    radio, scale = config.radio.interruption_s, serving.context_scale
    floor = price.interruption * s.waits * np.where(s.behind, 0.0, radio + s.iteration_s)
    old = s.judge.harm * harm(s.density, 4 if min(config.actions.bits) < 16 else 16, config) * (s.density < 1.0)
    # Out of reach there is no detour, whatever it would cost.
    detour = np.where(np.isfinite(s.delay_s), price.detour * np.nan_to_num(s.delay_s, posinf=0.0), np.inf)
    answers = 1.0 + s.rest / np.maximum(config.sessions.answer_tokens[0], 1.0)
    if when == STAY:
        return floor + detour * answers + old * s.rest / scale + s.judge.stay
    whole = s.density * bits_per_token
    prefix = np.where(option.medium == TOKEN, s.context, np.floor(option.prefix * s.context))
    work = work_s(prefix, s.prefill_s_per_token, config)
    takes, elsewhere = others_s(work, s, config)
    takes, elsewhere = takes * s.judge.gpu_margin, elsewhere * s.judge.elsewhere
    stretch = np.where(work > 0.0, takes / np.maximum(work, 1e-12), 1.0)
    gpu_end = np.where(prefix > 0.0, s.wait_s * stretch + takes, 0.0)
    rows = (s.context - prefix) * whole
    bits = option.keep * rows
    # Links are shared by turns: each of the others sends as much as this one meanwhile, if it has so much.
    more = s.judge.company * s.company
    flows = s.flows + more
    send_end = (bits + np.minimum(s.backlog_bits, s.flows * bits) + more * bits) / s.rate_bps
    ready = np.maximum(gpu_end, send_end)
    fair = s.rate_bps / (1.0 + flows)
    suffix = 1.0 - prefix / np.maximum(s.context, 1.0)
    fills = option.backfill > 0.0
    final = suffix * np.maximum(s.judge.harm * harm(1.0, option.bits, config), old)

    def degraded(keep, rest_s):
        """Price of the tokens that a cache with `keep` of its rows produces until the rest is there."""
        some = np.where(fills, np.minimum(s.tokens_per_s * rest_s, s.rest), s.rest)
        lossy = suffix * np.maximum(s.judge.harm * harm(keep, option.bits, config), old)
        return (lossy * some + np.where(fills, final * (s.rest - some), 0.0)) / scale

    def felt(switch_s):
        """What a user notices of a switch behind the scenes: what is longer than the pace of the tokens."""
        return np.maximum(switch_s - s.iteration_s, 0.0)

    after = degraded(option.keep, (rows - bits) / fair)
    if when == FETCH:
        made = s.tokens_per_s * ready * bits_per_token
        last = np.minimum(made, s.tokens_per_s * config.interval_s * bits_per_token)
        switch_s = last / s.rate_bps + attach(option, s, prefix, whole, last, config)
        cost = floor + detour + after + price.interruption * s.waits * felt(switch_s)
    else:
        leads = [np.zeros_like(s.ahead_s)]
        if when == EARLY:
            leads = [s.ahead_s * np.maximum(1.0 + s.judge.timing * z * ~s.known, 0.0) for z in _TIMING]
        cost = np.zeros(np.broadcast(ready, s.context).shape)
        made = np.zeros_like(cost)
        for lead in leads:
            made = s.tokens_per_s * np.minimum(ready, lead) * bits_per_token
            gpu_late = np.maximum(gpu_end - lead, 0.0)
            sent_late = np.maximum(send_end + np.minimum(made, s.tokens_per_s * config.interval_s * bits_per_token)
                                   / s.rate_bps - lead, 0.0)
            late = np.maximum(gpu_late, sent_late)
            tail = attach(option, s, prefix, whole, np.minimum(late * fair, bits), config)
            idle = np.maximum(radio, late) - radio + tail
            each = price.interruption * s.waits * idle + after
            if when == EARLY:
                # Resume on what is there once the prefill has ended and the tokens produced since have come;
                # they travel behind the rows. All the rest follows.
                there = np.clip(np.divide(lead, np.maximum(send_end, 1e-9)), 0.0, 1.0) * option.keep
                there = np.maximum(there, np.minimum(LEAST_FIRST, option.keep))
                new = s.tokens_per_s * lead * bits_per_token
                soon = np.maximum(radio, np.maximum(gpu_late, new / fair)) - radio
                short = (price.interruption * s.waits * (soon + attach(option, s, prefix, whole, new, config))
                         + degraded(there, (1.0 - there) * rows / fair))
                each = np.where(fills & (bits > 0.0), np.minimum(each, short), each)
            # Who can be forwarded streams on; what is missing comes behind the scenes.
            cost = cost + np.minimum(each, after + detour + price.interruption * s.waits * felt(tail))
        cost = floor + cost / len(leads)
    sent = bits + made + np.where(fills, rows - bits, 0.0)
    used = s.judge.traffic * price.traffic * sent / 8e9 + s.judge.gpu * price.gpu * work + elsewhere
    used = used + s.judge.courtesy * s.company * sent / s.rate_bps
    used = used + taste(option, s.judge)
    if when != EARLY:
        used = used + (s.judge.at if when == AT else s.judge.fetch)
    else:
        used = used + s.judge.early * np.maximum(s.ahead_s - ready, 0.0)
    sure = s.sure if when == EARLY else 1.0
    return sure * cost + used + (1.0 - sure) * price.waste * (sent / 8e9 + work)


def taste(option: Option, judge: Judgement):
    """The price of a kind of plan that was learned; 0 for the judgement that was set by hand."""
    kept = np.clip((1.0 - option.keep) / 0.9, 0.0, 1.0)
    return (judge.token * (option.medium == TOKEN) + judge.kv * (option.medium == KV)
            + judge.split * (option.medium == SPLIT) * 2.0 * option.prefix + judge.whole * (option.keep >= 1.0)
            + judge.thin * kept * (option.keep < 1.0) + judge.fill * (option.backfill > 0.0)
            + judge.fine * (option.bits > 4))


def attach(option: Option, s: Situation, prefix, whole, late_bits, config: HandoverConfig):
    """Time to attach what was received (migration.attach_s) [s]."""
    tokens = np.where(option.medium == TOKEN, 0.0, option.keep * s.density * (s.context - prefix))
    return late_bits / 8.0 / config.serving.restore_bytes_per_s + tokens * config.serving.attach_s_per_token
