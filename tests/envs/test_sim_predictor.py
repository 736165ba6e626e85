"""The predictor of the next handover: against a direct computation, against what happens, and its bookkeeping."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.scenes import load, load_phy_table
from kvroam.envs.sim import predictor
from kvroam.envs.sim.params import MobilityConfig, RadioConfig
from kvroam.envs.sim.radio import filter_weight

from .sim_bench import CALM

UES = 8


def moving(scene, phy, seed=0, envs=1, interval_s=0.1, **radio) -> Simulator:
    """UEs on the move, under the default A3 event unless `radio` says otherwise."""
    worlds = CALM | dict(radio=RadioConfig(**(dict(q_out_db=-1000.0) | radio)), mobility=MobilityConfig(convoy=1))
    sim = Simulator(scene, phy, num_ues=UES, interval_s=interval_s, num_envs=envs, **worlds)
    for e in range(envs):
        sim.seed(e, seed + e)
    sim.reset()
    return sim


def direct(sim: Simulator, scene, u: int, radio: RadioConfig) -> tuple[int, float]:
    """The prediction by definition: whole courses of RSRP first, then event A3 on each neighbour alone."""
    me, count = sim.state.ue[0, u], 20
    if me["fire_cell"] >= 0:
        return int(me["fire_cell"]), float(me["fire_s"])
    now = float(sim.state.world["time_s"][0])
    path = np.array([me["x"], me["y"]]) + 0.25 * np.arange(1, count + 1)[:, None] * [me["vx"], me["vy"]]
    at = np.floor((path - scene.origin_m) / scene.cell_size_m + 0.5).astype(int)
    height, width = scene.street.shape
    col, row = at[:, 0].clip(0, width - 1), at[:, 1].clip(0, height - 1)
    true = radio.tx_power_dbm - 10 * np.log10(radio.bandwidth_hz / 30e3) + scene.path_gain_db[:, row, col].T
    stay = 1.0 - filter_weight(radio.filter_k, 0.25)
    course = [sim.state.rsrp_dbm[0, u].copy()]
    for k in range(1, count + 1):
        weights = (1 - stay) * stay ** np.arange(k)[::-1]
        course.append(stay**k * course[0] + weights @ true[:k])
    course = np.array(course)
    margin = course - course[:, [me["radio"]]] - radio.a3_offset_db
    times = now + 0.25 * np.arange(count + 1)
    found = []
    for c in set(range(course.shape[1])) - {int(me["radio"])}:
        since = sim.state.a3_since_s[0, u, c]
        for k in range(1, count + 1):
            if np.isinf(since) and margin[k, c] > radio.hysteresis_db:
                crossing = np.interp(radio.hysteresis_db, margin[k - 1:k + 1, c], times[k - 1:k + 1])
                since = times[k - 1] if margin[k - 1, c] >= radio.hysteresis_db else crossing
            elif (np.isfinite(since) and not margin[k, c] > radio.hysteresis_db
                  and times[k] <= since + radio.time_to_trigger_s):
                since = np.inf
            if since + radio.time_to_trigger_s <= times[k]:
                found.append((since + radio.time_to_trigger_s, c))
                break
    if not found:
        return -1, np.inf
    first = min(found)
    return first[1], max(first[0], now)


@pytest.mark.parametrize("ttt_s", [0.16, 0.64])
def test_a_fresh_prediction_is_the_one_by_definition(phy, ttt_s):
    scene, radio = load("simple_street_canyon"), RadioConfig(q_out_db=-1000.0, time_to_trigger_s=ttt_s)
    sim = moving(scene, phy, time_to_trigger_s=ttt_s)
    plans, several = idle_plans(1, UES), 0
    for k in range(400):
        sim.advance(plans)
        if k % 4:
            continue
        view = NetworkView(sim, 3)
        for u in range(UES):
            cell, at_s = direct(sim, scene, u, radio)
            assert view.predicted_cell[0, u] == cell
            assert view.predicted_in_s[0, u] == pytest.approx(at_s - sim.state.world["time_s"][0], abs=1e-4)
            several += cell >= 0 and sim.state.ue["fire_cell"][0, u] < 0
    assert several > 50


def test_on_a_straight_street_it_comes_true(city, phy):
    # A prediction is followed up until its UE turns; of those that go straight on, all must come true.
    sim = moving(city, phy, measurement_noise_db=0.0)
    plans, errors = idle_plans(1, UES), []
    ue = sim.state.ue[0]
    ahead: dict[int, tuple[float, int, float, float]] = {}
    for _ in range(700):
        before = ue["radio"].copy()
        sim.advance(plans)
        view = NetworkView(sim, 3)
        now = view.time_s[0]
        for u in range(UES):
            heading = np.arctan2(ue["vy"][u], ue["vx"][u])
            if u in ahead and np.hypot(ue["vx"][u], ue["vy"][u]) > 0:
                at_s, cell, old_heading, made_s = ahead[u]
                turned = abs(np.angle(np.exp(1j * (heading - old_heading)))) > 0.05
                if turned:
                    del ahead[u]
                elif ue["radio"][u] != before[u]:
                    assert ue["radio"][u] == cell
                    errors.append((ue["since_s"][u] - at_s) / (at_s - made_s))
                    del ahead[u]
            straight = np.hypot(ue["vx"][u], ue["vy"][u]) > 0.99 * ue["speed"][u]
            if u not in ahead and straight and 1.0 < view.predicted_in_s[0, u] < 4.0:
                ahead[u] = (now + view.predicted_in_s[0, u], view.predicted_cell[0, u], heading, now)
    assert len(errors) > 5
    assert np.abs(errors).max() < 0.25


def test_between_two_predictions_the_time_runs_down_and_views_do_not_matter():
    scene, table = load("simple_street_canyon"), load_phy_table()
    sim, plans = moving(scene, table), idle_plans(1, UES)
    view, kept = NetworkView(sim, 3), 0
    for _ in range(300):
        cell, in_s = view.predicted_cell[0], view.predicted_in_s[0]
        step = int(sim.state.world["step"][0]) + 1
        before = sim.state.ue["radio"][0].copy()
        sim.advance(plans)
        view.refresh()
        ue = sim.state.ue[0]
        for u in range(UES):
            if ((step + u) % 5 and ue["radio"][u] == before[u] and ue["fire_cell"][u] < 0
                    and np.isfinite(in_s[u]) and in_s[u] > 0.1 + 1e-9):
                assert view.predicted_cell[0, u] == cell[u]
                assert view.predicted_in_s[0, u] == pytest.approx(in_s[u] - 0.1)
                kept += 1
        known = ue["fire_cell"] >= 0
        assert (view.predicted_cell[0][known] == ue["fire_cell"][known]).all()
        assert view.predicted_in_s[0][known] == pytest.approx(view.handover_in_s[0][known])
        nobody = view.predicted_cell[0] < 0
        assert np.isinf(view.predicted_in_s[0][nobody]).all()
        assert (view.predicted_in_s[0][~nobody] <= predictor.HORIZON_S).all()
        assert (view.predicted_cell[0] != ue["radio"]).all()
    assert kept > 50


def test_an_environment_of_a_batch_predicts_what_a_single_one_does():
    scene, table = load("simple_street_canyon"), load_phy_table()
    batch = moving(scene, table, envs=3)
    views = [NetworkView(batch, 3)]
    singles = [moving(scene, table, seed=e) for e in range(3)]
    views += [NetworkView(single, 3) for single in singles]
    for _ in range(100):
        batch.advance(idle_plans(3, UES))
        for single in singles:
            single.advance(idle_plans(1, UES))
        for view in views:
            view.refresh()
    for e in range(3):
        assert (views[0].predicted_cell[e] == views[1 + e].predicted_cell[0]).all()
        assert (views[0].predicted_in_s[e] == views[1 + e].predicted_in_s[0]).all()


def test_nothing_is_predicted_while_the_link_has_failed(city, phy):
    sim = moving(city, phy)
    sim.state.ue["reconnect_s"][0, 2] = 99.0
    view = NetworkView(sim, 3)
    assert view.link_failed.tolist() == [[u == 2 for u in range(UES)]]
    assert view.predicted_cell[0, 2] == -1 and np.isinf(view.predicted_in_s[0, 2])


@pytest.mark.parametrize(("interval_s", "every"), [(0.1, 5), (0.02, 25), (0.5, 1), (2.0, 1)])
def test_predictions_are_renewed_every_half_second(interval_s, every):
    assert predictor.refresh_intervals(interval_s) == every
