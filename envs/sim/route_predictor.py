"""Next cell and time to handover of every UE from the street map: a belief about where each UE is going.

A navigation service knows the streets, the places that people go to, and the shortest way to each; it does not know
who goes where. Every street cell that a UE enters speaks for the destinations whose way leads through it and against
the others (destination prediction as in Krumm and Horvitz, UbiComp 2006). One more hypothesis is that the UE follows no
known way; then it is taken to go straight on (predictor.py). The ways that are still likely are followed over the
coverage map, and event A3 is applied to each.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import predictor
from .jit import allocating, entry, kernel
from .mobility import ARRIVED, STEPS
from .predictor import STEP_S, cells_in_question, follow, straight_on

HORIZON_S = 10.0
_STEPS = int(HORIZON_S / STEP_S)
_OFF, _ASTRAY = 0.02, 0.3  # likelihood of a street cell off the way, and for those who follow no way; on it: 1
_ANEW = 0.005  # share of the belief that is put anew at every cell: people change their minds
_ASTRAY_FIRST = 0.2  # of those who follow no known way, at the start
_UNLIKELY = 0.02  # ways with less are not followed
_MINOR = 0.2  # ways with less are followed once, without errors of measurement
_WAYS = 12  # ways that are told apart
_DRAWS = 6  # courses of the measurement errors on every way
_SLACK_DB = 2.0  # cells that only errors beyond this would bring into question are left out
_SLOWS = 0.95  # what is left of a UE's speed in the next interval if it is not seen to move


class Belief(NamedTuple):
    """What has been learned of UEs from watching them, for E environments, U UEs and D destinations."""

    weight: np.ndarray  # float32 [E, U, D + 1], sums to 1; the last: it follows no known way
    row: np.ndarray  # int32 [E, U], street cell that it was last seen in
    col: np.ndarray
    x: np.ndarray  # float64 [E, U], where it was last seen [m]
    y: np.ndarray
    speed: np.ndarray  # float64 [E, U] [m/s]


class Forecast(NamedTuple):
    """The most probable next cell of every UE, [E, U]."""

    cell: np.ndarray  # int32; -1: none within the horizon
    at_s: np.ndarray  # expected time of that handover [s]; inf: none
    chance: np.ndarray  # that the next handover within the horizon is to this cell [1]


class RoutePredictor:
    """Watches the UEs of a simulator and forecasts their handovers.

    It reads positions, measurement reports, A3 timers and maps; not where a UE is really going.

    Args:
        sim: the simulator (world.simulator.Simulator, or anything with state, params, tables.city and interval_s).
    """

    def __init__(self, sim: Any) -> None:
        self._weight = predictor.filter_weight_of_step(float(sim.params["filter_a"][0]), sim.interval_s)
        self._every = predictor.refresh_intervals(sim.interval_s)
        shape, count = sim.state.ue.shape, len(sim.tables.city.destinations)
        self._belief = Belief(np.zeros((*shape, count + 1), np.float32), *np.full((2, *shape), -1, np.int32),
                              *np.zeros((3, *shape)))
        self._forecast = Forecast(np.full(shape, -1, np.int32), np.full(shape, np.inf), np.zeros(shape))
        self._at_cell, self._time_s = np.full(shape, -1, np.int32), np.full(shape[0], np.inf)
        self._keys = sim.state.keys.copy()
        self._scratch = predictor.allocate_scratch.py_func(sim.state.cell.shape[1], _STEPS)
        self._ways = _allocate_ways.py_func(count, sim.state.cell.shape[1])
        # The next step towards each destination, side by side.
        self._turns = np.ascontiguousarray(np.moveaxis(sim.tables.city.next_direction, 0, -1))
        self._errors_db = _errors_db(sim, self._weight)

    def watch(self, sim: Any) -> Forecast:
        """The forecast of this instant; called in every decision interval. The arrays change with the next call."""
        now = sim.state.world["time_s"]
        anew = (now < self._time_s) | (self._keys != sim.state.keys).any(axis=1)
        moved = anew | (now > self._time_s)
        self._time_s[:], self._keys[:] = now, sim.state.keys
        _watch(moved, anew, sim.state, sim.params, sim.tables.city, self._turns, self._weight, self._every,
               self._belief, self._forecast, self._at_cell, self._errors_db, self._scratch, self._ways)
        return self._forecast


class Ways(NamedTuple):
    """Working memory: the ways that are told apart."""

    mark: np.ndarray  # int64 [D], a number that two destinations share only if the way to them is the same
    row: np.ndarray  # int64 [D], street cell on the way to each destination
    col: np.ndarray
    weight: np.ndarray  # float64 [_WAYS]
    example: np.ndarray  # int64 [_WAYS], a destination that each leads to
    votes: np.ndarray  # float64 [C], belief in each cell as the next one
    late: np.ndarray  # float64 [C], the same, times when


@allocating
def _allocate_ways(destinations, cells):
    return Ways(np.zeros(destinations, np.int64), np.zeros(destinations, np.int64), np.zeros(destinations, np.int64),
                np.zeros(_WAYS), np.zeros(_WAYS, np.int64), np.zeros(cells), np.zeros(cells))


def _errors_db(sim: Any, weight: float) -> np.ndarray:
    """Some courses of what is added to the map in every STEP_S, so that filtered values scatter as they really do.

    Always the same ones: what is foreseen changes because UEs move, and not because other errors are drawn.
    """
    p = sim.params[0]
    filtered = np.sqrt(p["filter_a"] / (2.0 - p["filter_a"])) * p["measurement_noise_db"]
    shape = (_DRAWS, _STEPS + 1, sim.state.cell.shape[1] + 1)
    half = np.random.default_rng(0).standard_normal((shape[0] // 2, *shape[1:]))
    return np.concatenate([half, -half]) * filtered / np.sqrt(weight / (2.0 - weight))


@entry
def _watch(moved, anew, state, params, city, turns, weight, every, belief, forecast, at_cell, errors_db, scratch, ways):
    p = params[0]
    for e in range(state.ue.shape[0]):
        if not moved[e]:
            continue
        ue, now_s, step = state.ue[e], state.world[e].time_s, state.world[e].step
        for u in range(ue.shape[0]):
            me = ue[u]
            _notice(me, p, city, turns, anew[e], belief.weight[e, u], belief, e, u)
            due = anew[e] or (step + u) % every == 0 or at_cell[e, u] != me.radio
            if due or me.fire_cell >= 0 or me.reconnect_s < np.inf or forecast.at_s[e, u] <= now_s:
                _foresee(ue, u, e, p, city, turns, state.rsrp_dbm[e], state.a3_since_s[e], weight, now_s, belief,
                         forecast, errors_db, scratch, ways)
                at_cell[e, u] = me.radio


@kernel
def _notice(me, p, city, turns, anew, weight, belief, e, u):
    """Learn from where a UE is now."""
    last_row, last_col, count = turns.shape[0] - 1, turns.shape[1] - 1, len(weight) - 1
    row = min(max(int((me.y - p.origin_y) / p.pitch_m + 0.5), 0), last_row)
    col = min(max(int((me.x - p.origin_x) / p.pitch_m + 0.5), 0), last_col)
    if anew:
        for d in range(count):
            weight[d] = (1.0 - _ASTRAY_FIRST) / max(count, 1)
        weight[count] = _ASTRAY_FIRST if count > 0 else 1.0
        belief.speed[e, u] = math.sqrt(me.vx * me.vx + me.vy * me.vy)
    else:
        dx, dy = me.x - belief.x[e, u], me.y - belief.y[e, u]
        belief.speed[e, u] = max(math.sqrt(dx * dx + dy * dy) / p.dt, _SLOWS * belief.speed[e, u])
        was_row, was_col = belief.row[e, u], belief.col[e, u]
        if row != was_row or col != was_col:
            _weigh(weight, city, turns, was_row, was_col, row, col)
    belief.row[e, u], belief.col[e, u], belief.x[e, u], belief.y[e, u] = row, col, me.x, me.y


@kernel
def _weigh(weight, city, turns, was_row, was_col, row, col):
    """Bayes' rule for a step from one street cell to another."""
    count, total = len(weight) - 1, 0.0
    for d in range(count):
        direction = turns[was_row, was_col, d]
        on = (direction < ARRIVED and was_row + STEPS[direction, 0] == row and was_col + STEPS[direction, 1] == col)
        if not on:
            weight[d] *= _OFF
        total += weight[d]
    weight[count] *= _ASTRAY
    total += weight[count]
    # Who has arrived goes somewhere else.
    arrived = 0.0
    for d in range(count):
        weight[d] /= total
        if city.destinations[d, 0] == row and city.destinations[d, 1] == col:
            arrived += weight[d]
            weight[d] = 0.0
    weight[count] /= total
    each = (arrived * (1.0 - _ANEW) + (1.0 - _ASTRAY_FIRST) * _ANEW) / max(count, 1)
    for d in range(count):
        weight[d] = (1.0 - _ANEW) * weight[d] + each
    weight[count] = (1.0 - _ANEW) * weight[count] + _ASTRAY_FIRST * _ANEW


