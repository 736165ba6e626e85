"""The forecast from the street map: what it may know, that it learns, and that what it says comes true."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest

from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.handover.world.state import State
from kvroam.envs.sim.route_predictor import HORIZON_S, RoutePredictor

from .test_sim_predictor import UES, moving

ENVS, STEPS = 4, 600


def watched(sim: Simulator, steps: int = STEPS) -> Iterator[RoutePredictor]:
    """A predictor that has seen every interval up to now, after each of them."""
    predictor, plans = RoutePredictor(sim), idle_plans(sim.num_envs, sim.num_ues)
    for _ in range(steps):
        predictor.watch(sim)
        yield predictor
        sim.advance(plans)


@pytest.fixture(scope="module")
def course(city, phy) -> dict[str, np.ndarray]:
    """Some episodes: what was foreseen in every interval, [steps, E, U], and what then happened."""
    sim = moving(city, phy, seed=3, envs=ENVS)
    view = NetworkView(sim, 3)
    names = ("cell", "in_s", "chance", "line_cell", "line_s", "radio", "known", "belief")
    seen: dict[str, list] = {name: [] for name in names}
    for predictor in watched(sim):
        view.refresh()
        found, ue = predictor.watch(sim), sim.state.ue
        weight = np.take_along_axis(predictor._belief.weight, ue["destination"][..., None].astype(np.int64), axis=-1)
        now = (found.cell, found.at_s - view.time_s[:, None], found.chance, view.predicted_cell, view.predicted_in_s,
               ue["radio"], np.isfinite(view.handover_in_s), weight[..., 0])
        for name, array in zip(names, now, strict=True):
            seen[name].append(np.array(array))
    result = {name: np.stack(arrays) for name, arrays in seen.items()}
    coming, in_s = np.full((ENVS, UES), -1), np.full((ENVS, UES), np.inf)
    next_cell, next_s = np.empty_like(result["radio"]), np.empty_like(result["in_s"])
    for k in range(STEPS - 1, -1, -1):
        if k < STEPS - 1:
            changed = result["radio"][k + 1] != result["radio"][k]
            coming = np.where(changed, result["radio"][k + 1], coming)
            in_s = np.where(changed, 0.1, in_s + 0.1)
        next_cell[k], next_s[k] = coming, in_s
    return result | {"next_cell": next_cell, "next_s": next_s}


def recall(course: dict[str, np.ndarray], cell: str, in_s: str) -> float:
    """How many of the handovers that are 3 to 5 s away are foreseen."""
    asked = ~course["known"] & (course["next_s"] > 3.0) & (course["next_s"] <= 5.0)
    assert asked.sum() > 200
    return float(((course[cell] == course["next_cell"]) & (course[in_s] < course["next_s"] + 2.0))[asked].mean())


def test_it_foresees_what_constant_velocity_does_not(course):
    assert recall(course, "cell", "in_s") > recall(course, "line_cell", "line_s") + 0.15


def test_the_likelier_it_says_the_oftener_it_happens(course):
    # Of those that could come true before the episode ended.
    asked = ~course["known"] & (course["cell"] >= 0) & (course["in_s"] < 5.0)
    asked[-100:] = False
    came = (course["next_cell"] == course["cell"]) & (course["next_s"] < course["in_s"] + 2.0)
    rare, sure = asked & (course["chance"] < 0.4), asked & (course["chance"] > 0.9)
    assert min(rare.sum(), sure.sum()) > 100
    assert came[sure].mean() > 0.85 and came[rare].mean() < 0.5


def test_what_it_says_can_be(course):
    cell, in_s, chance = course["cell"], course["in_s"], course["chance"]
    nobody = cell < 0
    assert np.isinf(in_s[nobody]).all() and not chance[nobody].any()
    assert (in_s[~nobody] <= HORIZON_S + 1e-9).all() and (in_s[~nobody] > -1e-9).all()
    assert (chance <= 1.0 + 1e-6).all() and (cell != course["radio"]).all()


def test_watching_tells_where_they_go(course):
    # All destinations are alike at the start; after some seconds the true one is far likelier than that.
    first = course["belief"][0].mean()
    assert course["belief"][0] == pytest.approx(first) and first < 0.2
    assert course["belief"][100:].mean() > 2.0 * first


def test_it_does_not_know_where_they_go(city, phy):
    """With what only the simulator knows replaced, it says the same."""
    sim = moving(city, phy, seed=3)
    rng = np.random.default_rng(0)
    blind = RoutePredictor(sim)
    for predictor in watched(sim, 150):
        other = copy.copy(sim)
        other.state = State(*(array.copy() for array in sim.state))
        ue = other.state.ue
        for name in ("destination", "leg", "row", "col", "speed", "departs_in_s", "group"):
            ue[name] = rng.integers(0, 40, ue.shape)
        ours, theirs = predictor.watch(sim), blind.watch(other)
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a, b)


def test_who_follows_no_known_way_is_taken_to_go_straight_on(city, phy):
    sim = moving(city, phy, seed=3)
    view, predictor = NetworkView(sim, 3), RoutePredictor(sim)
    ue, plans = sim.state.ue[0], idle_plans(1, UES)
    asked = 0
    for k in range(300):
        sim.advance(plans)
        # Across everything, from west to east at 15 m/s: no shortest way does that.
        ue["x"], ue["y"], ue["vx"], ue["vy"] = 20.0 + 1.5 * k, 40.0 + 52.0 * np.arange(UES), 15.0, 0.0
        view.refresh()
        found = predictor.watch(sim)
        settled = predictor._belief.weight[0, :, -1] > 0.98
        sure = settled & (found.chance[0] > 0.9) & (view.predicted_cell[0] >= 0)
        asked += int(sure.sum())
        assert (found.cell[0] == view.predicted_cell[0])[sure].all()
    assert asked > 20


def test_belief_is_a_distribution_and_is_forgotten_with_the_episode(city, phy):
    sim = moving(city, phy, seed=3, envs=2)
    for predictor in watched(sim, 200):
        weight = predictor._belief.weight
        assert weight.sum(axis=-1) == pytest.approx(1.0, abs=1e-4) and (weight >= 0.0).all()
    kept = weight[0].copy()
    sim.seed(1, 99)
    sim.reset(np.array([1]))
    predictor.watch(sim)
    assert np.ptp(weight[1, :, :-1]) == 0.0, "a new episode: all destinations are alike"
    assert np.abs(weight[0] - kept).max() < 1.0 and np.ptp(weight[0, :, :-1]) > 0.0


def test_an_environment_of_a_batch_is_foreseen_as_a_single_one(city, phy):
    batch, singles = moving(city, phy, envs=2), [moving(city, phy, seed=e) for e in range(2)]
    ours = list(zip(watched(batch, 120), *(watched(single, 120) for single in singles), strict=True))
    together, *alone = ours[-1]
    found = together.watch(batch)
    for e, predictor in enumerate(alone):
        for a, b in zip(found, predictor.watch(singles[e]), strict=True):
            assert np.array_equal(a[e], b[0])


def test_nothing_is_foreseen_while_the_link_has_failed(city, phy):
    sim = moving(city, phy)
    sim.state.ue["reconnect_s"][0, 2] = 99.0
    found = RoutePredictor(sim).watch(sim)
    assert found.cell[0, 2] == -1 and np.isinf(found.at_s[0, 2]) and found.chance[0, 2] == 0.0
