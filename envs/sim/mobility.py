"""Street-bound motion: every UE follows the shortest street path to a destination, then draws the next one.

Positions lie on the segments between the centres of neighbouring street cells, so a UE never leaves the street mask.
All UEs of a convoy draw the same destinations and the same speed; the follower starts a little later.
"""

from __future__ import annotations

import math

import numpy as np

from .jit import borrowing
from .state import Tables
from .streams import MOBILITY, uniform

ARRIVED = 8
STEPS = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)], dtype=np.int64)
_SMOOTHING_S = 1.0  # time constant of the velocity that predictors read


@borrowing
def place(ue, u, p, tables: Tables, keys):
    """Put UE `u` at the start of its first leg and draw its group, speed and first destination."""
    me = ue[u]
    vehicle = u < p.vehicles
    group = u // p.convoy if vehicle else u
    me.group = group
    key = keys[MOBILITY]
    if p.trace_starts > 0:
        me.group, me.sample = u, int(uniform(key, 0, 4, 0) * p.trace_starts)
        before = max(me.sample - 1, 0)
        me.x, me.y = tables.tracks[u, me.sample, 0], tables.tracks[u, me.sample, 1]
        me.vx, me.vy = (me.x - tables.tracks[u, before, 0]) / p.dt, (me.y - tables.tracks[u, before, 1]) / p.dt
        me.speed = math.sqrt(me.vx * me.vx + me.vy * me.vy)
        return
    count = tables.destinations.shape[0]
    low, high = (p.vehicle_low, p.vehicle_high) if vehicle else (p.walk_low, p.walk_high)
    me.speed = low + (high - low) * uniform(key, group, 0, 0)
    me.hold_s = (u - group * p.convoy) * p.convoy_gap_s if vehicle else 0.0
    start = int(uniform(key, group, 1, 0) * count)
    me.row, me.col = tables.destinations[start, 0], tables.destinations[start, 1]
    me.x, me.y = p.origin_x + me.col * p.pitch_m, p.origin_y + me.row * p.pitch_m
    me.vx = me.vy = 0.0
    me.leg = 0
    me.destination = start
    # A first leg walked in zero time: UEs begin anywhere on a street, not only at destinations.
    _aim(ue, u, tables, keys)
    for _ in range(int(uniform(key, group, 2, 0) * 60.0)):
        _next_cell(ue, u, tables, keys)
    me.x, me.y = p.origin_x + me.col * p.pitch_m, p.origin_y + me.row * p.pitch_m


@borrowing
def _aim(ue, u, tables, keys):
    """Draw the next destination, different from the present one."""
    me = ue[u]
    count = tables.destinations.shape[0]
    me.leg += 1
    pick = int(uniform(keys[MOBILITY], me.group, 3, me.leg) * (count - 1))
    me.destination = pick + 1 if pick >= me.destination else pick


@borrowing
def _next_cell(ue, u, tables, keys):
    """Advance the cell that UE `u` heads for by one step of its route."""
    me = ue[u]
    direction = tables.next_direction[me.destination, me.row, me.col]
    if direction == ARRIVED:
        _aim(ue, u, tables, keys)
        direction = tables.next_direction[me.destination, me.row, me.col]
    me.row += STEPS[direction, 0]
    me.col += STEPS[direction, 1]


@borrowing
def move(ue, u, p, tables: Tables, keys):
    """Move UE `u` along its route, or along its trace, for one decision interval of `p.dt` seconds."""
    me = ue[u]
    x0, y0 = me.x, me.y
    if p.trace_starts > 0:
        me.sample = min(me.sample + 1, tables.tracks.shape[1] - 1)
        me.x, me.y = tables.tracks[u, me.sample, 0], tables.tracks[u, me.sample, 1]
        me.speed = math.sqrt((me.x - x0) ** 2 + (me.y - y0) ** 2) / p.dt
    else:
        _walk(ue, u, p, tables, keys)
    weight = p.dt / (p.dt + _SMOOTHING_S)
    me.vx += weight * ((me.x - x0) / p.dt - me.vx)
    me.vy += weight * ((me.y - y0) / p.dt - me.vy)


@borrowing
def _walk(ue, u, p, tables: Tables, keys):
    """Go on along the street path to the destination, and to the next one."""
    me = ue[u]
    time = p.dt
    if me.hold_s > 0.0:
        wait = min(me.hold_s, time)
        me.hold_s -= wait
        time -= wait
    left = me.speed * time
    while left > 0.0:
        gx, gy = p.origin_x + me.col * p.pitch_m, p.origin_y + me.row * p.pitch_m
        dx, dy = gx - me.x, gy - me.y
        distance = math.sqrt(dx * dx + dy * dy)
        if distance > left:
            me.x += dx / distance * left
            me.y += dy / distance * left
            break
        me.x, me.y = gx, gy
        left -= distance
        _next_cell(ue, u, tables, keys)