@kernel
def _foresee(ue, u, e, p, city, turns, rsrp_dbm, a3_since_s, weight, now_s, belief, forecast, errors_db, scratch, ways):
    """The forecast of UE `u`, in place."""
    me = ue[u]
    forecast.cell[e, u], forecast.at_s[e, u], forecast.chance[e, u] = -1, np.inf, 0.0
    if me.reconnect_s < np.inf:
        return
    beliefs, speed, row, col = belief.weight[e, u], belief.speed[e, u], belief.row[e, u], belief.col[e, u]
    ways.votes[:], ways.late[:] = 0.0, 0.0
    count = _tell_apart(beliefs, turns, row, col, int(speed * HORIZON_S / p.pitch_m) + 2, ways)
    for w in range(count + 1):
        likely = ways.weight[w] if w < count else beliefs[-1]
        if likely < _UNLIKELY:
            continue
        if w < count:
            _walk(me, p, city, turns, ways.example[w], row, col, speed, scratch)
        else:
            straight_on(me, p, city.gain_db, _STEPS, scratch)
        near = cells_in_question(ue, u, p, city.gain_db, rsrp_dbm, a3_since_s, _STEPS, _SLACK_DB, scratch)
        draws = 0 if near == 0 else 1 if likely < _MINOR else len(errors_db)
        for draw in range(draws):
            noise_db = scratch.silence if draws == 1 else errors_db[draw]
            cell, at_s = follow(near, ue, u, p, city.gain_db, rsrp_dbm, a3_since_s, weight, now_s, _STEPS, noise_db,
                                scratch)
            if cell >= 0:
                ways.votes[cell] += likely / draws
                ways.late[cell] += likely / draws * at_s
    best = ways.votes.argmax()
    if ways.votes[best] > 0.0:
        forecast.cell[e, u], forecast.chance[e, u] = best, ways.votes[best]
        forecast.at_s[e, u] = max(ways.late[best] / ways.votes[best], now_s)
    if me.fire_cell >= 0:
        # Its time-to-trigger runs; the target may still turn out to be another.
        forecast.cell[e, u], forecast.at_s[e, u] = me.fire_cell, me.fire_s
        forecast.chance[e, u] = ways.votes[me.fire_cell]


