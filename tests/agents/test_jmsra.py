"""JMSRA: against exhaustive search, against a convex solver, and in an episode."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from kvroam.agents.handover import jmsra
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import KV, RESUMED, TOKEN

from ..envs.sim_bench import KV_BITS, LINK_BPS, Bench


def instance(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Senders whose best medium depends on the bandwidth: compute, bits, efficiency, bandwidth."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    cost = jmsra.costs(rng.integers(64, 4096, count), rng.integers(16, 512, count), rng.integers(0, 16, count),
                       prefill_s_per_token=rng.uniform(5e-5, 1e-3, count),
                       decode_s_per_token=rng.uniform(0.01, 0.1, count),
                       receiver_prefill_s_per_token=1e-4, kv_bits_per_token=10 ** rng.uniform(3.5, 5.7),
                       keep=rng.uniform(0.1, 1.0, count), restore_s=0.01)
    return cost.compute_s, cost.bits, rng.uniform(0.2, 7.0, count), float(10 ** rng.uniform(6.5, 9))


@pytest.mark.parametrize("objective", ["minmax", "sum"])
def test_the_greedy_search_is_within_one_percent_of_the_optimum(objective):
    gaps = []
    for seed in range(200):
        problem = instance(seed)
        found, best = jmsra.solve(*problem, objective), jmsra.exhaustive(*problem, objective)
        gaps.append(found.value_s / best.value_s - 1.0)
    assert min(gaps) > -1e-9 and max(gaps) < 0.01
    # The instances are no walk-over: single media are often far from the optimum.
    single = [min(float(jmsra._values(np.full((1, p[0].shape[1]), m), *p, objective)[0]) for m in (0, 1))
              / jmsra.exhaustive(*p, objective).value_s - 1.0 for p in map(instance, range(60))]
    assert np.mean(np.array(single) > 0.05) > 0.15


def latest_by_a_convex_solver(a, load) -> float:
    """The least T that SLSQP reaches with a_i + load_i / b_i <= T and sum b <= 1, over several starts.

    What counts is the share of the band that it returns, made feasible, and the latest end under it; what the solver
    says about itself does not.
    """
    count, reached = len(a), []
    for even in (1.0, 0.5, 0.0):
        share = even / count + (1.0 - even) * np.sqrt(load) / np.sqrt(load).sum()
        start = np.append(share, (a + load / share).max() * 1.1)

        def slack(v, scale=start[-1]):
            return (v[-1] - a - load / v[:-1]) / scale

        answer = optimize.minimize(
            lambda v, scale=start[-1]: v[-1] / scale, start, method="SLSQP", options=dict(maxiter=1000, ftol=1e-14),
            bounds=[(1e-9, 1.0)] * count + [(0.0, None)],
            constraints=[dict(type="ineq", fun=slack), dict(type="ineq", fun=lambda v: 1.0 - v[:-1].sum())])
        if np.isfinite(answer.x).all() and (answer.x[:-1] > 0.0).all():
            reached.append(float((a + load / (answer.x[:-1] / max(1.0, answer.x[:-1].sum()))).max()))
    return min(reached)


@pytest.mark.parametrize("seed", range(12))
def test_min_max_bandwidth_equals_a_convex_solver(seed):
    compute, bits, efficiency, bandwidth = instance(100 + seed)
    a, load = compute[1], bits[1] / efficiency
    found = jmsra.share_bandwidth(a, bits[1], efficiency, bandwidth)
    latest = (a + load / found).max()
    assert (found > 0.0).all() and found.sum() <= bandwidth * (1 + 1e-9)
    reached = latest_by_a_convex_solver(a, load / bandwidth)
    assert latest <= reached * (1 + 1e-9)
    assert latest == pytest.approx(reached, rel=1e-4)


@pytest.mark.parametrize("seed", range(40))
def test_min_max_bandwidth_equals_bisection(seed):
    compute, bits, efficiency, bandwidth = instance(200 + seed)
    a, load = compute[1], bits[1] / efficiency
    # The T at which the shares that end everybody at T just fill the band.
    low, high = a.max(), (a + load * len(a) / bandwidth).max()
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if (load / np.maximum(middle - a, 1e-300)).sum() > bandwidth else (low, middle)
    found = jmsra.share_bandwidth(a, bits[1], efficiency, bandwidth)
    assert found == pytest.approx(load / (high - a), rel=1e-6)


def test_sum_bandwidth_is_no_worse_than_any_other_split():
    compute, bits, efficiency, bandwidth = instance(5)
    best = (bits[1] / efficiency / jmsra.share_bandwidth(compute[1], bits[1], efficiency, bandwidth, "sum")).sum()
    for other in np.random.default_rng(0).dirichlet(np.ones(bits.shape[1]), 500):
        assert (bits[1] / efficiency / (other * bandwidth)).sum() >= best * (1 - 1e-12)


def test_the_switching_rate_is_where_both_media_take_the_same_time():
    cost = jmsra.costs([1000], [200], [8], prefill_s_per_token=1e-4, decode_s_per_token=0.03,
                       receiver_prefill_s_per_token=1e-4, kv_bits_per_token=458_752.0, restore_s=0.02)
    rate = jmsra.switching_rate_bps(cost)[0]
    nl, cache = cost.compute_s[:, 0] + cost.bits[:, 0] / rate
    assert nl == pytest.approx(cache) and rate > 0
    for factor, cache_wins in ((0.9, False), (1.1, True)):
        nl, cache = cost.compute_s[:, 0] + cost.bits[:, 0] / (rate * factor)
        assert (cache < nl) == cache_wins


@pytest.mark.parametrize(("compute", "bits", "expected"), [
    ([[2.0], [1.0]], [[5.0], [5.0]], 0.0), ([[1.0], [2.0]], [[5.0], [9.0]], np.inf),
    ([[1.0], [2.0]], [[9.0], [5.0]], np.nan), ([[2.0], [1.0]], [[1.0], [5.0]], 4.0),
])
def test_the_switching_rate_of_degenerate_senders(compute, bits, expected):
    cost = jmsra.Costs(np.array(compute), np.array(bits))
    assert jmsra.switching_rate_bps(cost)[0] == pytest.approx(expected, nan_ok=True)


def test_nobody_and_nothing_to_send():
    empty = jmsra.solve(np.empty((2, 0)), np.empty((2, 0)), np.empty(0), 1e6)
    assert empty.value_s == 0.0 and empty.medium.size == 0
    silent = jmsra.solve([[1.0, 2.0], [3.0, 3.0]], np.zeros((2, 2)), 1.0, 0.0)
    assert silent.medium.tolist() == [jmsra.NL, jmsra.NL] and silent.value_s == 2.0


@pytest.mark.parametrize(("change", "says"), [
    (dict(bandwidth_hz=0.0), "bandwidth_hz is 0.0"), (dict(bandwidth_hz=-1.0), "bandwidth_hz is -1.0"),
    (dict(compute_s=[[1.0], [-1.0]]), "compute_s must be finite"), (dict(bits=[[1.0]]), r"both must be \[2, K\]"),
    (dict(efficiency=[0.0]), "efficiency contains 0"), (dict(objective="best"), "objective is 'best'"),
])
def test_impossible_arguments_are_named(change, says):
    given = dict(compute_s=[[1.0], [1.0]], bits=[[5.0], [5.0]], efficiency=[1.0], bandwidth_hz=1.0) | change
    with pytest.raises(ValueError, match=says):
        jmsra.solve(**given)
    with pytest.raises(ValueError, match="latent_steps"):
        jmsra.costs([1], [1], [-1], prefill_s_per_token=1, decode_s_per_token=1, receiver_prefill_s_per_token=1,
                    kv_bits_per_token=1)


@pytest.mark.parametrize("topology", ["mesh", "pool"])
def test_online_it_uses_both_media_and_moves_every_session(topology):
    config = resolve("rush_hour", ["scoring.mode=none", "episode_s=30.0", f"backhaul.topology={topology}"])
    core = make_core(config, 2)
    core.reset([1, 2])
    policy = jmsra.JMSRA()
    policy.reset(core.view)
    media = set()
    for _ in range(config.max_steps):
        core.step(policy.act(core.view))
        media |= {int(e["medium"]) for _, e in core.task.events()
                  if e["kind"] == RESUMED and e["source"] != e["target"]}
    assert media == {KV, TOKEN}


@pytest.mark.parametrize(("prefill_s_per_token", "quicker"), [(1e-4, TOKEN), (5e-3, KV)])
def test_a_handover_that_nothing_announced_takes_the_quicker_medium(city, phy, prefill_s_per_token, quicker):
    took = {}
    for medium in ("policy", TOKEN, KV):
        bench = Bench(city, phy, serving=dict(prefill_s_per_token=prefill_s_per_token))
        plan = jmsra.JMSRA().act(NetworkView(bench.sim, 3))[0, 0]
        target = int(NetworkView(bench.sim, 3).candidates[0, 0, 1])
        bench.plan(0, medium=plan["medium"] if medium == "policy" else medium)
        bench.hand_over(0, target, 0.0)
        took[medium] = float(bench.until_resumed()["interruption_s"])
    assert took["policy"] == took[quicker] == min(took.values()) < 0.8 * max(took.values())


def test_what_is_being_sent_takes_its_part_of_the_band(city, phy):
    # UE 2 sends 9000 tokens from cell 0. Beside it, the latest end is earliest when UE 0, also at cell 0, is rebuilt,
    # while UE 1, at cell 3, has a link of its own.
    bench = Bench(city, phy, ues=3, serving=dict(prefill_s_per_token=2.5e-3))
    bench.put(2, context=9000.0)
    bench.plan(2, target=1, medium=KV)
    bench.step()
    now = float(bench.sim.state.world["time_s"][0])
    for u, cell in enumerate((0, 3)):
        bench.put(u, radio=cell, context=3000.0)
        bench.hand_over(u, 4, now + 0.05)
    plans = jmsra.JMSRA().act(NetworkView(bench.sim, 3))[0]
    owed_s, own_s, rebuilt_s = float(bench.ue[2]["bits_left"]) / LINK_BPS, 3000.0 * KV_BITS / LINK_BPS, 3000.0 * 2.5e-3
    # Both by the link: everything ends when the sum is through. Alone, KV is far quicker than a rebuild of 7.5 s.
    assert own_s < rebuilt_s and max(owed_s, rebuilt_s) > owed_s + own_s > owed_s
    assert plans["medium"][:2].tolist() == [KV, KV]
    # Shares in proportion to what is left end both at once.
    assert plans["weight"][2] / plans["weight"][0] == pytest.approx(owed_s / own_s, rel=1e-6)
    assert plans["weight"][1] == 1.0


def test_a_busy_server_is_no_place_to_rebuild(city, phy):
    media = {}
    for busy_s in (0.0, 5.0):
        bench = Bench(city, phy)
        bench.hand_over(0, 1, 0.05)
        bench.cell[1]["busy_until"] = busy_s
        media[busy_s] = int(jmsra.JMSRA().act(NetworkView(bench.sim, 3))[0, 0]["medium"])
    # 1000 tokens: 0.102 s by prefill, 0.459 s over the link.
    assert media == {0.0: TOKEN, 5.0: KV}
