"""Radio-link failure and re-establishment (3GPP TS 38.331, 5.3.10 and 5.3.7).

Link monitoring reads `monitor_db`, the SINR with every interferer at one fixed load. The SINR of the data would do as
well physically, but it depends on who streams, hence on the policy, and policies would face different failures on the
same seed. It is updated once per decision interval, so N310 and N311 are 1 with one indication per interval; what
follows from it (expiry, re-establishment) happens at its own instant within an interval.
"""

from __future__ import annotations

import numpy as np

from ...sim import memory
from ...sim.cell_change import reset_timers
from ...sim.jit import borrowing
from ...sim.sessions import interrupt_prompt
from ...sim.state import DETOUR, INTERRUPTED, PREPARING
from .migration import begin, cancel, ship_increment


@borrowing
def monitor(ue, u, p, now_s):
    """Start T310 of UE `u` when it is out of sync (below Q_out), stop it when it is in sync (above Q_in).

    As with event A3, the indications of different UEs are offset by `phase_s`; one that comes after T310 has run out
    does not undo the failure.
    Source: TS 38.331, 5.3.10.1 to 5.3.10.3; TS 38.133, 8.1 for Q_out and Q_in.
    """
    me = ue[u]
    if me.reconnect_s < np.inf:
        return
    at_s = now_s + me.phase_s
    if me.t310_s == np.inf:
        if me.monitor_db < p.q_out_db:
            me.t310_s = at_s + p.t310_s
    elif me.monitor_db > p.q_in_db and at_s <= me.t310_s:
        me.t310_s = np.inf


@borrowing
def fail(ue, u, a3_since_s, p, now_s, flow):
    """The radio link of UE `u` fails: service stops, and no cell reaches it until it re-establishes.

    A migration under way goes on between the servers; the tokens produced so far join it.
    """
    me = ue[u]
    flow[u].rlf += 1
    reset_timers(u, a3_since_s)
    me.fire_s, me.fire_cell, me.t310_s = np.inf, -1, np.inf
    me.reconnect_s = now_s + p.reestablishment_s
    me.reattach_s = me.resume_s = np.inf
    me.rlf = True
    if me.phase == PREPARING:
        ship_increment(ue, u, p)
    if me.target != me.server:
        interrupt_prompt(ue, u)
    if me.phase != INTERRUPTED:
        me.handover_s = now_s
    me.phase = INTERRUPTED


@borrowing
def reestablish(ue, u, plan, rsrp_dbm, cell, p, now_s, interval_s, flow):
    """UE `u` re-establishes at its strongest cell (filtered RSRP of the last measurement).

    A migration towards that cell counts, another one is wasted. In the cell that it lost, the session goes on where it
    was; in another one it follows as `plan`, made at `interval_s`, says, as at a handover.
    Source: TS 38.331, 5.3.7; TS 38.304, 5.2.3 (cell selection), without its quality criterion: some cell is always
    chosen, and a UE out of coverage fails again one T310 later.
    """
    me = ue[u]
    chosen = np.argmax(rsrp_dbm[u])
    elsewhere = chosen != me.radio
    if elsewhere:
        me.previous, me.radio, me.since_s = me.radio, chosen, now_s
    me.reconnect_s, me.reattach_s = np.inf, now_s
    if me.target != chosen:
        cancel(ue, u, flow)
        if elsewhere and chosen != me.server and plan.medium != DETOUR:
            if memory.has_room(ue, cell, chosen, p):
                begin(ue, u, plan, chosen, cell, p, now_s, interval_s)
                interrupt_prompt(ue, u)
            else:
                flow[u].refused += 1
    me.bits_late = me.bits_left
