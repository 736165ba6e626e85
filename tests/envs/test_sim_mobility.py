"""Mobility: on the street at every instant, at the drawn speed, convoys in line, every destination reachable."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.scenes import DIRECTIONS, load
from kvroam.envs.sim.params import MobilityConfig

from .sim_bench import CALM

UES = 12


def moving(scene, phy, seed: int = 3, interval_s: float = 0.1, **mobility) -> Simulator:
    """A simulator whose UEs move and do nothing else."""
    worlds = CALM | dict(mobility=MobilityConfig(**mobility))
    sim = Simulator(scene, phy, num_ues=UES, interval_s=interval_s, **worlds)
    sim.seed(0, seed)
    sim.reset()
    return sim


def track(sim: Simulator, steps: int) -> np.ndarray:
    """Positions at the start and after every step, [T + 1, U, 2] [m]."""
    plans = idle_plans(1, sim.num_ues)
    positions = [np.stack([sim.state.ue["x"][0], sim.state.ue["y"][0]], -1)]
    for _ in range(steps):
        sim.advance(plans)
        positions.append(np.stack([sim.state.ue["x"][0], sim.state.ue["y"][0]], -1))
    return np.array(positions)


@pytest.fixture(scope="module", params=["grid", "simple_street_canyon"])
def scene(request, city):
    """The grid city and a scene that ships."""
    return city if request.param == "grid" else load(request.param)


def test_no_ue_ever_leaves_the_street(scene, phy):
    # 20 ms at most 16 m/s: finer than any grid, so this also looks in between the decision intervals.
    positions = track(moving(scene, phy, interval_s=0.02), 4000)
    columns = np.rint((positions[..., 0] - scene.origin_m[0]) / scene.cell_size_m).astype(int)
    rows = np.rint((positions[..., 1] - scene.origin_m[1]) / scene.cell_size_m).astype(int)
    assert scene.street[rows, columns].all()
    assert np.ptp(positions, axis=0).max() > 50.0


def test_the_way_does_not_depend_on_the_decision_interval(scene, phy):
    fine = track(moving(scene, phy, interval_s=0.02), 1500)
    coarse = track(moving(scene, phy, interval_s=0.1), 300)
    assert fine[::5] == pytest.approx(coarse, abs=1e-6)


def test_the_length_of_the_way_is_speed_times_time(scene, phy):
    sim = moving(scene, phy, interval_s=0.02, convoy_gap_s=0.0)
    speed = sim.state.ue["speed"][0].copy()
    steps = np.linalg.norm(np.diff(track(sim, 2000), axis=0), axis=-1)
    assert (steps <= speed * 0.02 + 1e-9).all()
    # A corner within a step shortens the chord; nothing else does.
    assert (steps.sum(0) > 0.95 * speed * 40.0).all()
    assert np.median(steps, axis=0) == pytest.approx(speed * 0.02)
    vehicles = round(0.75 * UES)
    assert ((speed[:vehicles] >= 8) & (speed[:vehicles] <= 16)).all()
    assert ((speed[vehicles:] >= 1) & (speed[vehicles:] <= 2)).all()


def test_the_passengers_of_a_convoy_follow_each_other(scene, phy):
    sim = moving(scene, phy, convoy=4, convoy_gap_s=0.8, vehicle_share=1.0)
    speed = sim.state.ue["speed"][0].copy()
    positions = track(sim, 600)
    for u in range(UES):
        leader, delay = u - u % 4, 8 * (u % 4)
        assert speed[u] == speed[leader]
        assert positions[delay:, u] == pytest.approx(positions[:len(positions) - delay, leader], abs=1e-6)
    assert len(set(speed)) == UES // 4


def test_pedestrians_go_their_own_ways(scene, phy):
    sim = moving(scene, phy, vehicle_share=0.0)
    assert len(set(sim.state.ue["speed"][0])) == UES
    assert len(set(sim.state.ue["group"][0])) == UES


def test_every_destination_is_reached_from_every_street_cell(scene):
    height, width = scene.street.shape
    streets = np.argwhere(scene.street)
    for field, goal in zip(scene.next_direction, scene.destinations, strict=True):
        at = streets.copy()
        for _ in range(height * width):
            direction = field[at[:, 0], at[:, 1]]
            going = direction != 8
            if not going.any():
                break
            assert (direction[going] < 8).all()
            at[going] += np.array(DIRECTIONS)[direction[going]]
            assert scene.street[at[:, 0], at[:, 1]].all()
        assert (at == goal).all()


def test_ues_reach_destinations_and_draw_others(city, phy):
    sim = moving(city, phy, vehicle_share=1.0, convoy=1)
    plans, visited = idle_plans(1, UES), set()
    ue = sim.state.ue[0]
    for _ in range(1500):
        before, leg = ue["destination"].copy(), ue["leg"].copy()
        sim.advance(plans)
        assert (ue["leg"] - leg <= 1).all()
        changed = ue["leg"] != leg
        assert (ue["destination"][changed] != before[changed]).all()
        assert (ue["destination"][~changed] == before[~changed]).all()
        visited |= set(before[changed])
    assert len(visited) > 0.8 * len(city.destinations)


def test_the_velocity_tends_to_the_true_one_on_a_straight_street(city, phy):
    sim = moving(city, phy, vehicle_share=1.0, convoy=1)
    ue, plans = sim.state.ue[0], idle_plans(1, UES)
    error = []
    for _ in range(300):
        sim.advance(plans)
        error.append(np.abs(np.hypot(ue["vx"], ue["vy"]) / ue["speed"] - 1.0))
    assert np.median(error[50:]) < 0.05
    assert (np.hypot(ue["vx"], ue["vy"]) <= ue["speed"] + 1e-9).all()
