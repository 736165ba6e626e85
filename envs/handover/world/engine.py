"""The simulator: every environment advances by one decision interval, event by event, beside the others.

Within an interval nothing is rounded to a grid: a transfer, a prefill batch, a handover or an answer ends when it
ends, and what it frees is shared again at that instant. Motion, measurements and link rates are updated once per
interval.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np

from ...sim import cell_change, compute, mobility, radio, sessions
from ...sim.backhaul import vary_capacities, weighted_fair_rates
from ...sim.jit import allocating, entry, inlined, kernel, kernel_as, parallel_entry
from ...sim.link_monitoring import monitor
from ...sim.streams import (
    LINK_EGRESS,
    LINK_INGRESS,
    MEASUREMENT_OFFSET,
    SERVER_MEMORY,
    SERVER_SPEED,
    WORLD,
    uniform,
)
from . import batches, chunked, handovers, link_failure, migration, trigger
from .state import (
    DONE,
    FLOW,
    IDLE,
    INTERRUPTED,
    NO_JOB,
    OPENED,
    PREPARING,
    WAITING,
    State,
    Tables,
)

_NEVER = np.inf
# What may happen next within an interval.
(_END, _TRANSFER, _HANDOVER, _RESUME, _TURN, _BATCH_START, _BATCH_END, _JOB_END, _CAPACITY, _DELAY_END, _FAILURE,
 _REESTABLISH) = range(12)


BLOCKS = 64  # that a batch is cut into for the threads: even shares, each with working memory of its own


class Scratch(NamedTuple):
    """Working memory of one thread, for one environment after the other."""

    source: np.ndarray  # of the transfers under way, int64 [U]
    target: np.ndarray
    owner: np.ndarray
    weight: np.ndarray  # float64 [U]
    rate: np.ndarray  # [bit/s]
    decode: np.ndarray  # tokens per second of every UE, float64 [U]
    room: np.ndarray  # float64 [2 C]
    demand: np.ndarray
    egress: np.ndarray  # float64 [C] [bit/s]
    ingress: np.ndarray
    gain_db: np.ndarray  # float64 [U, C]
    gains_db: np.ndarray  # the same, float64 [U C]
    noise: np.ndarray  # float64 [U, C]
    received: np.ndarray  # float64 [U C]
    head: np.ndarray  # int64 [C]
    share: np.ndarray  # float64 [C]
    since: np.ndarray
    iteration_s: np.ndarray  # of every server
    sharers: np.ndarray  # int64 [C]
    nothing: np.ndarray  # FLOW [1], zero


@allocating
def allocate_scratch(ues, cells):
    """A Scratch for environments of so many UEs and cells; nothing in it outlives a step."""
    gain_db = np.empty((ues, cells))
    return Scratch(np.empty(ues, np.int64), np.empty(ues, np.int64), np.empty(ues, np.int64), np.empty(ues),
                   np.empty(ues), np.empty(ues), np.empty(2 * cells), np.empty(2 * cells), np.empty(cells),
                   np.empty(cells), gain_db, gain_db.reshape(-1), np.empty((ues, cells)), np.empty(ues * cells),
                   np.empty(cells, np.int64), np.empty(cells), np.empty(cells), np.empty(cells),
                   np.empty(cells, np.int64), np.zeros(1, FLOW))


@kernel_as("float64(float64, uint64, int64, int64)")
def spread(most, key, c, what):
    """A factor of cell `c`, log-uniform in [1 / most, most]."""
    return most ** (2.0 * uniform(key, c, what, 0) - 1.0)


@inlined
def reset_one(ue, cell, world, keys, rsrp_dbm, a3_since_s, params, tables: Tables, scratch: Scratch):
    """Begin an episode in one environment: cells, UEs on the streets, serving cells, sessions in mid-answer."""
    p = params[0]
    world.time_s, world.step, world.events, world.answers, world.period = 0.0, 0, 0, 0, 0
    for c in range(cell.shape[0]):
        cell[c].memory_bytes = p.memory_bytes * spread(p.memory_spread, keys[WORLD], c, SERVER_MEMORY)
        cell[c].speed = spread(p.speed_spread, keys[WORLD], c, SERVER_SPEED)
        cell[c].egress_bps = p.capacity_bps * spread(p.capacity_spread, keys[WORLD], c, LINK_EGRESS)
        cell[c].ingress_bps = p.capacity_bps * spread(p.capacity_spread, keys[WORLD], c, LINK_INGRESS)
        cell[c].egress_nominal_bps, cell[c].ingress_nominal_bps = cell[c].egress_bps, cell[c].ingress_bps
        cell[c].busy_until = compute.IDLE_SERVER
    if p.variation > 1.0:
        vary_capacities(cell, p, keys, world.period)
    for u in range(ue.shape[0]):
        ue[u].server, ue[u].phase = -1, IDLE
    a3_since_s[:] = _NEVER
    for u in range(ue.shape[0]):
        mobility.place(ue, u, p, tables.city, keys)
    radio.measure(ue, p, tables.city, keys, rsrp_dbm, scratch.gain_db, scratch.noise, world.step)
    for u in range(ue.shape[0]):
        me = ue[u]
        me.radio = np.argmax(rsrp_dbm[u])
        me.previous, me.since_s = -1, -_NEVER
        me.phase_s = p.dt * uniform(keys[WORLD], u, MEASUREMENT_OFFSET, 0)
        me.t310_s = me.reconnect_s = _NEVER
        me.rlf = False
        me.session = 0
        handovers.open_session(ue, u, cell, tables.hops, p, keys, 0.0)
        sessions.begin_in_the_middle(ue, u, p, tables.trace, keys)
        me.start_s = me.job_since_s = me.job_left_s = me.prompt_since_s = me.prompt_left_s = me.prompt_tokens = 0.0
        me.weight, me.rest_weight = 1.0, 0.0
        if not me.stranded:
            me.handover_s = me.reattach_s = -_NEVER
    cell_change.a3_events(ue, p, rsrp_dbm, a3_since_s, 0.0)
    handovers.settle(ue)
    radio.update_load(ue, cell, p)
    radio.update_links(ue, cell, p, tables.city, scratch.gains_db, scratch.received, scratch.sharers)
    monitor(ue, p, 0.0)


@inlined
def advance_one(ue, cell, world, keys, rsrp_dbm, a3_since_s, flow, event, answer, plan, params, tables: Tables,
                scratch: Scratch):
    """Advance one environment by one decision interval under the plans [U]."""
    p = params[0]
    ues, cells = ue.shape[0], cell.shape[0]
    source, target, owner, weight, rate = scratch.source, scratch.target, scratch.owner, scratch.weight, scratch.rate
    decode, room, demand = scratch.decode, scratch.room, scratch.demand
    egress, ingress = scratch.egress, scratch.ingress
    hops, iteration_s = tables.hops, scratch.iteration_s
    # With chunked prefill: the job that every server works on, and the share of its time that goes to it.
    head, share = scratch.head, scratch.share
    for c in range(cells):
        egress[c], ingress[c] = cell[c].egress_bps, cell[c].ingress_bps
        head[c], share[c] = -1, 1.0
    nobody: Any = np.int64(0)  # with a plain 0 what follows would be compiled for the number 0, and again for any other
    begin = now = world.step * p.dt
    end = (world.step + 1) * p.dt
    world.events = world.answers = 0
    for u in range(ues):
        flow[u] = scratch.nothing[0]
    handovers.apply_plans(ue, plan, cell, hops, p, now, flow)
    if p.policy_trigger == 1:
        trigger.obey(ue, plan, a3_since_s, cell, hops, p, now, flow)

    while True:
        migration.complete(ue, cell, p, now, event, world)
        handovers.settle(ue)
        decode_iterations(ue, cell, p, iteration_s)
        flows = 0
        for u in range(ues):
            if ue[u].phase != IDLE and ue[u].bits_left > 0.0:
                source[flows], target[flows], weight[flows] = ue[u].origin, ue[u].target, ue[u].weight
                owner[flows] = u
                flows += 1
        weighted_fair_rates(source[:flows], target[:flows], weight[:flows], egress, ingress, p.pool == 1,
                            rate[:flows], room, demand)

        if p.chunked == 1:
            chunked.serve(ue, cell, p, now, iteration_s, head, share, scratch.since)

        decode_rates(ue, p, cell, now, head, iteration_s, decode)

        # The earliest of everything that may happen; ties go to the first listed, the rest follow at zero distance.
        at, what, who = end, _END, nobody
        if p.variation > 1.0 and (world.period + 1) * p.variation_period_s < at:
            at, what = (world.period + 1) * p.variation_period_s, _CAPACITY
        for f in range(flows):
            if rate[f] > 0.0 and now + ue[owner[f]].bits_left / rate[f] < at:
                at, what, who = now + ue[owner[f]].bits_left / rate[f], _TRANSFER, owner[f]
        for c in range(cells):
            if cell[c].busy_until > compute.IDLE_SERVER and cell[c].busy_until < at:
                at, what, who = cell[c].busy_until, _BATCH_END, c
            if p.chunked == 1 and head[c] >= 0 and now + chunked.left_s(ue, head[c]) / share[c] < at:
                at, what, who = now + chunked.left_s(ue, head[c]) / share[c], _JOB_END, c
        # A batch takes along whatever falls due at the instant at which it starts, so it comes after all that.
        start_at, start_cell = _NEVER, nobody
        for u in range(ues):
            me = ue[u]
            if me.fire_s < at and p.policy_trigger == 0:
                at, what, who = me.fire_s, _HANDOVER, u
            if me.t310_s < at:
                at, what, who = me.t310_s, _FAILURE, u
            if me.reconnect_s < at:
                at, what, who = me.reconnect_s, _REESTABLISH, u
            if me.phase == INTERRUPTED and me.resume_s < at:
                at, what, who = me.resume_s, _RESUME, u
            if me.streaming:
                if decode[u] > 0.0 and now + me.answer_left / decode[u] < at:
                    at, what, who = now + me.answer_left / decode[u], _TURN, u
            elif now + me.pause_left_s < at:
                at, what, who = now + me.pause_left_s, _TURN, u
            if me.job == WAITING and p.chunked == 1:
                if now < me.start_s < at:
                    at, what, who = me.start_s, _DELAY_END, u
            elif me.job == WAITING and cell[me.target].busy_until == compute.IDLE_SERVER:
                ready_at = compute.next_cycle(max(now, me.start_s), p.cycle_s)
                if ready_at <= start_at:
                    start_at, start_cell = ready_at, me.target
            if p.chunked == 0 and batches.prompt_waits(me) and cell[me.server].busy_until == compute.IDLE_SERVER:
                ready_at = compute.next_cycle(now, p.cycle_s)
                if ready_at <= start_at:
                    start_at, start_cell = ready_at, me.server
        if start_at < at:
            at, what, who = start_at, _BATCH_START, start_cell
        at = max(at, now)

        pass_time(ue, hops, p, now, at - now, decode, owner[:flows], rate[:flows], flow)
        if p.chunked == 1:
            for c in range(cells):
                if head[c] >= 0:
                    chunked.work_on(ue, head[c], share[c] * (at - now), flow)
        now = at
        if what == _END:
            break
        if what == _TRANSFER:
            ue[who].bits_left = 0.0
        elif what == _BATCH_END:
            batches.finish_batch(ue, cell, who, p, tables.trace, keys, flow)
        elif what == _JOB_END:
            if head[who] < ues:
                ue[head[who]].job = DONE
            else:
                sessions.finish_prompt(ue, head[who] - ues, p, tables.trace, keys, flow)
        elif what == _CAPACITY:
            world.period += 1
            vary_capacities(cell, p, keys, world.period)
            for c in range(cells):
                egress[c], ingress[c] = cell[c].egress_bps, cell[c].ingress_bps
        elif what == _BATCH_START:
            batches.start_batch(ue, cell, who, p, now, flow)
        elif what == _FAILURE:
            link_failure.fail(ue, who, a3_since_s, p, now, flow)
        elif what == _REESTABLISH:
            link_failure.reestablish(ue, who, plan[who], rsrp_dbm, cell, hops, p, now, begin, flow)
        elif what == _HANDOVER and ue[who].monitor_db < p.q_out_db:
            # The command does not reach the UE (a handover failure as TR 36.839 counts it: the channel is below Q_out).
            flow[who].handover_failures += 1
            link_failure.fail(ue, who, a3_since_s, p, now, flow)
        elif what == _HANDOVER:
            new_cell = ue[who].fire_cell
            cell_change.forget_events(ue, who, a3_since_s)
            handovers.change_cell(ue, who, plan[who], new_cell, cell, hops, p, now, begin, flow)
        elif what == _RESUME:
            moved = migration.resume(ue, who, hops, p, now, event[world.events])
            world.events += 1
            ue[who].prompt_since_s = now
            if moved and ue[who].opening:
                # The whole context was rebuilt here: its prompt is answered.
                ue[who].opening, ue[who].prompt = False, NO_JOB
                ue[who].held = ue[who].context
                sessions.start_answer(ue, who, p, tables.trace, keys)
        elif what == _TURN:
            if ue[who].streaming and ue[who].ttft_s < _NEVER and ue[who].asked_s != sessions.NOT_ASKED:
                report(ue, who, hops, p, now, answer[world.answers])
                world.answers += 1
            if end_turn(ue, who, cell, hops, p, tables.trace, keys, now, flow):
                note = event[world.events]
                note.kind, note.ue, note.time_s, note.context = OPENED, who, now, ue[who].context
                world.events += 1

    world.step += 1
    world.time_s = end
    for u in range(ues):
        if ue[u].phase == PREPARING:
            migration.ship_increment(ue, u, p)
        if ue[u].monitor_db < p.q_out_db or ue[u].reconnect_s < _NEVER:
            flow[u].outage_s += p.dt
    mobility.move(ue, p, tables.city, keys)
    radio.measure(ue, p, tables.city, keys, rsrp_dbm, scratch.gain_db, scratch.noise, world.step)
    cell_change.a3_events(ue, p, rsrp_dbm, a3_since_s, end)
    radio.update_load(ue, cell, p)
    radio.update_links(ue, cell, p, tables.city, scratch.gains_db, scratch.received, scratch.sharers)
    monitor(ue, p, end)


@kernel
def decode_iterations(ue, cell, p, iteration_s):
    """Write the time of one decode iteration of every server, float64 [C]: weights and resident caches are read once.

    Roofline of a step that is bound by memory bandwidth; the contexts are those of this instant.
    """
    iteration_s[:] = p.iteration_s
    if p.kv_token_s > 0.0 or p.ranking > 0.0:
        for u in range(ue.shape[0]):
            if ue[u].active:
                iteration_s[ue[u].server] += compute.share_of_iteration_s(ue[u], p)
    for c in range(cell.shape[0]):
        iteration_s[c] /= cell[c].speed


@kernel
def decode_rates(ue, p, cell, now_s, head, iteration_s, rate):
    """Write the tokens per second that every UE is sent now: 0 when not active.

    The slower of its server's iterations (longer while it prefills) and its link: one token at a time is on the air.
    """
    for u in range(ue.shape[0]):
        me = ue[u]
        if not me.active:
            rate[u] = 0.0
            continue
        each = iteration_s[me.server]
        if p.chunked == 1 and head[me.server] >= 0:
            each += chunked.chunk_s(ue, head[me.server], p, cell[me.server].speed)
        elif p.chunked == 0 and cell[me.server].busy_until > now_s:
            each /= 1.0 - p.decode_slowdown
        rate[u] = 1.0 / max(each, me.air_s)


@kernel
def report(ue, u, hops, p, now_s, answer):
    """Fill `answer`: what the request of UE `u` whose answer ends now has had."""
    me = ue[u]
    answer.ue, answer.time_s, answer.ttft_s, answer.tokens = u, now_s, me.ttft_s, me.answer_tokens
    last_s = now_s + me.air_s + p.hop_s * hops[me.server, me.radio]
    answer.duration_s = max(last_s - me.asked_s - me.ttft_s, 0.0)


@kernel
def pass_time(ue, hops, p, now_s, elapsed, decode, owner, rate, flow):
    """Let `elapsed` seconds pass in which no rate changes: bits flow, tokens are produced, users wait."""
    for f in range(owner.shape[0]):
        u = owner[f]
        bits = min(ue[u].bits_left, rate[f] * elapsed)
        ue[u].bits_left -= bits
        ue[u].bits_sent += bits
        flow[u].bits_sent += bits
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.phase == INTERRUPTED:
            if me.streaming or me.prompt != NO_JOB:
                wait_for_service(ue, u, p, now_s, elapsed, flow)
        elif me.prompt != NO_JOB:
            flow[u].late_s += max(0.0, now_s + elapsed - max(now_s, me.asked_s + p.ttft_objective_s))
        if not me.streaming:
            me.pause_left_s -= elapsed
        elif decode[u] > 0.0 and elapsed > 0.0:
            tokens = min(me.answer_left, decode[u] * elapsed)
            first_s = now_s + min(elapsed, max(0.0, 1.0 - me.answer_tokens) / decode[u])
            if me.answer_tokens == 0.0:
                me.path = 0
            me.answer_left -= tokens
            me.context += tokens
            me.held += tokens
            me.unranked = max(0.0, me.unranked - compute.RANKED_AT_ONCE * tokens)
            me.answer_tokens += tokens
            flow[u].tokens += tokens
            flow[u].latency_s += elapsed
            flow[u].slow_s += max(0.0, elapsed - tokens * p.tpot_objective_s)
            path = hops[me.server, me.radio]
            flow[u].forwarded_bits += tokens * path * p.token_payload_bits
            # What is left of a script may be less than one token.
            if me.ttft_s == _NEVER and (me.answer_tokens >= 1.0 - 1e-9 or me.answer_left <= 1e-9):
                me.ttft_s = first_s - me.asked_s + me.air_s + p.hop_s * path
            if path != me.path:
                # Every hop delays the stream, once; another one more when the way gets longer.
                flow[u].detour_s += p.hop_s * max(path - me.path, 0)
                me.path = path


@kernel
def wait_for_service(ue, u, p, now_s, elapsed, flow):
    """The user of session `u` waits for tokens, and it is out of service.

    A switch behind the scenes (no change of cell) is felt only when it lasts longer than the pace of the tokens.
    Nobody can avoid that the radio is interrupted, nor the first decode iteration after it.
    """
    me = ue[u]
    begin = now_s
    if me.reattach_s == -_NEVER:
        begin = max(now_s, me.handover_s + p.iteration_s)
    lost = max(0.0, now_s + elapsed - begin)
    me.felt_s += lost
    flow[u].interruption_s += lost
    flow[u].unavoidable_s += min(lost, max(0.0, min(now_s + elapsed, me.reattach_s + p.iteration_s) - now_s))


@kernel
def end_turn(ue, u, cell, hops, p, trace, keys, now_s, flow):
    """An answer or a pause is over; returns whether a new session began."""
    me = ue[u]
    over = me.context >= me.end - 1e-6
    if me.streaming or (over and me.phase == INTERRUPTED):
        if not me.streaming:
            # Its user is out of reach and cannot end the session; that happens after one more pause.
            me.turn += 1
        sessions.start_thinking(ue, u, p, trace, keys)
        return False
    if over:
        if me.phase != IDLE:
            # Nobody needs it any more. Were it not dropped, a transfer that waits would keep it from ending.
            migration.cancel(ue, u, flow)
        me.session += 1
        handovers.open_session(ue, u, cell, hops, p, keys, now_s)
    sessions.ask(ue, u, p, trace, keys, now_s)
    return over


@entry
def reset_some(which, state: State, params, tables: Tables, scratch: Scratch):
    """Reset the environments listed in `which`, int64 [N]."""
    for e in which:
        reset_one(state.ue[e], state.cell[e], state.world[e], state.keys[e], state.rsrp_dbm[e], state.a3_since_s[e],
                  params, tables, scratch)


@entry
def advance(first, last, state: State, plan, params, tables: Tables, scratch: Scratch):
    """Advance the environments first ... last - 1 by one decision interval under the plans [E, U], on one thread."""
    for e in range(first, last):
        advance_one(state.ue[e], state.cell[e], state.world[e], state.keys[e], state.rsrp_dbm[e], state.a3_since_s[e],
                    state.flow[e], state.event[e], state.answer[e], plan[e], params, tables, scratch)


@parallel_entry
def advance_parallel(first, last, state: State, plan, params, city, trace, hops):
    """The same, environments spread over numba's threads in blocks; the result is identical.

    The tables come one by one: numba cannot hand a tuple within a tuple to its threads.
    """
    blocks = min(last - first, BLOCKS)
    for b in nb.prange(blocks):
        scratch = allocate_scratch(state.ue.shape[1], state.cell.shape[1])
        advance(first + (last - first) * b // blocks, first + (last - first) * (b + 1) // blocks, state, plan, params,
                Tables(city, trace, hops), scratch)
