"""Bandwidth shares: water-filling against bisection, the market against a convex solver, and both in the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, brentq, minimize, nnls

from kvroam.agents.handover.shares import Market, WaterFilling, market_rates, transfers, waterfilling_rates
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import INTERRUPTED, KV, PREPARING

from ..envs.sim_bench import LINK_BPS, Bench


def network(seed):
    """Random transfers across a random mesh: amounts, floors, links, capacities."""
    generator = np.random.default_rng(seed)
    flows, cells = int(generator.integers(1, 9)), int(generator.integers(2, 5))
    links = np.stack([generator.integers(0, cells, flows), cells + generator.integers(0, cells, flows)], axis=-1)
    if seed % 5 == 0:
        links[:] = 0, -1
    floor = generator.uniform(0.0, 2.0, flows) * (generator.random(flows) < 0.6)
    return generator.uniform(0.1, 9.0, flows), floor, links, generator.uniform(0.5, 4.0, 2 * cells)


def crossing(links, count):
    """1 where a transfer crosses a link, float [F, L]."""
    return (links[:, :, None] == np.arange(count)).any(axis=1).astype(float)


@pytest.mark.parametrize("seed", range(60))
def test_water_filling_makes_the_worst_end_as_early_as_can_be(seed):
    bits, floor, links, capacity = network(seed)
    rates, cross = waterfilling_rates(bits, floor, links, capacity), crossing(links, len(capacity))
    assert (rates @ cross <= capacity * (1 + 1e-9)).all() and (rates > 0).all()
    ends = np.maximum(bits / rates, floor)

    def overload(level):
        return float(((bits / np.maximum(level, floor)) @ cross - capacity).max())

    level = brentq(overload, 1e-6, 1e6, xtol=1e-12) if overload(1e-6) > 0 else 1e-6
    best = np.where(floor > level, floor, level)
    assert ends.max() == pytest.approx(best.max(), rel=1e-6)
    # A transfer that could still gain shares a full link only with transfers that end no earlier.
    full = rates @ cross >= capacity * (1 - 1e-6)
    for f in np.flatnonzero(ends > floor * (1 + 1e-6)):
        assert any(full[k] and ends[f] <= ends[cross[:, k] > 0].min() * (1 + 1e-6) for k in np.flatnonzero(cross[f]))


def test_on_one_link_the_water_has_a_level_and_vessels_above_it_stay_dry():
    # 6 and 3 bit over 1 bit/s beside 2 bit that nobody needs before 20 s: (6 + 3) / (1 - 2 / 20) = 10 s.
    rates = waterfilling_rates([6.0, 3.0, 2.0], [0.0, 4.0, 20.0], [[0, -1]] * 3, [1.0])
    assert rates == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.parametrize("seed", range(60))
def test_the_market_is_an_equilibrium(seed):
    # Optimal iff prices of full links explain every transfer's marginal worth budget / rate (Karush, Kuhn, Tucker).
    budget, _, links, capacity = network(seed)
    rates, cross = market_rates(budget, links, capacity), crossing(links, len(capacity))
    load = rates @ cross
    assert (load <= capacity * (1 + 1e-9)).all()
    full = load > capacity * (1 - 1e-5)
    assert full.any()
    worth = budget / rates
    _, unexplained = nnls(cross[:, full], worth)
    assert unexplained <= 1e-4 * np.linalg.norm(worth)


@pytest.mark.parametrize("seed", [2, 3, 7, 24])
def test_the_market_is_the_optimum_of_a_convex_solver(seed):
    budget, _, links, capacity = network(seed)
    rates, cross = market_rates(budget, links, capacity), crossing(links, len(capacity))

    def worth(x):
        return float((budget * np.log(x)).sum())

    reached = []
    for part in (0.9, 0.5, 0.1):
        start = part * capacity.min() / len(budget) * np.ones(len(budget))
        found = minimize(lambda x: -(budget * np.log(np.maximum(x, 1e-12))).sum(), start, jac=lambda x: -budget / x,
                         method="trust-constr", bounds=[(1e-9, None)] * len(budget),
                         constraints=LinearConstraint(cross.T, ub=capacity))
        # Whatever the solver says: made feasible, what is it worth?
        x = np.maximum(found.x, 1e-9)
        reached.append(worth(x / max(1.0, float((x @ cross / capacity).max()))))
    assert worth(rates) >= max(reached) - 1e-6
    assert worth(rates) == pytest.approx(max(reached), abs=1e-3)


def test_on_one_link_budgets_are_shares_and_roots_make_the_sum_of_times_least():
    bits = np.array([1.0, 4.0, 16.0])
    rates = market_rates(np.sqrt(bits), [[0, -1]] * 3, [7.0])
    assert rates == pytest.approx([1.0, 2.0, 4.0])
    total, generator = (bits / rates).sum(), np.random.default_rng(0)
    assert all(total <= (bits / (7.0 * other)).sum() + 1e-9 for other in generator.dirichlet(np.ones(3), 500))


@pytest.mark.parametrize("rule", [lambda b, ln, c: waterfilling_rates(b, np.zeros(len(b)), ln, c), market_rates])
def test_nobody_nothing_and_no_link(rule):
    assert rule([], [], [1.0]).size == 0
    assert rule([0.0, 5.0, 5.0], [[0, -1], [0, -1], [1, -1]], [2.0, 0.0]) == pytest.approx([0.0, 2.0, 0.0])
    for bad, names in (([-1.0], "bits or budget"), ([np.inf], "bits or budget")):
        with pytest.raises(ValueError, match=names):
            rule(bad, [[0, -1]], [1.0])
    with pytest.raises(ValueError, match="links"):
        rule([1.0], [[3, -1]], [1.0])
    with pytest.raises(ValueError, match="capacity_bps"):
        rule([1.0], [[0, -1]], [-1.0])


def ends_under(policy, city, phy, **backhaul):
    """When four sessions of 1000 to 4000 tokens are complete if all leave cell 0 for cell 1 at once [s]."""
    bench = Bench(city, phy, ues=4, interval_s=0.01, backhaul=backhaul)
    for u in range(4):
        bench.put(u, context=1000.0 * (u + 1))
        bench.hand_over(u, 1, 0.0)
    view = NetworkView(bench.sim, 3)
    while len(bench.events) < 4:
        bench.plans = policy.act(view)
        bench.step()
        view.refresh()
    return [float(bench.resumed(u)[0]["interruption_s"]) for u in range(4)]


def even(rule):
    """The same policy with equal weights."""
    return type("Even", (rule,), {"rates": lambda self, view, e, ues, links, capacity: np.ones(len(ues))})("kv")


@pytest.mark.parametrize("topology", ["mesh", "pool"])
def test_in_the_simulator_water_filling_levels_the_ends(city, phy, topology):
    filled = ends_under(WaterFilling("kv"), city, phy, topology=topology)
    equal = ends_under(even(WaterFilling), city, phy, topology=topology)
    assert np.ptp(filled) < 0.1 * np.ptp(equal)
    # One link is busy until the last end, whatever the shares.
    assert max(filled) == pytest.approx(max(equal), rel=0.01)


def test_in_the_simulator_the_market_is_the_quicker_one_on_average(city, phy):
    assert np.mean(ends_under(Market("kv"), city, phy)) < np.mean(ends_under(WaterFilling("kv"), city, phy))


def under_way(city, phy, cells, contexts):
    """A bench whose UEs, all at cell 0, send their KV to `cells`, one interval after they began."""
    bench = Bench(city, phy, ues=len(cells))
    for u, (cell, context) in enumerate(zip(cells, contexts, strict=True)):
        bench.put(u, context=context)
        bench.plan(u, target=cell, medium=KV)
    bench.step()
    return bench


def test_water_does_not_rise_above_a_server_that_is_busy(city, phy):
    # Equal amounts to cells 1 and 2; the server of cell 2 is busy for 20 s, so that its transfer is in no hurry.
    bench = under_way(city, phy, (1, 2), (3000.0, 3000.0))
    bench.cell[2]["busy_until"] = 20.1
    plans = WaterFilling("kv").act(NetworkView(bench.sim, 3))[0]
    left = bench.ue["bits_left"].copy()
    rates = np.array([LINK_BPS - left[1] / 20.0, left[1] / 20.0])
    assert plans["weight"] == pytest.approx(rates / rates.mean(), rel=1e-6)


def test_in_the_market_preparations_wait_for_what_is_interrupted(city, phy):
    # UE 0 has left its cell already; UE 1 will in 0.4 s, UE 2 some day (10 s at most count).
    bench = under_way(city, phy, (1, 1, 1), (3000.0, 3000.0, 3000.0))
    bench.hand_over(0, 1, float(bench.sim.state.world["time_s"][0]))
    bench.step()
    bench.ue[1]["fire_s"], bench.ue[1]["fire_cell"] = float(bench.sim.state.world["time_s"][0]) + 0.4, 1
    left = bench.ue["bits_left"].copy()
    assert bench.ue["phase"].tolist() == [INTERRUPTED, PREPARING, PREPARING] and (left > 0).all()
    plans = Market("kv").act(NetworkView(bench.sim, 3))[0]
    # On one link shares are budgets: sqrt(bits), over 1 + 0.4 / 0.1 = 5 and over 1 + 10 / 0.1 = 101.
    assert plans["weight"] / plans["weight"][0] == pytest.approx(np.sqrt(left / left[0]) / [1.0, 5.0, 101.0], rel=1e-4)
    assert plans["weight"].mean() == pytest.approx(1.0)


def test_a_share_rule_takes_kv_or_split():
    with pytest.raises(ValueError, match="medium is 'token'"):
        Market("token")
    with pytest.raises(ValueError, match="bits is 5"):
        WaterFilling(bits=5)


def test_transfers_lists_what_is_under_way(city, phy):
    bench = Bench(city, phy, ues=3)
    bench.plan(1, target=4, medium=1)
    bench.step()
    ues, links, capacity = transfers(NetworkView(bench.sim, 3), 0)
    assert (ues.tolist(), links.tolist(), len(capacity)) == ([1], [[0, 9 + 4]], 18)
    assert capacity == pytest.approx(LINK_BPS)
