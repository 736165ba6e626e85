"""Every link carries at most its capacity, bit by bit, also in steps in which sessions change their target.

The bits that reached a cell in a step are not those of the sessions that aim at it when the step ends: a session that
changed its target within the step sent some of its bits to the one before. What was sent there is known, because it is
wasted then.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.envs.handover.world.state import INTERRUPTED, KV

from .sim_bench import LINK_BPS, Bench

UES, STEPS, STEP_S = 6, 25, 0.1


def busy(city, phy, generator: np.random.Generator, topology: str) -> Bench:
    """Sessions so large that no transfer ever ends, over links of all sizes."""
    bench = Bench(city, phy, ues=UES, backhaul=dict(topology=topology))
    for name in ("egress_bps", "ingress_bps"):
        bench.cell[name] = LINK_BPS * generator.uniform(0.2, 2.0, bench.sim.num_cells)
    for u in range(UES):
        bench.put(u, radio=int(generator.integers(bench.sim.num_cells)), context=1e7)
    return bench


def one_step(bench: Bench, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step while UEs change cell at any time; the bits that left and reached every cell, and those booked at the end.

    All float64 [C]. A UE changes cell once in a step at most, so its bits went to two cells at most.
    """
    before = bench.ue.copy()
    for u in range(UES):
        bench.plan(u, medium=KV, weight=generator.choice([0.0, 0.25, 1.0, 4.0], p=[0.1, 0.3, 0.3, 0.3]))
        cell = int(generator.integers(bench.sim.num_cells))
        if generator.random() < 0.6 and cell != before[u]["radio"]:
            bench.hand_over(u, cell, bench.sim.state.world["time_s"][0] + STEP_S * generator.uniform(0.05, 0.95))
    bench.step()
    flow, after, cells = bench.flows[-1], bench.ue, bench.sim.num_cells
    left, reached, booked = np.zeros(cells), np.zeros(cells), np.zeros(cells)
    for u in range(UES):
        bits, me, was = flow["bits_sent"][u], after[u], before[u]
        assert me["server"] == was["server"], "no transfer ends"
        old = 0.0
        if flow["handovers"][u] and was["target"] != was["server"]:
            old = flow["wasted_bits"][u] - was["bits_sent"]
            reached[was["target"]] += old
        new = me["bits_sent"] if flow["handovers"][u] else me["bits_sent"] - was["bits_sent"]
        reached[me["target"]] += new
        assert old >= -1e-3 and new >= 0.0
        assert old + new == pytest.approx(bits, rel=1e-9, abs=1e-3), "no bit is lost, and none is booked twice"
        left[me["server"]] += bits
        booked[me["target"]] += bits
    return left, reached, booked


@pytest.fixture(scope="module")
def world(city, phy):
    """Both fixtures, for hypothesis."""
    return city, phy


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**20), topology=st.sampled_from(["mesh", "pool"]))
def test_no_link_carries_more_than_its_capacity_while_targets_change(world, seed, topology):
    generator = np.random.default_rng(seed)
    bench = busy(*world, generator, topology)
    for _ in range(STEPS):
        left, reached, _ = one_step(bench, generator)
        egress, ingress = (bench.cell[name] * STEP_S for name in ("egress_bps", "ingress_bps"))
        if topology == "pool":
            assert left.sum() <= egress[0] * (1 + 1e-9)
        else:
            assert (left <= egress * (1 + 1e-9) + 1e-3).all()
            assert (reached <= ingress * (1 + 1e-9) + 1e-3).all()


def test_bits_booked_to_the_target_at_the_end_of_a_step_seem_too_many_for_its_link(city, phy):
    seeming, carried, changed = 0.0, 0.0, 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        bench = busy(city, phy, generator, "mesh")
        for _ in range(STEPS):
            aims = bench.ue["target"].copy()
            _, reached, booked = one_step(bench, generator)
            changed += int((aims != bench.ue["target"]).sum())
            capacity = bench.cell["ingress_bps"] * STEP_S
            seeming, carried = max(seeming, (booked / capacity).max()), max(carried, (reached / capacity).max())
    assert changed > 500
    assert carried == pytest.approx(1.0, rel=1e-9), "some link was busy for a whole step"
    assert seeming > 1.2


def test_a_pool_that_somebody_always_uses_is_used_up(city, phy):
    generator = np.random.default_rng(0)
    bench = busy(city, phy, generator, "pool")
    full = 0
    for _ in range(STEPS):
        before = bench.ue.copy()
        left, _, _ = one_step(bench, generator)
        # One that did not change cell and may send keeps the pool busy, whatever the others do.
        sends = (bench.flows[-1]["handovers"] == 0) & (before["phase"] == INTERRUPTED) & (bench.ue["weight"] > 0)
        if (sends & (bench.ue["bits_left"] > 0)).any():
            assert left.sum() == pytest.approx(bench.cell["egress_bps"][0] * STEP_S, rel=1e-9)
            full += 1
    assert full > 10
