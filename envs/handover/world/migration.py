"""Migrations of sessions: started (before the handover or at it), cancelled, completed.

The source keeps the session until the target has everything: nothing is lost, and what a cancelled migration moved or
computed is counted as wasted.
"""

from __future__ import annotations

import numpy as np

from ...sim import sessions
from ...sim.cell_change import enter
from ...sim.compute import next_cycle, wire_bits
from ...sim.jit import kernel
from . import chunked, memory
from .state import (
    CANCEL,
    DETOUR,
    IDLE,
    INTERRUPTED,
    KV,
    NO_JOB,
    PREPARING,
    RESUMED,
    RUNNING,
    TOKEN,
    WAITING,
)


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
            if p.pool == 1 or ue[v].server == me.server:
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
def settle(ue):
    """Say to which UEs tokens are sent: those whose session streams and whose user can be reached.

    Called after every event; nothing else writes `active`.
    """
    for u in range(ue.shape[0]):
        ue[u].active = ue[u].streaming and ue[u].phase != INTERRUPTED


@kernel
def open_session(ue, u, cell, p, keys):
    """Place the next session of UE `u` at the server of its present cell, or at the one with the most room."""
    me = ue[u]
    sessions.open_session(ue, u, p, keys)
    me.server, me.phase = -1, IDLE
    me.server = me.radio if memory.has_room(ue, cell, me.radio, p) else memory.roomiest(ue, cell, p)
    forget(ue, u)


@kernel
def begin(ue, u, plan, target, cell, p, now_s, interval_s):
    """Start a migration of session `u` to `target` as `plan`, made at `interval_s`, says; the caller sets the phase."""
    me = ue[u]
    # A session without a cache yet has nothing to send.
    me.target, me.medium = target, TOKEN if me.opening else plan.medium
    me.keep, me.bits, me.weight = plan.keep, plan.bits, plan.weight
    me.snapshot = me.shipped = me.context
    per_token = me.keep * wire_bits(p, me.bits)
    if me.medium == TOKEN:
        me.prefix = me.context
    elif me.medium == KV:
        me.prefix = 0.0
    elif plan.prefix >= 0:
        me.prefix = min(float(plan.prefix), me.context)
    else:
        me.prefix = balanced_prefix(ue, u, cell, target, me.weight, per_token, p, now_s)
    me.bits_left = (me.context - me.prefix) * per_token
    me.bits_sent = me.bits_late = me.job_s = 0.0
    me.job = WAITING if me.prefix > 0.0 else NO_JOB
    me.job_since_s, me.start_s = now_s, interval_s + plan.prefill_delay_s
    me.resume_s = np.inf


@kernel
def forget(ue, u):
    """Clear the migration record of session `u`."""
    me = ue[u]
    me.target = me.server
    me.medium = DETOUR
    me.keep, me.bits = 1.0, 16
    me.prefix = me.bits_left = me.bits_sent = me.bits_late = me.job_s = 0.0
    me.snapshot = me.shipped = me.context
    me.job = NO_JOB
    me.resume_s = np.inf


@kernel
def cancel(ue, u, flow):
    """Drop the migration of session `u`; what it sent and computed is wasted."""
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
def apply_plans(ue, plan, cell, p, now_s, flow):
    """What the plans [U] change at the start of a decision interval: weights, preparations begun or cancelled."""
    for u in range(ue.shape[0]):
        me, target = ue[u], plan[u].target
        phase = me.phase
        if phase != IDLE:
            me.weight = plan[u].weight
            me.start_s = now_s + plan[u].prefill_delay_s
            if phase == PREPARING and target == CANCEL:
                cancel(ue, u, flow)
                me.phase = IDLE
        wanted = target >= 0 and plan[u].medium != DETOUR and target != me.server and me.phase != INTERRUPTED
        if wanted and not (me.phase == PREPARING and me.target == target):
            if me.phase == PREPARING:
                cancel(ue, u, flow)
                me.phase = IDLE
            if memory.has_room(ue, cell, target, p):
                begin(ue, u, plan[u], target, cell, p, now_s, now_s)
                me.phase = PREPARING
            else:
                flow[u].refused += 1


@kernel
def change_cell(ue, u, plan, new_cell, cell, p, now_s, interval_s, flow):
    """Radio handover of UE `u`: streaming stops, and the session follows, stays, or is already there.

    A session that finds no memory at the server of the new cell stays where it is, and its tokens take the detour.
    """
    me = ue[u]
    flow[u].handovers += 1
    if new_cell == me.previous and now_s - me.since_s <= p.pingpong_window_s:
        flow[u].pingpongs += 1
    enter(ue, u, new_cell, now_s)
    me.reattach_s = now_s + p.radio_interruption_s
    if me.phase != INTERRUPTED:
        me.handover_s = now_s
    if me.phase == PREPARING and me.target == new_cell:
        ship_increment(ue, u, p)
    else:
        if me.phase != IDLE:
            cancel(ue, u, flow)
        forget(ue, u)
        if new_cell != me.server and plan.medium != DETOUR:
            me.phase = IDLE
            if memory.has_room(ue, cell, new_cell, p):
                begin(ue, u, plan, new_cell, cell, p, now_s, interval_s)
            else:
                flow[u].refused += 1
    if me.target != me.server:
        sessions.interrupt_prompt(ue, u)
    me.bits_late = me.bits_left
    me.phase = INTERRUPTED


@kernel
def complete(ue, p, now_s):
    """Set the instants of resumption once prefill and transfer are done; commit sessions that were detoured.

    Interruption = max(radio interruption, prefill end, transfer end) + restore + first decode step (ours). What arrived
    before the handover is restored already.
    """
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.phase == IDLE or me.bits_left > 0.0 or me.job == WAITING or me.job == RUNNING:
            continue
        if me.phase == PREPARING and me.target == me.radio:
            # The UE is there already (its tokens took the detour): fetch the last tokens, then switch.
            ship_increment(ue, u, p)
            me.bits_late = me.bits_left
            me.phase = INTERRUPTED
            me.handover_s, me.reattach_s = now_s, -np.inf
            sessions.interrupt_prompt(ue, u)
            if me.bits_left > 0.0:
                continue
        if me.phase == INTERRUPTED and me.resume_s == np.inf:
            me.resume_s = max(now_s, me.reattach_s) + me.bits_late / 8.0 / p.restore_bps + 1.0 / p.decode_rate


@kernel
def resume(ue, u, p, now_s, event):
    """Session `u` decodes again, at the target; fill `event` for the scorer."""
    me = ue[u]
    event.kind, event.ue, event.time_s, event.context = RESUMED, u, now_s, me.context
    event.medium, event.keep, event.bits = me.medium, me.keep, me.bits
    event.prefix, event.snapshot = me.prefix, me.snapshot
    event.source, event.target = me.server, me.target
    event.interruption_s = now_s - me.handover_s
    event.ttft_s = event.interruption_s + me.air_s + (p.hop_s if me.target != me.radio else 0.0)
    event.handed_over = me.reattach_s >= me.handover_s
    event.rlf, me.rlf = me.rlf, False
    if me.prefix >= me.context:
        me.healthy = True
    elif me.medium != DETOUR and ((me.keep < 1.0 and me.prefix < me.snapshot) or me.bits < 16):
        me.healthy = False
    me.server = me.target
    me.phase = IDLE
    forget(ue, u)
