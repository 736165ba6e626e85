"""When sessions move: plans at the start of an interval, and changes of cell.

A user can be served by the server of its own gNB, and by others that can forward tokens to it: as many Xn hops away as
`backhaul.forwarding` allows, none by default (local breakout). A session out of reach must move, or waits for a server
that has room.
"""

from __future__ import annotations

import numpy as np

from ...sim import sessions
from ...sim.cell_change import enter
from ...sim.jit import kernel
from . import memory
from .migration import begin, begin_repair, cancel, cut_short, forget, ship_increment, unfinished
from .state import (
    CANCEL,
    DETOUR,
    FOLLOWING,
    FORWARD,
    IDLE,
    INTERRUPTED,
    PREPARING,
    REPAIRING,
    RESUME,
)


@kernel
def settle(ue):
    """Say to which UEs tokens are sent: those whose session streams and whose user can be reached.

    Called after every event; nothing else writes `active`.
    """
    for u in range(ue.shape[0]):
        ue[u].active = ue[u].streaming and ue[u].phase != INTERRUPTED


@kernel
def reaches(hops, server, radio, p):
    """Whether the tokens of a session on `server` can get to a user at gNB `radio`."""
    return server == radio or hops[server, radio] <= p.forwarding


@kernel
def open_session(ue, u, cell, hops, p, keys, now_s):
    """Place the next session of UE `u` at the server of its present cell, or at the one with the most room."""
    me = ue[u]
    sessions.open_session(ue, u, p, keys)
    me.server, me.phase = -1, IDLE
    me.server = me.radio if memory.has_room(ue, cell, me.radio, p) else memory.roomiest(ue, cell, me.radio, hops, p)
    forget(ue, u)
    if not reaches(hops, me.server, me.radio, p):
        me.phase, me.stranded = INTERRUPTED, True
        me.handover_s = me.reattach_s = now_s
        me.felt_s = 0.0


@kernel
def apply_plans(ue, plan, cell, hops, p, now_s, flow):
    """What the plans [U] change at the start of a decision interval.

    Bandwidth weights; preparations begun or cancelled; repairs begun; a session that is stranded moves when it can.
    """
    for u in range(ue.shape[0]):
        me, target = ue[u], plan[u].target
        me.rest_weight = plan[u].backfill
        if me.phase != IDLE:
            goes_on = memory.background(me)
            me.weight = plan[u].backfill if goes_on == FOLLOWING else plan[u].weight
            me.start_s = now_s + plan[u].prefill_delay_s
            if target == CANCEL and me.phase != INTERRUPTED:
                cancel(ue, u, flow)
                me.phase = IDLE
        if me.stranded:
            if me.reconnect_s == np.inf and memory.has_room(ue, cell, me.radio, p):
                me.stranded = False
                begin(ue, u, plan[u], me.radio, cell, p, now_s, now_s)
                leave(ue, u)
            continue
        wanted = target >= 0 and plan[u].medium != DETOUR and target != me.server and me.phase != INTERRUPTED
        if wanted and not (me.phase == PREPARING and me.target == target):
            if me.phase != IDLE:
                cancel(ue, u, flow)
                me.phase = IDLE
            if memory.has_room(ue, cell, target, p):
                begin(ue, u, plan[u], target, cell, p, now_s, now_s)
                me.phase = PREPARING
            else:
                flow[u].refused += 1
        elif plan[u].repair == 1 and me.phase == IDLE and not me.healthy and not me.opening:
            if memory.has_room(ue, cell, me.server, p):
                begin_repair(ue, u, plan[u], now_s)
            else:
                flow[u].refused += 1


@kernel
def change_cell(ue, u, plan, new_cell, cell, hops, p, now_s, interval_s, flow):
    """Radio handover of UE `u`: streaming stops, and the session follows, stays, or is already there."""
    me = ue[u]
    flow[u].handovers += 1
    if new_cell == me.previous and now_s - me.since_s <= p.pingpong_window_s:
        flow[u].pingpongs += 1
    enter(ue, u, new_cell, now_s)
    goes_on = memory.background(me)
    if me.phase != INTERRUPTED:
        me.handover_s, me.felt_s = now_s, 0.0
    me.reattach_s = now_s + p.radio_interruption_s
    if goes_on == PREPARING and me.target == new_cell:
        arrive(ue, u, plan, hops, p)
    else:
        follow(ue, u, plan, cell, hops, p, now_s, interval_s, flow)
    leave(ue, u)


@kernel
def arrive(ue, u, plan, hops, p):
    """UE `u` has changed to the cell that its session was prepared for: wait, resume on a part, or be forwarded."""
    me = ue[u]
    ship_increment(ue, u, p)
    me.then = IDLE
    if not unfinished(me):
        return
    if plan.arrival == FORWARD and reaches(hops, me.server, me.target, p):
        me.then = PREPARING
    elif plan.arrival == RESUME:
        cut_short(ue, u, p)


@kernel
def follow(ue, u, plan, cell, hops, p, now_s, interval_s, flow):
    """What becomes of session `u`, for which nothing is prepared in the cell where its user is now."""
    me = ue[u]
    goes_on = memory.background(me)
    stays = me.radio == me.server or (plan.medium == DETOUR and reaches(hops, me.server, me.radio, p))
    if stays and (goes_on in (FOLLOWING, REPAIRING)):
        me.then = goes_on
        return
    if me.phase != IDLE:
        cancel(ue, u, flow)
    forget(ue, u)
    if stays:
        return
    # Without a phase it holds no memory but its own while room is looked for.
    me.phase = IDLE
    if memory.has_room(ue, cell, me.radio, p):
        begin(ue, u, plan, me.radio, cell, p, now_s, interval_s)
        if plan.arrival == FORWARD and reaches(hops, me.server, me.radio, p):
            me.then = PREPARING
        return
    flow[u].refused += 1
    me.stranded = not reaches(hops, me.server, me.radio, p)


@kernel
def leave(ue, u):
    """Service of session `u` stops; what it resumes on, and where, is set."""
    me = ue[u]
    if me.then == IDLE and me.target != me.server:
        sessions.interrupt_prompt(ue, u)
    me.bits_late = me.bits_left
    me.resume_s = np.inf
    me.phase = INTERRUPTED
