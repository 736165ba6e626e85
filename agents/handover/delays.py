"""What a plan for one session is expected to cost: the delay model of the planner, in the prices of the environment.

Queues, rates and decode iterations are those of this instant; what others begin later is not seen. Drift and wrong
answers come from a table that was measured (drift_table.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ...envs.handover.config import PLAN_BITS, HandoverConfig
from ...envs.handover.harm.drift_numbers import KL
from ...envs.handover.harm.drift_table import SCORER, harm_per_token
from ...envs.handover.world.migration import LEAST_FIRST
from ...envs.handover.world.state import DETOUR, KV, SPLIT, TOKEN
from ...envs.sim.jit import entry, kernel
from .judgement import Judgement

EARLY, AT, FETCH, STAY = range(4)
# Handovers come earlier or later than predicted, in shares of the predicted time: about the quantiles .05, .2, .5, .8
# of the predictor in the default world.
_TIMING = (-0.5, -0.2, 0.0, 0.4)
_GRID = 1000
PREFIXES = (0.1, 0.25, 0.5, 0.75)  # shares of a context that a split rebuilds


@dataclass(frozen=True)
class Option:
    """One plan that is considered."""

    when: int  # EARLY: prepare now; AT: with the handover; FETCH: behind the scenes; STAY: never
    medium: int
    keep: float = 1.0
    bits: int = 16
    prefix: float = 0.0  # share that is rebuilt
    backfill: float = 0.0


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

    @functools.cached_property
    def records(self) -> tuple[np.ndarray, np.ndarray]:
        """Sessions, and how each is judged, as compiled functions read them [N]."""
        count = len(self.context)
        sessions, judges = np.empty(count, _SESSION), np.empty(count, _JUDGE)
        for found, source in ((sessions, self), (judges, self.judge)):
            for name in found.dtype.names or ():
                found[name] = getattr(source, name)
        return sessions, judges


def harm(keep, bits, config: HandoverConfig) -> np.ndarray:
    """Price of one measured token of a cache with that keep ratio and precision: its drift, and wrong answers [1].

    As measured for the configured scorer, or for the default one where that was not measured.
    """
    grid, keep = harm_grid(config), np.asarray(keep, np.float64)
    below = np.minimum((keep * _GRID).astype(np.int64), _GRID - 1)
    part, row = keep * _GRID - below, _row(np.asarray(bits))
    return (1.0 - part) * grid[row, below] + part * grid[row, below + 1]


def _row(bits):
    """The row of a precision in a grid of harm."""
    return np.searchsorted(PLAN_BITS[::-1], bits)


def harm_grid(config: HandoverConfig) -> np.ndarray:
    """The harm of each precision, from low to high, at every thousandth of keep, float [3, 1001]."""
    ranks = config.scoring.scorer + ("@head" if config.scoring.scope == "head" else "")
    return _harm_grid(ranks if ranks in KL else SCORER, config.reward.drift, config.reward.wrong)


@functools.cache
def _harm_grid(ranks: str, drift_price: float, wrong_price: float) -> np.ndarray:
    """The harm of each precision, from low to high, at every thousandth of keep; exact, since no knot lies between."""
    keep = np.linspace(0.0, 1.0, _GRID + 1)
    return np.stack([harm_per_token(keep, bits, drift_price, wrong_price, ranks) for bits in PLAN_BITS[::-1]])


# Options, sessions and the world as records, which one compiled function reads by name.
_OPTION = np.dtype([("medium", "i4"), ("keep", "f8"), ("bits", "i4"), ("prefix", "f8"), ("fills", "?"),
                    ("row", "i4"), ("bits_per_token", "f8"), ("when", "i4")])
_SESSION = np.dtype([(f.name, "?" if f.name in ("known", "behind") else "f8")
                     for f in fields(Situation) if f.name != "judge"])
_JUDGE = np.dtype([(f.name, "f8") for f in fields(Judgement)])
_WORLD = np.dtype([(name, "f8") for name in (
    "interruption", "detour", "traffic", "gpu", "waste", "slow", "late", "radio_s", "scale", "answer_tokens",
    "ttft_objective_s", "tpot_objective_s", "think_s", "interval_s", "prefill_overhead_s", "chunk_tokens",
    "decode_slowdown", "restore_bytes_per_s", "attach_s_per_token")] + [("chunked", "?"), ("old_row", "i4")])


def option_records(many: Sequence[Option], bits_per_token: Callable[[int], float]) -> np.ndarray:
    """Options as `costs_of` reads them [P]."""
    found = np.zeros(len(many), _OPTION)
    for record, option in zip(found, many, strict=True):
        record["when"], record["medium"], record["keep"], record["bits"], record["prefix"], backfill = (
            getattr(option, f.name) for f in fields(Option))
        record["fills"], record["row"] = backfill > 0.0, _row(option.bits)
        record["bits_per_token"] = bits_per_token(int(option.bits))
    return found


def world_record(config: HandoverConfig) -> np.void:
    """Prices, and what the simulator's delays depend on."""
    price, sessions, compute, serving = config.reward, config.sessions, config.compute, config.serving
    found = np.zeros(1, _WORLD)
    values = dict(
        {name: getattr(price, name) for name in ("interruption", "detour", "traffic", "gpu", "waste", "slow")},
        late=price.late if sessions.prompt_tokens[0] > 0.0 else 0.0, radio_s=config.radio.interruption_s,
        scale=serving.context_scale, answer_tokens=sessions.answer_tokens[0],
        ttft_objective_s=sessions.ttft_objective_s, tpot_objective_s=sessions.tpot_objective_s,
        think_s=sessions.think_s, interval_s=config.interval_s, prefill_overhead_s=serving.prefill_overhead_s,
        chunk_tokens=compute.chunk_tokens, decode_slowdown=compute.decode_slowdown,
        restore_bytes_per_s=serving.restore_bytes_per_s, attach_s_per_token=serving.attach_s_per_token,
        chunked=compute.prefill == "chunked", old_row=_row(4 if min(config.actions.bits) < 16 else 16))
    for name, value in values.items():
        found[name] = value
    return found[0]


