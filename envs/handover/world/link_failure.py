"""What a radio-link failure does to a session; when links fail and where UEs re-establish is in envs.sim."""

from __future__ import annotations

import numpy as np

from ...sim.jit import kernel
from ...sim.link_monitoring import lose_link, reconnect
from ...sim.sessions import interrupt_prompt
from . import memory
from .migration import begin, cancel, ship_increment
from .state import DETOUR, INTERRUPTED, PREPARING


@kernel
def fail(ue, u, a3_since_s, p, now_s, flow):
    """The radio link of UE `u` fails: service stops until it re-establishes.

    A migration under way goes on between the servers; the tokens produced so far join it.
    """
    me = ue[u]
    flow[u].rlf += 1
    lose_link(ue, u, a3_since_s, p, now_s)
    me.reattach_s = me.resume_s = np.inf
    me.rlf = True
    if me.phase == PREPARING:
        ship_increment(ue, u, p)
    if me.target != me.server:
        interrupt_prompt(ue, u)
    if me.phase != INTERRUPTED:
        me.handover_s = now_s
    me.phase = INTERRUPTED


@kernel
def reestablish(ue, u, plan, rsrp_dbm, cell, p, now_s, interval_s, flow):
    """UE `u` re-establishes at its strongest cell.

    A migration towards that cell counts, another one is wasted. In the cell that it lost, the session goes on where it
    was; in another one it follows as `plan`, made at `interval_s`, says, as at a handover.
    """
    me = ue[u]
    elsewhere = reconnect(ue, u, rsrp_dbm, now_s)
    me.reattach_s = now_s
    if me.target != me.radio:
        cancel(ue, u, flow)
        if elsewhere and me.radio != me.server and plan.medium != DETOUR:
            if memory.has_room(ue, cell, me.radio, p):
                begin(ue, u, plan, me.radio, cell, p, now_s, interval_s)
                interrupt_prompt(ue, u)
            else:
                flow[u].refused += 1
    me.bits_late = me.bits_left
