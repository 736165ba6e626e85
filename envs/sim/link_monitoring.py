"""When a radio link fails, and where its UE re-establishes (3GPP TS 38.331, 5.3.10 and 5.3.7).

Link monitoring reads `monitor_db`, the SINR with every interferer at one fixed load. The SINR of the data would do as
well physically, but it depends on who streams, hence on the policy, and policies would face different failures on the
same seed. It is updated once per decision interval, so N310 and N311 are 1 with one indication per interval; what
follows from it (expiry, re-establishment) happens at its own instant within an interval.
"""

from __future__ import annotations

import numpy as np

from .cell_change import enter, forget_events
from .jit import kernel


@kernel
def monitor(ue, p, now_s):
    """Start T310 of every UE that is out of sync (below Q_out), stop it where it is in sync (above Q_in).

    As with event A3, the indications of different UEs are offset by `phase_s`; one that comes after T310 has run out
    does not undo the failure.
    Source: TS 38.331, 5.3.10.1 to 5.3.10.3; TS 38.133, 8.1 for Q_out and Q_in.
    """
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.reconnect_s < np.inf:
            continue
        at_s = now_s + me.phase_s
        if me.t310_s == np.inf:
            if me.monitor_db < p.q_out_db:
                me.t310_s = at_s + p.t310_s
        elif me.monitor_db > p.q_in_db and at_s <= me.t310_s:
            me.t310_s = np.inf


@kernel
def lose_link(ue, u, a3_since_s, p, now_s):
    """The radio link of UE `u` fails: no cell reaches it until it re-establishes."""
    forget_events(ue, u, a3_since_s)
    ue[u].reconnect_s = now_s + p.reestablishment_s


@kernel
def reconnect(ue, u, rsrp_dbm, now_s):
    """UE `u` re-establishes at its strongest cell (filtered RSRP of the last measurement); whether it is another one.

    Source: TS 38.331, 5.3.7; TS 38.304, 5.2.3 (cell selection), without its quality criterion: some cell is always
    chosen, and a UE out of coverage fails again one T310 later.
    """
    me = ue[u]
    chosen = np.argmax(rsrp_dbm[u])
    me.reconnect_s = np.inf
    if chosen == me.radio:
        return False
    enter(ue, u, chosen, now_s)
    return True