@kernel
def _tell_apart(beliefs, turns, row, col, cells, ways):
    """Group the destinations by the way to them over the next street cells; how many ways there are."""
    destinations, least = len(beliefs) - 1, _UNLIKELY / max(len(beliefs) - 1, 1)
    for d in range(destinations):
        ways.mark[d], ways.row[d], ways.col[d] = 0, row, col
    # All of them step by step: those that go the same way read the same place.
    for _ in range(cells):
        for d in range(destinations):
            if beliefs[d] < least:
                continue
            direction = turns[ways.row[d], ways.col[d], d]
            ways.mark[d] = ways.mark[d] * 1099511628211 + direction + 1
            if direction < ARRIVED:
                ways.row[d] += STEPS[direction, 0]
                ways.col[d] += STEPS[direction, 1]
    count = 0
    for d in range(destinations):
        if beliefs[d] < least:
            continue
        same = -1
        for w in range(count):
            if ways.mark[ways.example[w]] == ways.mark[d]:
                same = w
        if same < 0 and count < _WAYS:
            same, count = count, count + 1
            ways.weight[same], ways.example[same] = 0.0, d
        if same >= 0:
            ways.weight[same] += beliefs[d]
    return count


@kernel
def _walk(me, p, city, turns, d, row, col, speed, scratch):
    """Write the street cells of the way to destination `d`, one for every STEP_S, into the scratch memory."""
    x, y, left = me.x, me.y, 0.0
    # The cell's centre may lie ahead or behind.
    gx, gy = p.origin_x + col * p.pitch_m, p.origin_y + row * p.pitch_m
    if (gx - x) * me.vx + (gy - y) * me.vy <= 0.0:
        direction = turns[row, col, d]
        if direction < ARRIVED:
            row += STEPS[direction, 0]
            col += STEPS[direction, 1]
    last_row, last_col = city.gain_db.shape[0] - 1, city.gain_db.shape[1] - 1
    for k in range(_STEPS + 1):
        while left > 0.0:
            gx, gy = p.origin_x + col * p.pitch_m, p.origin_y + row * p.pitch_m
            dx, dy = gx - x, gy - y
            distance = math.sqrt(dx * dx + dy * dy)
            if distance > left:
                x += dx / distance * left
                y += dy / distance * left
                break
            x, y = gx, gy
            left -= distance
            direction = turns[row, col, d]
            if direction >= ARRIVED:
                break
            row += STEPS[direction, 0]
            col += STEPS[direction, 1]
        scratch.row[k] = min(max(int((y - p.origin_y) / p.pitch_m + 0.5), 0), last_row)
        scratch.col[k] = min(max(int((x - p.origin_x) / p.pitch_m + 0.5), 0), last_col)
        left = speed * STEP_S
