"""Migrations of sessions: begun, cancelled, completed; first in whole or in part, and then the rest.

The source keeps the session until the target has what it resumes on: nothing is lost, and what a cancelled migration
moved or computed is counted as wasted. When a migration begins is in handovers.py.
"""

from __future__ import annotations

import numpy as np

from ...sim import sessions
from ...sim.compute import next_cycle, share_of_iteration_s, wire_bits
from ...sim.jit import kernel
from . import chunked, memory
from .state import (
    BACKFILLED,
    DETOUR,
    FOLLOWING,
    IDLE,
    INTERRUPTED,
    KV,
    NO_JOB,
    PREPARING,
    REPAIRED,
    REPAIRING,
    RESUMED,
    RUNNING,
    TOKEN,
    WAITING,
)

LEAST_FIRST = 0.05  # share of the transferred rows without which no session resumes on a part of its cache


@kernel
def balanced_prefix(ue, u, cell, target, weight, bits_per_token, p, now_s):
    """Prefix [serving tokens] at which prefill and transfer end together, as nearly as whole tokens can, at this load.

    prefill(L) = wait + b + a L and transfer(L) = (n - L) s / R cross at L = (n s / R - wait - b) / (a + s / R); the
    wait is what the server's running batch and its cycle (or its queue, when chunked) still take, R the share of the
    bottleneck link that `weight` would get beside the transfers under way. Ours; for one UE and no wait it is L* of
    arXiv 2603.28018, section IV.
    """
    me = ue[u]
    out_weight, in_weight = weight, weight
    for v in range(ue.shape[0]):
        if v != u and ue[v].phase != IDLE and ue[v].bits_left > 0.0:
            if p.pool == 1 or ue[v].origin == me.server:
                out_weight += ue[v].weight
            if p.pool == 0 and ue[v].target == target:
                in_weight += ue[v].weight
    if weight <= 0.0:
        return me.context
    rate = cell[0 if p.pool == 1 else me.server].egress_bps * weight / out_weight
    if p.pool == 0:
        rate = min(rate, cell[target].ingress_bps * weight / in_weight)
    wait = next_cycle(max(now_s, cell[target].busy_until), p.cycle_s) - now_s
    overhead, per_token = p.prefill_b, p.prefill_a / cell[target].speed
    if p.chunked == 1:
        wait, overhead = chunked.queue_s(ue, cell, np.int64(target), p), 0.0
        per_token += p.prefill_b / p.chunk_tokens
    s_over_r = bits_per_token / rate
    prefix = np.floor((me.context * s_over_r - wait - overhead) / (per_token + s_over_r))
    if prefix < 0.0:
        return 0.0
    # Of the whole numbers beside the crossing, the one below ends with the transfer, the one above with the prefill.
    above = min(prefix + 1.0, me.context)
    if wait + overhead + per_token * above < (me.context - prefix) * s_over_r:
        return above
    return min(prefix, me.context)


@kernel
def begin(ue, u, plan, target, cell, p, now_s, interval_s):
    """Start a migration of session `u` to `target` as `plan`, made at `interval_s`, says; the caller sets the phase.

    A session that must move although the plan would leave it behind is rebuilt from token ids.
    """
    me = ue[u]
    # A session without a cache yet has nothing to send.
    me.medium = TOKEN if me.opening or plan.medium == DETOUR else plan.medium
    me.origin, me.target = me.server, target
    me.keep, me.bits, me.weight = plan.keep, plan.bits, plan.weight
    me.snapshot = me.shipped = me.context
    me.density = me.held / me.context
    whole = me.density * wire_bits(p, me.bits)
    per_token = me.keep * whole
    if me.medium == TOKEN:
        me.prefix = me.context
    elif me.medium == KV:
        me.prefix = 0.0
    elif plan.prefix >= 0:
        me.prefix = min(float(plan.prefix), me.context)
    else:
        me.prefix = balanced_prefix(ue, u, cell, target, me.weight, per_token, p, now_s)
    me.bits_left = (me.context - me.prefix) * per_token
    me.rest_bits = (me.context - me.prefix) * (whole - per_token) if plan.backfill > 0.0 else 0.0
    me.bits_sent = me.bits_late = me.job_s = 0.0
    me.job = WAITING if me.prefix > 0.0 else NO_JOB
    me.job_since_s, me.start_s = now_s, interval_s + plan.prefill_delay_s
    me.resume_s = np.inf


