"""When a UE changes cell: event A3 with offset, hysteresis and time-to-trigger (3GPP TS 38.331, 5.5.4.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel
from .params import RadioConfig

_ROUNDING_S = 1e-9


@kernel
def a3_event(ue, u, p, rsrp_dbm, a3_since_s, now_s):
    """Update the A3 timers of UE `u` at a measurement and set the handover that follows if nothing changes.

    Entering: Mn - Hys > Mp + Off. Leaving: Mn + Hys < Mp + Off. A cell whose entering condition has held for the
    time-to-trigger is the target; `fire_s` is that instant (inf: none), `fire_cell` the cell. Measurements of different
    UEs are offset by `phase_s`, so that handovers do not all fall on the same instants; one whose instant comes after
    the time-to-trigger has run out does not undo the handover. With trigger policy the event is a report only, and ends
    when its leaving condition holds.
    """
    me = ue[u]
    serving = rsrp_dbm[u, me.radio]
    me.fire_s, me.fire_cell = np.inf, -1
    best = -np.inf
    for c in range(rsrp_dbm.shape[1]):
        if c == me.radio:
            a3_since_s[u, c] = np.inf
            continue
        margin = rsrp_dbm[u, c] - serving - p.a3_offset_db
        if a3_since_s[u, c] == np.inf:
            if margin > p.hysteresis_db:
                a3_since_s[u, c] = now_s + me.phase_s
        elif margin < -p.hysteresis_db and (p.policy_trigger == 1 or (
                now_s + me.phase_s <= a3_since_s[u, c] + p.time_to_trigger_s + _ROUNDING_S)):
            a3_since_s[u, c] = np.inf
        fire = a3_since_s[u, c] + p.time_to_trigger_s
        if fire < me.fire_s or (fire == me.fire_s and fire < np.inf and rsrp_dbm[u, c] > best):
            me.fire_s, me.fire_cell, best = fire, c, rsrp_dbm[u, c]
    # A timer that ran out between two measurements takes effect at once, never in the past.
    me.fire_s = max(me.fire_s, now_s)


@kernel
def forget_events(ue, u, a3_since_s):
    """Forget what was measured about UE `u` and its present cell: A3 timers, the handover due, and T310."""
    a3_since_s[u, :] = np.inf
    ue[u].fire_s, ue[u].fire_cell, ue[u].t310_s = np.inf, -1, np.inf


@kernel
def enter(ue, u, new_cell, now_s):
    """UE `u` is in another cell from now on."""
    me = ue[u]
    me.previous, me.radio, me.since_s = me.radio, new_cell, now_s


def cell_change_params(config: RadioConfig, policy_trigger: bool) -> dict[str, Any]:
    """CELL_CHANGE_PARAMS of a configuration; with `policy_trigger` event A3 is a report only."""
    return dict(
        a3_offset_db=config.a3_offset_db, hysteresis_db=config.hysteresis_db,
        time_to_trigger_s=config.time_to_trigger_s, radio_interruption_s=config.interruption_s,
        pingpong_window_s=config.pingpong_window_s, q_out_db=config.q_out_db, q_in_db=config.q_in_db,
        t310_s=config.t310_s, reestablishment_s=config.reestablishment_s, monitoring_load=config.monitoring_load,
        policy_trigger=int(policy_trigger),
    )
