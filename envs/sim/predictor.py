"""Next cell and time to handover of every UE, from its velocity and the network's own coverage map.

Constant velocity and heading, as in Pallas (arXiv 2608.16477). The filtered RSRP starts at its present value and
follows the map's path gain along the straight line, without measurement noise; event A3 is applied to it. What the
UE will really do (turn at the next corner) is not known here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .jit import allocating, inlined, kernel
from .mobility import MapTables

HORIZON_S, STEP_S = 5.0, 0.25
STEPS = int(HORIZON_S / STEP_S)
REFRESH_S = 0.5  # a prediction stands for a tenth of the horizon; at 0.1 s intervals this is a fifth of the cost
_ROUNDING_DB = 1e-6


class Scratch(NamedTuple):
    """Working memory of one thread."""

    rsrp: np.ndarray  # float64 [C], of the cells that are followed
    since_s: np.ndarray
    strongest: np.ndarray  # of the map on the way
    near: np.ndarray  # int64 [C], which cells are followed
    row: np.ndarray  # int64 [steps + 1], the way
    col: np.ndarray
    silence: np.ndarray  # float64 [steps + 1, C + 1], zeros


@allocating
def allocate_scratch(cells, steps):
    """A Scratch for so many cells and steps of STEP_S; nothing in it outlives a prediction."""
    return Scratch(np.empty(cells), np.empty(cells), np.empty(cells), np.empty(cells, np.int64),
                   np.empty(steps + 1, np.int64), np.empty(steps + 1, np.int64), np.zeros((steps + 1, cells + 1)))


@kernel
def predict_ue(ue, u, p, gain_db, rsrp_dbm, a3_since_s, weight, now_s, scratch):
    """The next handover of UE `u` as (cell, absolute time [s]); (-1, inf) when none falls within the horizon.

    A handover whose time-to-trigger runs already is not predicted but known. Otherwise the map is read at the nearest
    grid point every STEP_S, and the instant of entering is interpolated in between.

    Args:
        gain_db: path gain, float32 [H, W, C] [dB].
        rsrp_dbm, a3_since_s: of the simulator, float [U, C].
        weight: of a new value in the layer-3 filter over STEP_S.
        now_s: present time [s].
        scratch: working memory.
    """
    me = ue[u]
    if me.reconnect_s < np.inf:
        return -1, np.inf
    if me.fire_cell >= 0:
        return me.fire_cell, me.fire_s
    straight_on(me, p, gain_db, STEPS, scratch)
    return first_handover(ue, u, p, gain_db, rsrp_dbm, a3_since_s, weight, now_s, STEPS, scratch)


@kernel
def straight_on(me, p, gain_db, steps, scratch):
    """Write the grid points of a way at constant velocity, one for every STEP_S, into the scratch memory."""
    row, col = scratch.row, scratch.col
    x, y, vx, vy, origin_x, origin_y, pitch_m = me.x, me.y, me.vx, me.vy, p.origin_x, p.origin_y, p.pitch_m
    last_row, last_col = gain_db.shape[0] - 1, gain_db.shape[1] - 1
    for k in range(steps + 1):
        row[k] = min(max(int((y + vy * k * STEP_S - origin_y) / pitch_m + 0.5), 0), last_row)
        col[k] = min(max(int((x + vx * k * STEP_S - origin_x) / pitch_m + 0.5), 0), last_col)


@kernel
def first_handover(ue, u, p, gain_db, rsrp_dbm, a3_since_s, weight, now_s, steps, scratch):
    """The first handover of UE `u` on the way in the scratch memory, as predict_ue returns it."""
    count = cells_in_question(ue, u, p, gain_db, rsrp_dbm, a3_since_s, steps, 0.0, scratch)
    if count == 0:
        return -1, np.inf
    return follow(count, ue, u, p, gain_db, rsrp_dbm, a3_since_s, weight, now_s, steps, scratch.silence, scratch)


@kernel
def cells_in_question(ue, u, p, gain_db, rsrp_dbm, a3_since_s, steps, slack_db, scratch):
    """Write the cells that may trigger event A3 on the way into scratch.near; how many they are.

    Args:
        slack_db: by how much measurements may differ from the map [dB].
    """
    strongest, near, row, col = scratch.strongest, scratch.near, scratch.row, scratch.col
    cells, radio = strongest.shape[0], ue[u].radio
    base = p.tx_power_dbm - p.subcarriers_db
    threshold = p.a3_offset_db + p.hysteresis_db - slack_db
    weakest = rsrp_dbm[u, radio]
    for c in range(cells):
        strongest[c] = -np.inf
    # First the whole way, then the map: one loop each, of which the first runs several steps at a time.
    for k in range(1, steps + 1):
        r, s = row[k], col[k]
        if k > 1 and r == row[k - 1] and s == col[k - 1]:
            continue
        weakest = min(weakest, base + gain_db[r, s, radio])
        for c in range(cells):
            strongest[c] = max(strongest[c], gain_db[r, s, c])
    # A filter never leaves the range of what goes into it: most cells are never near enough, and are left out.
    count = 0
    for c in range(cells):
        if c == radio:
            continue
        power, since = rsrp_dbm[u, c], a3_since_s[u, c]
        if since < np.inf or max(power, base + strongest[c]) - weakest > threshold - _ROUNDING_DB:
            near[count] = c
            count += 1
    return count


@kernel
def follow(count, ue, u, p, gain_db, rsrp_dbm, a3_since_s, weight, now_s, steps, noise_db, scratch):
    """Event A3 on the way in the scratch memory, between the serving cell and the first `count` of scratch.near.

    Args:
        noise_db: what is added to the map, float [steps + 1, C + 1]; the last column to the serving cell [dB].
    """
    rsrp, since_s, near, row, col = scratch.rsrp, scratch.since_s, scratch.near, scratch.row, scratch.col
    radio, last = ue[u].radio, noise_db.shape[1] - 1
    base = p.tx_power_dbm - p.subcarriers_db
    threshold = p.a3_offset_db + p.hysteresis_db
    serving = rsrp_dbm[u, radio]
    for i in range(count):
        rsrp[i], since_s[i] = rsrp_dbm[u, near[i]], a3_since_s[u, near[i]]
    found, found_s = -1, np.inf
    for k in range(1, steps + 1):
        at_s = now_s + k * STEP_S
        r, s = row[k], col[k]
        before = serving
        serving = before + weight * (base + gain_db[r, s, radio] + noise_db[k, last] - before)
        for i in range(count):
            c = near[i]
            power = rsrp[i]
            was = power - before
            rsrp[i] = power = power + weight * (base + gain_db[r, s, c] + noise_db[k, i] - power)
            margin = power - serving
            if since_s[i] == np.inf:
                if not margin > threshold:
                    continue
                share = (threshold - was) / (margin - was) if was < threshold else 0.0
                since_s[i] = at_s - STEP_S * (1.0 - share)
            elif not margin > threshold and at_s <= since_s[i] + p.time_to_trigger_s:
                since_s[i] = np.inf
                continue
            fire_s = since_s[i] + p.time_to_trigger_s
            if fire_s < found_s and fire_s <= at_s:
                found, found_s = c, fire_s
        if found >= 0:
            return found, max(found_s, now_s)
    return -1, np.inf


@inlined
def predict_env(e, state, params, tables: MapTables, weight, every, cell, time_s, serving, scratch):
    """Bring the predictions of all UEs of environment `e` up to date, in place.

    UE u at step k is predicted anew when (k + u) is a multiple of `every`, when it has changed cell, when a handover
    has become known, when the predicted one is overdue, and at the start of an episode; otherwise its prediction
    stands. So what a view that was made at the reset shows depends on the course of the episode alone.

    Args:
        state, params, tables: of the simulator.
        weight: see predict_ue.
        every: decision intervals between two predictions.
        cell: predicted cell, int32 [E, U]; -1: none.
        time_s: absolute time of that handover, float [E, U] [s]; inf: none.
        serving: serving cell at the last prediction, int32 [E, U]; -1: never predicted.
        scratch: working memory.
    """
    ue, step, now_s = state.ue[e], state.world[e].step, state.world[e].time_s
    rsrp_dbm, a3_since_s = state.rsrp_dbm[e], state.a3_since_s[e]
    for u in range(ue.shape[0]):
        me = ue[u]
        due = step == 0 or (step + u) % every == 0 or serving[e, u] != me.radio
        if due or me.fire_cell >= 0 or me.reconnect_s < np.inf or time_s[e, u] <= now_s:
            cell[e, u], time_s[e, u] = predict_ue(ue, u, params[0], tables.gain_db, rsrp_dbm, a3_since_s, weight,
                                                  now_s, scratch)
            serving[e, u] = me.radio


def refresh_intervals(interval_s: float) -> int:
    """Decision intervals between two predictions of a UE: REFRESH_S, at least one."""
    return max(1, round(REFRESH_S / interval_s))


def filter_weight_of_step(filter_a: float, interval_s: float) -> float:
    """Weight of a new value over STEP_S in a filter that gives `filter_a` to one after `interval_s`."""
    return 1.0 - (1.0 - filter_a) ** (STEP_S / interval_s)