@kernel
def begin_repair(ue, u, plan, now_s):
    """Start to rebuild the cache of session `u` from token ids, at its own server, while it streams."""
    me = ue[u]
    forget(ue, u)
    me.medium, me.prefix = TOKEN, me.context
    me.job, me.job_since_s, me.start_s = WAITING, now_s, now_s + plan.prefill_delay_s
    me.phase = REPAIRING


@kernel
def forget(ue, u):
    """Clear the migration record of session `u`."""
    me = ue[u]
    me.origin = me.target = me.server
    me.medium = DETOUR
    me.keep, me.bits = 1.0, 16
    me.prefix = me.bits_left = me.bits_sent = me.bits_late = me.job_s = me.rest_bits = 0.0
    me.snapshot = me.shipped = me.context
    me.density = 1.0
    me.job = NO_JOB
    me.resume_s = np.inf
    me.then, me.stranded = IDLE, False


@kernel
def cancel(ue, u, flow):
    """Drop the migration of session `u`, or the rest of its cache that follows, or its repair.

    What was sent and computed for it is wasted.
    """
    flow[u].wasted_bits += ue[u].bits_sent
    flow[u].wasted_gpu_s += ue[u].job_s
    forget(ue, u)


@kernel
def ship_increment(ue, u, p):
    """Queue the KV of the tokens that session `u` produced since the last time it was called, uncut."""
    me = ue[u]
    me.bits_left += (me.context - me.shipped) * wire_bits(p, me.bits)
    me.shipped = me.context


@kernel
def unfinished(me):
    """Whether a migration (of a UE record) still sends or computes what its session is to resume on."""
    return me.bits_left > 0.0 or me.job == WAITING or me.job == RUNNING


@kernel
def cut_short(ue, u, p):
    """Let session `u` resume on the rows that are at the target already; all others follow as the rest.

    Rows travel in order of salience and ahead of the tokens that were produced meanwhile, which must all arrive.
    """
    me = ue[u]
    wire = wire_bits(p, me.bits)
    rows = (me.snapshot - me.prefix) * me.density * wire
    first = me.keep * rows
    missing = me.bits_left - (me.context - me.snapshot) * wire
    if rows <= 0.0 or missing <= 0.0:
        return
    enough = max(first - missing, min(first, LEAST_FIRST * rows))
    me.bits_left -= first - enough
    me.keep = enough / rows
    me.rest_bits = rows - enough


@kernel
def attach_s(me, p):
    """Time to attach a received cache: what arrived after the handover into GPU memory, all of it into block tables."""
    received = me.keep * me.density * (me.snapshot - me.prefix) + me.context - me.snapshot
    if me.medium == DETOUR or (me.medium == TOKEN and me.bits_late <= 0.0):
        return 0.0
    return me.bits_late / 8.0 / p.restore_bps + received * p.attach_token_s


@kernel
def complete(ue, cell, p, now_s, event, world):
    """Set the instants of resumption of sessions that have what they need; end what is done in the background.

    Interruption = max(radio interruption, prefill end, transfer end) + attaching + first decode step (ours). What
    arrived before the handover is in GPU memory already.
    """
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.phase == IDLE or me.stranded:
            continue
        goes_on = memory.background(me)
        if goes_on == FOLLOWING and me.bits_left <= 0.0:
            merge(ue, u, now_s, event[world.events])
            world.events += 1
        elif goes_on == REPAIRING and not unfinished(me):
            world.events += finish_repair(ue, u, now_s, event[world.events])
        elif me.phase == PREPARING and me.target == me.radio and not unfinished(me):
            # The UE is there already (its tokens were forwarded): fetch the last tokens, then switch.
            ship_increment(ue, u, p)
            me.bits_late = me.bits_left
            me.phase, me.then = INTERRUPTED, IDLE
            me.handover_s, me.reattach_s, me.felt_s = now_s, -np.inf, 0.0
            sessions.interrupt_prompt(ue, u)
        if me.phase != INTERRUPTED or me.resume_s < np.inf or me.reattach_s == np.inf:
            continue
        if me.then != IDLE or me.target == me.server:
            me.resume_s = max(now_s, me.reattach_s) + iteration_s(ue, cell, me.server, p)
        elif not unfinished(me):
            me.resume_s = max(now_s, me.reattach_s) + attach_s(me, p)
            if me.reattach_s > -np.inf:
                me.resume_s += iteration_s(ue, cell, me.target, p)


