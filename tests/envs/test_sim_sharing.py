"""Concurrent transfers: fair finish times on a common link, weights, and the rates against linear programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from kvroam.envs.handover.world.state import KV, SPLIT, TOKEN
from kvroam.envs.sim.backhaul import weighted_fair_rates

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, Bench, restore_s


def processor_sharing_ends(starts_s, bits, weights, capacity_bps):
    """When transfers end that share one link in proportion to their weights (an event simulation)."""
    left, ends, now = list(map(float, bits)), [None] * len(bits), 0.0
    while None in ends:
        active = [i for i, end in enumerate(ends) if end is None and starts_s[i] <= now + 1e-15]
        total = sum(weights[i] for i in active)
        rate = {i: capacity_bps * weights[i] / total for i in active}
        later = [start for start, end in zip(starts_s, ends, strict=True) if end is None and start > now + 1e-15]
        until = min([now + left[i] / rate[i] for i in active] + later)
        for i in active:
            left[i] -= rate[i] * (until - now)
            if left[i] <= 1e-3:
                ends[i] = until
        now = until
    return ends


CONTEXTS = (900.0, 2100.0, 1500.0, 3300.0)
STARTS = (0.01, 0.04, 0.07, 0.09)
ONE_EGRESS = [(0, 1), (0, 2), (0, 3), (0, 4)]
ONE_INGRESS = [(1, 0), (2, 0), (3, 0), (4, 0)]
NOTHING_COMMON = [(0, 1), (1, 2), (2, 3), (3, 0)]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (4, 1, 1, 4), (0.25, 1, 4, 2)])
@pytest.mark.parametrize(("topology", "moves"), [
    ("mesh", ONE_EGRESS), ("mesh", ONE_INGRESS), ("pool", NOTHING_COMMON), ("pool", ONE_INGRESS)])
def test_transfers_through_one_link_end_as_processor_sharing_says(city, phy, topology, moves, weights):
    bench = Bench(city, phy, ues=4, backhaul=dict(topology=topology))
    # Only the common link is narrow.
    if topology == "mesh":
        bench.cell["egress_bps"], bench.cell["ingress_bps"] = 100 * LINK_BPS, 100 * LINK_BPS
        bench.cell["egress_bps" if moves is ONE_EGRESS else "ingress_bps"][0] = LINK_BPS
    for u, (source, target) in enumerate(moves):
        bench.put(u, radio=source, context=CONTEXTS[u])
        bench.plan(u, medium=KV, weight=weights[u])
        bench.hand_over(u, target, STARTS[u])
    bench.step(100)
    ends = processor_sharing_ends(STARTS, np.array(CONTEXTS) * KV_BITS, weights, LINK_BPS)
    for u, end in enumerate(ends):
        expected = end - STARTS[u] + restore_s(CONTEXTS[u] * KV_BITS) + FIRST_TOKEN_S
        assert bench.resumed(u)[0]["interruption_s"] == pytest.approx(expected, rel=1e-6)


def test_transfers_without_a_common_link_do_not_disturb_each_other(city, phy):
    bench = Bench(city, phy, ues=4)
    for u, (source, target) in enumerate(NOTHING_COMMON):
        bench.put(u, radio=source)
        bench.plan(u, medium=KV)
        bench.hand_over(u, target, 0.05)
    bench.step(20)
    bits = 1000 * KV_BITS
    for u in range(4):
        assert bench.resumed(u)[0]["interruption_s"] == pytest.approx(
            bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S, rel=1e-6)


def test_weights_of_four_to_one_split_the_link_four_to_one(city, phy):
    bench = Bench(city, phy, ues=2)
    for u, weight in enumerate((4.0, 1.0)):
        bench.put(u, context=1e5)
        bench.plan(u, medium=KV, weight=weight)
        bench.hand_over(u, 1, 0.0)
    bench.step()
    assert bench.flows[0]["bits_sent"] == pytest.approx([0.8 * LINK_BPS * 0.1, 0.2 * LINK_BPS * 0.1], rel=1e-9)


def test_weight_zero_waits_and_then_goes_on(city, phy):
    bench = Bench(city, phy, ues=2)
    for u in (0, 1):
        bench.plan(u, medium=KV, weight=1.0 - u)
        bench.hand_over(u, 1, 0.0)
    bench.step(3)
    assert bench.total("bits_sent", 1) == 0.0
    bits = 1000 * KV_BITS
    assert bits / LINK_BPS > 0.4  # the first transfer is still under way at 0.3 s, when the second is let go
    bench.plan(1, weight=1.0)
    bench.step(20)
    ends = processor_sharing_ends((0.0, 0.3), (bits, bits), (1, 1), LINK_BPS)
    for u, end in enumerate(ends):
        assert bench.resumed(u)[0]["interruption_s"] == pytest.approx(
            end + restore_s(bits) + FIRST_TOKEN_S, rel=1e-6)


def test_a_transfer_that_waits_for_ever_moves_nothing_and_loses_nothing(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.plan(0, medium=KV, weight=0.0)
    bench.hand_over(0, 1, 0.0)
    bench.step(50)
    assert not bench.events
    assert bench.ue[0]["server"] == 0
    assert bench.total("interruption_s") == pytest.approx(5.0, rel=1e-9)
    bench.plan(0, weight=0.001)
    assert bench.until_resumed()["target"] == 1


def test_a_short_transfer_hides_behind_the_radio_interruption(city, phy):
    bench = Bench(city, phy, ues=2)
    for u in (0, 1):
        bench.put(u, context=40.0)
        bench.plan(u, medium=KV)
        bench.hand_over(u, 1, 0.0)
    bench.step(5)
    for u in (0, 1):
        assert bench.resumed(u)[0]["interruption_s"] == pytest.approx(
            RADIO_S + restore_s(40 * KV_BITS) + FIRST_TOKEN_S, rel=1e-6)


def balance(rate_bps: float, wait_s: float = 0.0) -> float:
    """The prefix of 4000 tokens at which prefill (0.1 ms per token, 2 ms) and transfer at `rate_bps` end together."""
    low, high = 0.0, 4000.0
    for _ in range(60):
        middle = (low + high) / 2
        if wait_s + 1e-4 * middle + 2e-3 < (4000 - middle) * KV_BITS / rate_bps:
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize(("other", "weight", "share"), [
    ((0, 2), 1.0, 1 / 2), ((0, 2), 4.0, 4 / 5), ((3, 1), 1.0, 1 / 2), ((3, 1), 0.25, 1 / 5), ((3, 2), 1.0, 1.0)])
def test_a_balanced_split_counts_on_its_share_beside_the_transfer_under_way(city, phy, other, weight, share):
    bench = Bench(city, phy, ues=2)
    bench.put(1, radio=other[0], context=50_000.0)
    bench.plan(1, target=other[1], medium=KV)
    bench.step()
    bench.put(0, context=4000.0)
    bench.plan(0, medium=SPLIT, weight=weight)
    bench.hand_over(0, 1, 0.15)
    bench.step()
    assert bench.ue[0]["prefix"] == pytest.approx(balance(share * LINK_BPS), abs=1.0)


def test_a_balanced_split_counts_the_other_transfers_of_a_pool(city, phy):
    bench = Bench(city, phy, ues=3, backhaul=dict(topology="pool"))
    for u in (1, 2):
        bench.put(u, radio=2 + u, context=50_000.0)
        bench.plan(u, target=5 + u, medium=KV)
    bench.step()
    bench.put(0, context=4000.0)
    bench.plan(0, medium=SPLIT)
    bench.hand_over(0, 1, 0.15)
    bench.step()
    assert bench.ue[0]["prefix"] == pytest.approx(balance(LINK_BPS / 3), abs=1.0)


def test_a_balanced_split_waits_for_the_batch_that_runs(city, phy):
    bench = Bench(city, phy, ues=2)
    bench.put(1, radio=3, context=6980.0)
    bench.plan(1, target=1, medium=TOKEN)
    bench.step()
    bench.put(0, context=4000.0)
    bench.plan(0, medium=SPLIT)
    bench.hand_over(0, 1, 0.15)
    bench.step()
    # The batch runs from 0 to 0.7 s.
    assert bench.ue[0]["prefix"] == pytest.approx(balance(LINK_BPS, 0.55), abs=1.0)


def test_a_balanced_split_that_may_not_send_rebuilds_everything(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=SPLIT, weight=0.0)
    bench.hand_over(0, 1, 0.0)
    assert bench.until_resumed()["prefix"] == 1000.0


def rates(source, target, weight, egress, ingress, pool=False):
    """The rates that the simulator gives to concurrent transfers [bit/s]."""
    source, target = np.asarray(source, np.int64), np.asarray(target, np.int64)
    egress, ingress = np.asarray(egress, float), np.asarray(ingress, float)
    out = np.empty(len(source))
    scratch = np.empty(2 * len(egress)), np.empty(2 * len(egress))
    weighted_fair_rates(source, target, np.asarray(weight, float), egress, ingress, pool, out, *scratch)
    return out


def incidence(source, target, cells, pool):
    """Which transfer uses which link, 0/1 [2 cells, F]."""
    use = np.zeros((2 * cells, len(source)))
    for f, (s, t) in enumerate(zip(source, target, strict=True)):
        use[0 if pool else s, f] = 1.0
        if not pool:
            use[cells + t, f] = 1.0
    return use


def fair_rates_by_linear_programs(use, capacity, weight):
    """Weighted max-min rates: raise the smallest rate/weight as far as it goes, fix who cannot exceed it, repeat."""
    flows = len(weight)
    rate = np.where(weight > 0, np.nan, 0.0)
    while np.isnan(rate).any():
        free = np.isnan(rate)
        bounds = [(None, None) if free[f] else (rate[f], rate[f]) for f in range(flows)]
        # Variables: the rates and the level; maximise the level with rate_f >= weight_f * level for free f.
        above = np.hstack([-np.eye(flows)[free], weight[free, None]])
        problem = dict(A_ub=np.vstack([np.hstack([use, np.zeros((len(use), 1))]), above]),
                       b_ub=np.concatenate([capacity, np.zeros(free.sum())]), bounds=[*bounds, (0, None)])
        level = -linprog(np.r_[np.zeros(flows), -1.0], **problem).fun
        for f in np.flatnonzero(free):
            floor = [(weight[g] * level * (1 - 1e-9), None) if free[g] else (rate[g] * (1 - 1e-9), rate[g])
                     for g in range(flows)]
            most = -linprog(-np.eye(flows)[f], A_ub=use, b_ub=capacity, bounds=floor).fun
            if most <= weight[f] * level * (1 + 1e-6):
                rate[f] = weight[f] * level
    return rate


@pytest.mark.parametrize("seed", range(25))
def test_rates_equal_the_linear_programs(seed):
    generator = np.random.default_rng(seed)
    cells, flows = int(generator.integers(2, 5)), int(generator.integers(1, 7))
    source, target = generator.integers(0, cells, (2, flows))
    weight = generator.choice([0.0, 0.25, 1.0, 1.0, 4.0, 3.3], flows)
    egress, ingress = generator.uniform(0.5, 4.0, (2, cells))
    pool = seed % 5 == 0
    use = incidence(source, target, cells, pool)
    expected = fair_rates_by_linear_programs(use, np.r_[egress, ingress], weight)
    assert rates(source, target, weight, egress, ingress, pool) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_rates_of_a_textbook_network():
    # Two transfers share the egress of 0 (capacity 3); the second also enters 2 (capacity 1): it gets 1, the first 2.
    assert rates([0, 0], [1, 2], [1, 1], [3, 9, 9], [9, 9, 1]) == pytest.approx([2.0, 1.0])


FLOW = st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 1e-3, 0.25, 1.0, 4.0, 1e3]))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(flows=st.lists(FLOW, max_size=12), capacity=st.lists(st.floats(1e3, 1e12), min_size=10, max_size=10),
       pool=st.booleans())
def test_no_link_is_overfull_and_every_transfer_has_a_bottleneck(flows, capacity, pool):
    source, target, weight = (np.array(column) for column in zip(*flows, strict=True)) if flows else ([], [], [])
    rate = rates(source, target, weight, capacity[:5], capacity[5:], pool)
    use = incidence(source, target, 5, pool)
    load = use @ rate
    assert (rate >= 0.0).all()
    assert (load <= np.array(capacity) * (1 + 1e-9)).all()
    full = load >= np.array(capacity) * (1 - 1e-9)
    for f in range(len(flows)):
        if weight[f] == 0.0:
            assert rate[f] == 0.0
            continue
        share = np.array([rate[g] / weight[g] if weight[g] > 0 else 0.0 for g in range(len(flows))])
        assert any(full[link] and share[f] >= share[use[link] > 0].max() * (1 - 1e-6)
                   for link in np.flatnonzero(use[:, f]))
