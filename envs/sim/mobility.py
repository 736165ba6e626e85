"""Street-bound motion: every UE follows the shortest street path to a destination, then draws the next one.

Positions lie on the segments between the centres of neighbouring street cells, so a UE never leaves the street mask.
All UEs of a convoy draw the same destinations and the same speed; the follower starts a little later.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .jit import kernel
from .params import MobilityConfig
from .streams import (
    MOBILITY,
    MOTION_DESTINATION,
    MOTION_FIRST_LEG,
    MOTION_SAMPLE,
    MOTION_SPEED,
    MOTION_START,
    normal_quantiles,
    uniform,
)
from .traces import Tracks

ARRIVED = 8
STEPS = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)], dtype=np.int64)
_SMOOTHING_S = 1.0  # time constant of the velocity that predictors read


class MapTables(NamedTuple):
    """The city that UEs walk in and are measured in."""

    gain_db: np.ndarray  # float32 [H, W, C]
    next_direction: np.ndarray  # uint8 [D, H, W]
    destinations: np.ndarray  # int16 [D, 2]
    efficiency: np.ndarray  # float32 [N], bit/s/Hz over a uniform SINR grid
    quantiles: np.ndarray  # float32 [65536], of the standard normal (streams.normal_quantiles)
    tracks: np.ndarray  # float64 [U, T, 2], positions from a trace at every decision instant [m]; empty without one


def map_tables(scene, phy, tracks: Tracks | None = None) -> MapTables:
    """The tables of a scene.

    Args:
        scene: anything with path_gain_db [C, H, W], next_direction [D, H, W] and destinations [D, 2].
        phy: anything with efficiency [N].
        tracks: what the UEs follow; None: they walk by themselves.
    """
    return MapTables(
        gain_db=np.ascontiguousarray(np.moveaxis(scene.path_gain_db, 0, -1), dtype=np.float32),
        next_direction=np.ascontiguousarray(scene.next_direction, dtype=np.uint8),
        destinations=np.ascontiguousarray(scene.destinations, dtype=np.int16),
        efficiency=np.ascontiguousarray(phy.efficiency, dtype=np.float32),
        quantiles=normal_quantiles(),
        tracks=np.empty((0, 1, 2)) if tracks is None else np.ascontiguousarray(tracks.positions_m, np.float64),
    )


def map_params(scene) -> dict[str, Any]:
    """MAP_PARAMS of a scene with origin_m and cell_size_m."""
    return dict(origin_x=scene.origin_m[0], origin_y=scene.origin_m[1], pitch_m=scene.cell_size_m)


def motion_params(config: MobilityConfig, num_ues: int, interval_s: float,
                  tracks: Tracks | None = None) -> dict[str, Any]:
    """MOTION_PARAMS of a configuration; with `tracks` the UEs follow them."""
    return dict(
        dt=interval_s, convoy_gap_s=config.convoy_gap_s, convoy=config.convoy,
        vehicles=round(config.vehicle_share * num_ues),
        vehicle_low=config.vehicle_speed_mps[0], vehicle_high=config.vehicle_speed_mps[1],
        walk_low=config.pedestrian_speed_mps[0], walk_high=config.pedestrian_speed_mps[1],
        trace_starts=0 if tracks is None else tracks.starts,
    )


@kernel
def place(ue, u, p, tables: MapTables, keys):
    """Put UE `u` at the start of its first leg and draw its group, speed and first destination."""
    me = ue[u]
    vehicle = u < p.vehicles
    group = u // p.convoy if vehicle else u
    me.group = group
    key = keys[MOBILITY]
    if p.trace_starts > 0:
        me.group, me.sample = u, int(uniform(key, 0, MOTION_SAMPLE, 0) * p.trace_starts)
        before = max(me.sample - 1, 0)
        me.x, me.y = tables.tracks[u, me.sample, 0], tables.tracks[u, me.sample, 1]
        me.vx, me.vy = (me.x - tables.tracks[u, before, 0]) / p.dt, (me.y - tables.tracks[u, before, 1]) / p.dt
        me.speed = math.sqrt(me.vx * me.vx + me.vy * me.vy)
        return
    count = tables.destinations.shape[0]
    low, high = (p.vehicle_low, p.vehicle_high) if vehicle else (p.walk_low, p.walk_high)
    me.speed = low + (high - low) * uniform(key, group, MOTION_SPEED, 0)
    me.departs_in_s = (u - group * p.convoy) * p.convoy_gap_s if vehicle else 0.0
    start = int(uniform(key, group, MOTION_START, 0) * count)
    me.row, me.col = tables.destinations[start, 0], tables.destinations[start, 1]
    me.x, me.y = p.origin_x + me.col * p.pitch_m, p.origin_y + me.row * p.pitch_m
    me.vx = me.vy = 0.0
    me.leg = 0
    me.destination = start
    # A first leg walked in zero time: UEs begin anywhere on a street, not only at destinations.
    _aim(ue, u, tables, keys)
    for _ in range(int(uniform(key, group, MOTION_FIRST_LEG, 0) * 60.0)):
        _next_cell(ue, u, tables, keys)
    me.x, me.y = p.origin_x + me.col * p.pitch_m, p.origin_y + me.row * p.pitch_m


@kernel
def _aim(ue, u, tables, keys):
    """Draw the next destination, different from the present one."""
    me = ue[u]
    count = tables.destinations.shape[0]
    me.leg += 1
    pick = int(uniform(keys[MOBILITY], me.group, MOTION_DESTINATION, me.leg) * (count - 1))
    me.destination = pick + 1 if pick >= me.destination else pick


@kernel
def _next_cell(ue, u, tables, keys):
    """Advance the cell that UE `u` heads for by one step of its route."""
    me = ue[u]
    direction = tables.next_direction[me.destination, me.row, me.col]
    if direction == ARRIVED:
        _aim(ue, u, tables, keys)
        direction = tables.next_direction[me.destination, me.row, me.col]
    me.row += STEPS[direction, 0]
    me.col += STEPS[direction, 1]


@kernel
def move(ue, p, tables: MapTables, keys):
    """Move every UE along its route, or along its trace, for one decision interval of `p.dt` seconds."""
    weight = p.dt / (p.dt + _SMOOTHING_S)
    for u in range(ue.shape[0]):
        me = ue[u]
        x0, y0 = me.x, me.y
        if p.trace_starts > 0:
            me.sample = min(me.sample + 1, tables.tracks.shape[1] - 1)
            me.x, me.y = tables.tracks[u, me.sample, 0], tables.tracks[u, me.sample, 1]
            me.speed = math.sqrt((me.x - x0) ** 2 + (me.y - y0) ** 2) / p.dt
        else:
            time = p.dt
            if me.departs_in_s > 0.0:
                wait = min(me.departs_in_s, time)
                me.departs_in_s -= wait
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
        me.vx += weight * ((me.x - x0) / p.dt - me.vx)
        me.vy += weight * ((me.y - y0) / p.dt - me.vy)
