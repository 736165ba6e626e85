"""Every link carries at most its capacity, bit by bit, also in steps in which sessions change their target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)
from kvroam.envs.sim.state import CANCEL, CONTINUE, IDLE

from .sim_bench import KV_BITS, LINK_BPS, Bench

UES, STEPS, STEP_S, PERIOD_S = 10, 60, 0.1, 0.25


def narrow(city, phy, seed: int, topology: str, variation: float) -> Simulator:
    """Links so narrow that they are busy all the time, and UEs that change cell often."""
    sim = Simulator(
        city, phy, num_ues=UES, interval_s=STEP_S, trigger="policy",
        radio=RadioConfig(q_out_db=-2.5, q_in_db=-2.5, t310_s=0.2, monitoring_load=0.5),
        mobility=MobilityConfig(convoy=3), sessions=SessionConfig(think_s=0.4), serving=ServingConfig(),
        compute=ComputeConfig(), backhaul=BackhaulConfig(capacity_bps=1e9, capacity_spread=3.0, topology=topology,
                                                         variation=variation, variation_period_s=PERIOD_S))
    sim.seed(0, seed)
    sim.reset()
    return sim


def restless(generator: np.random.Generator, cells: int) -> np.ndarray:
    """Plans that start, drop and replace migrations all the time, PLAN [1, U]."""
    plans, shape = idle_plans(1, UES), (1, UES)
    what = generator.random(shape)
    plans["target"] = np.where(what < 0.4, CONTINUE, np.where(what < 0.5, CANCEL, generator.integers(0, cells, shape)))
    plans["medium"] = generator.integers(0, 4, shape)
    plans["keep"] = generator.choice([1.0, 0.1, 0.01], shape)
    plans["bits"] = generator.choice([16, 8, 4], shape)
    plans["weight"] = generator.choice([0.0, 0.5, 1.0, 4.0], shape, p=[0.1, 0.2, 0.5, 0.2])
    plans["handover"] = np.where(generator.random(shape) < 0.15, generator.integers(0, cells, shape), -1)
    return plans


def carried_at_most(before: np.ndarray, after: np.ndarray, begin_s: float) -> np.ndarray:
    """Capacity [bit/s] that was `before` until a new period begins, and is `after` since, over one step [bit]."""
    boundary = max(np.ceil(begin_s / PERIOD_S - 1e-9), 1.0) * PERIOD_S
    first = min(max(boundary - begin_s, 0.0), STEP_S)
    return before * first + after * (STEP_S - first)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**20), topology=st.sampled_from(["mesh", "pool"]),
       variation=st.sampled_from([1.0, 4.0]))
def test_no_link_carries_more_than_its_capacity_and_no_bit_is_lost(city_and_phy, seed, topology, variation):
    sim = narrow(*city_and_phy, seed, topology, variation)
    generator, cell = np.random.default_rng(seed), sim.state.cell[0]
    for k in range(STEPS):
        before = cell.copy()
        sim.advance(restless(generator, sim.num_cells))
        sent, received, bits = cell["sent_bits"], cell["received_bits"], sim.state.flow["bits_sent"][0].sum()
        assert sent.sum() == pytest.approx(bits, rel=1e-9, abs=1e-3)
        assert received.sum() == pytest.approx(bits, rel=1e-9, abs=1e-3)
        out, into = (carried_at_most(before[name], cell[name], k * STEP_S) for name in ("egress_bps", "ingress_bps"))
        if topology == "pool":
            assert bits <= out[0] * (1 + 1e-9) + 1e-3
        else:
            assert (sent <= out * (1 + 1e-9) + 1e-3).all() and (received <= into * (1 + 1e-9) + 1e-3).all()


def test_what_seemed_too_much_for_a_link_went_to_the_targets_before(city, phy):
    """Bits of a whole step, booked to the target at its end, exceed a link's capacity; those that it carried do not."""
    seeming, carried, checked = 0.0, 0.0, 0
    for seed in range(8):
        sim = narrow(city, phy, seed, "mesh", 1.0)
        generator, ue, cell = np.random.default_rng(seed), sim.state.ue[0], sim.state.cell[0]
        for _ in range(STEPS):
            before = ue.copy()
            plans = restless(generator, sim.num_cells)
            sim.advance(plans)
            bits = sim.state.flow["bits_sent"][0]
            booked = np.bincount(ue["target"], bits, sim.num_cells)
            seeming = max(seeming, (booked / (cell["ingress_bps"] * STEP_S)).max())
            carried = max(carried, (cell["received_bits"] / (cell["ingress_bps"] * STEP_S)).max())
            # Whoever was on its way to one cell from before the step until after it sent all its bits there.
            steady = ((before["phase"] != IDLE) & (ue["phase"] != IDLE) & (before["target"] == ue["target"])
                      & (before["server"] == ue["server"]) & (before["snapshot"] == ue["snapshot"])
                      & (before["job_since_s"] == ue["job_since_s"]))
            expected = np.bincount(ue["target"][steady], bits[steady], sim.num_cells)
            others = np.flatnonzero((bits > 0) & ~steady)
            perhaps = {int(of[name][u]) for u in others for name in ("target", "radio") for of in (before, ue)}
            perhaps |= {int(plans[name][0, u]) for u in others for name in ("target", "handover")}
            for c in set(range(sim.num_cells)) - perhaps:
                assert cell["received_bits"][c] == pytest.approx(expected[c], rel=1e-9, abs=1e-3)
                checked += expected[c] > 0
    assert seeming > 1.2 and carried == pytest.approx(1.0, rel=1e-9)
    assert checked > 50


def test_a_step_with_two_targets_is_booked_to_both(city, phy):
    bench = Bench(city, phy, trigger="policy")
    bench.plan(0, target=3, medium=1)
    bench.step()
    cell = bench.cell
    assert cell["received_bits"][3] == cell["sent_bits"][0] == pytest.approx(0.1 * LINK_BPS)
    # Its link fails in mid-step, and it finds cell 4 before the step ends: one half goes to each.
    bench.sim.params["reestablishment_s"] = 0.02
    bench.fail(0, 0.13, 4)
    bench.plan(0, target=CONTINUE, medium=1)
    bench.step()
    assert cell["received_bits"][[3, 4]] == pytest.approx([0.05 * LINK_BPS, 0.05 * LINK_BPS])
    assert cell["sent_bits"][0] == pytest.approx(0.1 * LINK_BPS) == bench.flows[1]["bits_sent"][0]
    assert 1000 * KV_BITS > 0.2 * LINK_BPS and cell["received_bits"].sum() == cell["sent_bits"].sum()


@pytest.fixture(scope="module")
def city_and_phy(city, phy):
    """Both fixtures, for hypothesis."""
    return city, phy