def costs(option: Option, s: Situation, config: HandoverConfig, bits_per_token: float) -> np.ndarray:
    """Expected cost of one plan for every session, in the prices of config.reward, float [N].

    Args:
        option: the plan.
        s: the sessions.
        config: prices and what the simulator's delays depend on.
        bits_per_token: KV of one whole token at the option's precision [bit].

    Source: ours; delays as in envs/handover/world/migration.py: interruption = max(radio, prefill, transfer) +
    attaching + first token.
    """
    found = np.empty((1, len(s.context)))
    costs_of(option_records([option], lambda bits: bits_per_token), *s.records, world_record(config),
             harm_grid(config), found)
    return found[0]


def prefill(tokens: np.ndarray, s: Situation, world: np.void) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a prefill of so many tokens is at each session's target [N], in the world of `world_record`.

    Returns:
        (work_s, takes_s, elsewhere): GPU time of it alone [s]; how long it takes beside the sessions there [s]; the
        price of what it does to them [1].
    """
    found = np.empty((3, len(tokens)))
    _prefills(tokens, s.records[0], world, *found)
    return found[0], found[1], found[2]


@entry
def costs_of(options, sessions, judges, world, grid, found):
    """Write the expected cost of every option for every session into `found`, float [P, N]."""
    for n in range(len(sessions)):
        for k in range(len(options)):
            found[k, n] = _cost(options[k], sessions[n], judges[n], world, grid)


@kernel
def _cost(o, s, j, w, grid):
    """Expected cost of one option for one session."""
    floor = 0.0 if s.behind else w.interruption * s.waits * (w.radio_s + s.iteration_s)
    old = j.harm * _harm_at(grid, w.old_row, s.density) if s.density < 1.0 else 0.0
    # Out of reach there is no detour, whatever it would cost.
    detour = w.detour * s.delay_s if s.delay_s < np.inf else np.inf
    if o.when == STAY:
        answers = 1.0 + s.rest / max(w.answer_tokens, 1.0)
        return floor + detour * answers + old * s.rest / w.scale + j.stay
    whole = s.density * o.bits_per_token
    prefix = s.context if o.medium == TOKEN else math.floor(o.prefix * s.context)
    work = _work_s(prefix, s, w)
    takes, elsewhere = _others_s(work, s, w)
    takes, elsewhere = takes * j.gpu_margin, elsewhere * j.elsewhere
    stretch = takes / max(work, 1e-12) if work > 0.0 else 1.0
    gpu_end = s.wait_s * stretch + takes if prefix > 0.0 else 0.0
    rows = (s.context - prefix) * whole
    bits = o.keep * rows
    # Links are shared by turns: each of the others sends as much as this one meanwhile, if it has so much.
    more = j.company * s.company
    send_end = (bits + min(s.backlog_bits, s.flows * bits) + more * bits) / s.rate_bps
    ready, fair = max(gpu_end, send_end), s.rate_bps / (1.0 + s.flows + more)
    suffix = 1.0 - prefix / max(s.context, 1.0)
    final = suffix * max(j.harm * _harm_at(grid, o.row, 1.0), old)
    after = _degraded(o.keep, (rows - bits) / fair, suffix, final, old, o, s, j, w, grid)
    if o.when == FETCH:
        made = s.tokens_per_s * ready * o.bits_per_token
        last = min(made, s.tokens_per_s * w.interval_s * o.bits_per_token)
        switch_s = last / s.rate_bps + _attach_s(o, s, prefix, last, w)
        cost = floor + detour + after + _felt(switch_s, s, w)
    else:
        cost, made = 0.0, 0.0
        moments = len(_TIMING) if o.when == EARLY and not s.known else 1
        for nth in range(moments):
            lead = 0.0
            if o.when == EARLY:
                lead = s.ahead_s if s.known else s.ahead_s * max(1.0 + j.timing * _TIMING[nth], 0.0)
            made = s.tokens_per_s * min(ready, lead) * o.bits_per_token
            last = min(made, s.tokens_per_s * w.interval_s * o.bits_per_token)
            late = max(max(gpu_end - lead, 0.0), max(send_end + last / s.rate_bps - lead, 0.0))
            tail = _attach_s(o, s, prefix, min(late * fair, bits), w)
            idle = max(w.radio_s, late) - w.radio_s + tail
            each = w.interruption * s.waits * idle + after
            if o.when == EARLY and o.fills and bits > 0.0:
                # Resume on what is there once the prefill has ended and the tokens produced since have come;
                # they travel behind the rows. All the rest follows.
                there = min(max(lead / max(send_end, 1e-9), 0.0), 1.0) * o.keep
                there = max(there, min(LEAST_FIRST, o.keep))
                new = s.tokens_per_s * lead * o.bits_per_token
                soon = max(w.radio_s, max(max(gpu_end - lead, 0.0), new / fair)) - w.radio_s
                rest = _degraded(there, (1.0 - there) * rows / fair, suffix, final, old, o, s, j, w, grid)
                each = min(each, w.interruption * s.waits * (soon + _attach_s(o, s, prefix, new, w)) + rest)
            # Who can be forwarded streams on; what is missing comes behind the scenes.
            cost += min(each, after + detour + _felt(tail, s, w))
        cost = floor + cost / moments
    sent = bits + made + (rows - bits if o.fills else 0.0)
    used = j.traffic * w.traffic * sent / 8e9 + j.gpu * w.gpu * work + elsewhere
    used += j.courtesy * s.company * sent / s.rate_bps + _taste(o, j)
    if o.when != EARLY:
        return cost + used + (j.at if o.when == AT else j.fetch)
    used += j.early * max(s.ahead_s - ready, 0.0)
    return s.sure * cost + used + (1.0 - s.sure) * w.waste * (sent / 8e9 + work)


@kernel
def _degraded(keep, rest_s, suffix, final, old, o, s, j, w, grid):
    """Price of the tokens that a cache with `keep` of its rows produces until the rest is there."""
    some = min(s.tokens_per_s * rest_s, s.rest) if o.fills else s.rest
    lossy = suffix * max(j.harm * _harm_at(grid, o.row, keep), old)
    return (lossy * some + (final * (s.rest - some) if o.fills else 0.0)) / w.scale


@kernel
def _felt(switch_s, s, w):
    """Price of what a user notices of a switch behind the scenes: what is longer than the pace of the tokens."""
    return w.interruption * s.waits * max(switch_s - s.iteration_s, 0.0)


@kernel
def _taste(o, j):
    """The price of a kind of plan that was learned; 0 for the judgement that was set by hand."""
    price = j.token if o.medium == TOKEN else j.kv if o.medium == KV else j.split * 2.0 * o.prefix
    price += j.whole if o.keep >= 1.0 else j.thin * min((1.0 - o.keep) / 0.9, 1.0)
    return price + (j.fill if o.fills else 0.0) + (j.fine if o.bits > 4 else 0.0)


@kernel
def _attach_s(o, s, prefix, late_bits, w):
    """Time to attach what was received (migration.attach_s) [s]."""
    tokens = 0.0 if o.medium == TOKEN else o.keep * s.density * (s.context - prefix)
    return late_bits / 8.0 / w.restore_bytes_per_s + tokens * w.attach_s_per_token


@kernel
def _work_s(tokens, s, w):
    """GPU time of a prefill alone [s]."""
    if not tokens > 0.0:
        return 0.0
    chunks = math.ceil(tokens / w.chunk_tokens) if w.chunked else 1.0
    return s.prefill_s_per_token * tokens + w.prefill_overhead_s * chunks


@kernel
def _others_s(work, s, w):
    """How long a prefill takes at the target [s], and the price of what it does to the sessions of others [1].

    Between its chunks everybody gets a token: it takes longer, and tokens come slower than the objective. Who asks
    meanwhile waits for its end.
    """
    takes, each = work, 0.0
    if s.sharers > 0:
        if w.chunked:
            chunk = s.prefill_s_per_token * w.chunk_tokens + w.prefill_overhead_s
            each = s.iteration_s + chunk
            takes = work * each / chunk
        else:
            each = s.iteration_s / max(1.0 - w.decode_slowdown, 1e-3)
    slow = max(0.0, 1.0 - w.tpot_objective_s / max(each, 1e-9))
    turn_s = w.think_s + w.answer_tokens * s.iteration_s
    late = max(takes - w.ttft_objective_s, 0.0) ** 2 / 2.0 / max(turn_s, 0.1)
    return takes, s.sharers * (w.slow * slow * takes + w.late * late)


@entry
def _prefills(tokens, sessions, world, work, takes, elsewhere):
    for n in range(len(sessions)):
        work[n] = _work_s(tokens[n], sessions[n], world)
        takes[n], elsewhere[n] = _others_s(work[n], sessions[n], world)


@kernel
def _harm_at(grid, row, keep):
    """harm() for one precision and keep ratio."""
    below = min(int(keep * _GRID), _GRID - 1)
    part = keep * _GRID - below
    return (1.0 - part) * grid[row, below] + part * grid[row, below + 1]
