"""What a radio-link failure does to a session; when links fail and where UEs re-establish is in envs.sim."""

from __future__ import annotations

import numpy as np

from ...sim.jit import kernel
from ...sim.link_monitoring import lose_link, reconnect
from . import handovers, memory
from .migration import cancel, ship_increment
from .state import FOLLOWING, IDLE, INTERRUPTED, PREPARING, REPAIRING


@kernel
def fail(ue, u, a3_since_s, p, now_s, flow):
    """The radio link of UE `u` fails: service stops until it re-establishes.

    A migration under way goes on between the servers; the tokens produced so far join it.
    """
    me = ue[u]
    flow[u].rlf += 1
    lose_link(ue, u, a3_since_s, p, now_s)
    me.reattach_s = np.inf
    me.rlf = True
    if me.phase == PREPARING:
        ship_increment(ue, u, p)
    goes_on = memory.background(me)
    if me.phase != INTERRUPTED:
        me.handover_s, me.felt_s = now_s, 0.0
    me.then = goes_on if goes_on in (FOLLOWING, REPAIRING) else IDLE
    handovers.leave(ue, u)


@kernel
def reestablish(ue, u, plan, rsrp_dbm, cell, hops, p, now_s, interval_s, flow):
    """UE `u` re-establishes at its strongest cell.

    A migration towards that cell counts, another one is wasted. In the cell that it lost, the session goes on where it
    was; in another one, or out of reach, it follows as `plan`, made at `interval_s`, says, as at a handover.
    """
    me = ue[u]
    elsewhere = reconnect(ue, u, rsrp_dbm, now_s)
    me.reattach_s = now_s
    if me.stranded or me.target != me.radio:
        if elsewhere or not handovers.reaches(hops, me.server, me.radio, p):
            handovers.follow(ue, u, plan, cell, hops, p, now_s, interval_s, flow)
        elif me.then == IDLE:
            cancel(ue, u, flow)
    elif me.then == IDLE and me.target != me.server:
        handovers.arrive(ue, u, plan, hops, p)
    handovers.leave(ue, u)
