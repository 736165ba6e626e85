"""When a UE changes cell: event A3 with offset, hysteresis and time-to-trigger (3GPP TS 38.331, 5.5.4.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel
from .params import RadioConfig

_ROUNDING_S = 1e-9


@kernel
def a3_events(ue, p, rsrp_dbm, a3_since_s, now_s):
    """Update the A3 timers of every UE at a measurement and set the handover that follows if nothing changes.

    Entering: Mn - Hys > Mp + Off. Leaving: Mn + Hys < Mp + Off. A cell whose entering condition has held at every
    measurement during the time-to-trigger is the target; `fire_s` is that instant (inf: none), `fire_cell` the cell.
    One measurement that violates it stops the timer. Measurements of different UEs are offset by `phase_s`, so that
    handovers do not all fall on the same instants; one whose instant comes after the time-to-trigger has run out does
    not undo the handover. With trigger policy the event is a report only; once it has triggered, it ends at the first
    measurement at which its leaving condition holds (ours: leaving has no time-to-trigger). A UE whose link has failed
    reports nothing.
    """
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.reconnect_s < np.inf:
            continue
        radio, at_s = me.radio, now_s + me.phase_s
        serving = rsrp_dbm[u, radio]
        fire_s, fire_cell, best = np.inf, -1, -np.inf
        for c in range(rsrp_dbm.shape[1]):
            since_s = a3_since_s[u, c]
            if c == radio:
                a3_since_s[u, c] = np.inf
                continue
            margin = rsrp_dbm[u, c] - serving - p.a3_offset_db
            if since_s == np.inf:
                if not margin > p.hysteresis_db:
                    continue
                a3_since_s[u, c] = since_s = at_s
            elif at_s <= since_s + p.time_to_trigger_s + _ROUNDING_S:
                if not margin > p.hysteresis_db:
                    a3_since_s[u, c] = np.inf
                    continue
            elif p.policy_trigger == 1 and margin < -p.hysteresis_db:
                a3_since_s[u, c] = np.inf
                continue
            due_s = since_s + p.time_to_trigger_s
            if due_s < fire_s or (due_s == fire_s and rsrp_dbm[u, c] > best):
                fire_s, fire_cell, best = due_s, c, rsrp_dbm[u, c]
        # A timer that ran out between two measurements takes effect at once, never in the past.
        me.fire_s, me.fire_cell = max(fire_s, now_s), fire_cell


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