@kernel
def iteration_s(ue, cell, c, p):
    """One decode iteration of server `c` with the sessions that decode there now [s]."""
    total = p.iteration_s
    for u in range(ue.shape[0]):
        if ue[u].streaming and ue[u].phase != INTERRUPTED and ue[u].server == c:
            total += share_of_iteration_s(ue[u], p)
    return total / cell[c].speed


@kernel
def merge(ue, u, now_s, event):
    """The rest of the cache of session `u` is there, and is merged between two decode iterations."""
    me = ue[u]
    note(me, u, BACKFILLED, now_s, event)
    # Tokens decoded meanwhile keep what they saw; a cache is whole only if there are none, and nothing was lost before.
    me.healthy = me.bits == 16 and me.density >= 1.0 and me.context <= me.shipped
    me.held = me.context - (1.0 - me.density) * (me.snapshot - me.prefix)
    end_background(ue, u)


@kernel
def finish_repair(ue, u, now_s, event):
    """The cache of session `u` is rebuilt; if it has grown meanwhile, that part is rebuilt next. Returns the events."""
    me = ue[u]
    if me.context - me.snapshot >= 1.0:
        me.prefix, me.snapshot = me.context - me.snapshot, me.context
        me.job, me.job_since_s = WAITING, now_s
        return 0
    note(me, u, REPAIRED, now_s, event)
    me.healthy, me.held = True, me.context
    end_background(ue, u)
    return 1


@kernel
def end_background(ue, u):
    """What went on beside the stream of session `u` is over; an interruption of the radio goes on."""
    me = ue[u]
    resume_s = me.resume_s
    forget(ue, u)
    if me.phase == INTERRUPTED:
        me.resume_s = resume_s
    else:
        me.phase = IDLE


@kernel
def note(me, u, kind, now_s, event):
    """Fill the fields that every kind of `event` about a session (a UE record) has."""
    event.kind, event.ue, event.time_s, event.context = kind, u, now_s, me.context
    event.medium, event.keep, event.bits = me.medium, me.keep, me.bits
    event.prefix, event.snapshot, event.rest = me.prefix, me.snapshot, False
    event.source, event.target = me.server, me.target
    event.interruption_s = event.felt_s = event.ttft_s = 0.0
    event.handed_over = event.rlf = False


@kernel
def resume(ue, u, hops, p, now_s, event):
    """Session `u` decodes again, at the target or where it was; fill `event` for the scorer; whether it has moved."""
    me = ue[u]
    moved = me.then == IDLE and me.target != me.server
    note(me, u, RESUMED, now_s, event)
    if not moved:
        event.medium, event.keep, event.bits, event.target = DETOUR, 1.0, 16, me.server
        event.prefix, event.snapshot = 0.0, me.context
    event.interruption_s, event.felt_s = now_s - me.handover_s, me.felt_s
    event.ttft_s = event.interruption_s + me.air_s + p.hop_s * hops[event.target, me.radio]
    event.handed_over = me.reattach_s >= me.handover_s
    event.rlf, me.rlf = me.rlf, False
    if not moved:
        me.phase, me.then, me.resume_s = me.then, IDLE, np.inf
        if me.phase == IDLE:
            forget(ue, u)
        return False
    event.rest = me.rest_bits > 0.0
    if me.prefix >= me.context:
        me.healthy = True
    elif (me.keep < 1.0 and me.prefix < me.snapshot) or me.bits < 16:
        me.healthy = False
    me.held = me.context - (1.0 - me.keep * me.density) * (me.snapshot - me.prefix)
    me.server = me.target
    me.phase = IDLE
    if event.rest:
        me.phase, me.bits_left, me.bits_sent, me.bits_late, me.job_s = FOLLOWING, me.rest_bits, 0.0, 0.0, 0.0
        me.weight, me.shipped, me.resume_s = me.rest_weight, me.context, np.inf
    else:
        forget(ue, u)
    return True
