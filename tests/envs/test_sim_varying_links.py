"""Links whose capacity changes: transfers end as the integral of the capacity says."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.envs.handover.world.state import KV
from kvroam.envs.sim.params import BackhaulConfig
from kvroam.envs.sim.streams import LINK_EGRESS_VARIES, LINK_INGRESS_VARIES, WORLD, uniform

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, Bench, restore_s


def factor(bench: Bench, cell: int, direction: int, period: int, variation: float) -> float:
    """The factor that belongs to the draw at this address, log-uniform in [1/v, v]."""
    return np.exp(np.log(variation) * (2 * uniform(bench.sim.state.keys[0, WORLD], cell, direction, period) - 1))


@pytest.mark.parametrize(("topology", "variation", "period_s"), [
    ("mesh", 4.0, 0.13), ("mesh", 2.0, 0.1), ("pool", 4.0, 0.07), ("mesh", 3.0, 5.0)])
def test_a_transfer_ends_when_the_capacity_has_added_up(city, phy, topology, variation, period_s):
    bench = Bench(city, phy, backhaul=dict(topology=topology, variation=variation, variation_period_s=period_s))
    bench.put(0, context=3000.0)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.02)
    event = bench.until_resumed()
    bits, now, period = 3000 * KV_BITS, 0.02, 0
    while True:
        rate = LINK_BPS * factor(bench, 0, LINK_EGRESS_VARIES, period, variation)
        if topology == "mesh":
            rate = min(rate, LINK_BPS * factor(bench, 1, LINK_INGRESS_VARIES, period, variation))
        if bits <= rate * ((period + 1) * period_s - now):
            break
        bits -= rate * ((period + 1) * period_s - now)
        period += 1
        now = period * period_s
    end = now + bits / rate
    assert event["time_s"] == pytest.approx(end + restore_s(3000 * KV_BITS) + FIRST_TOKEN_S, rel=1e-6)
    assert bench.total("bits_sent") == pytest.approx(3000 * KV_BITS, rel=1e-6)


def test_capacities_stay_within_their_range_and_use_it(city, phy):
    bench = Bench(city, phy, backhaul=dict(variation=3.0, variation_period_s=0.05))
    seen = []
    for _ in range(40):
        bench.step()
        seen += [bench.cell["egress_bps"] / LINK_BPS, bench.cell["ingress_bps"] / LINK_BPS]
    seen = np.log(np.array(seen)) / np.log(3.0)
    assert (np.abs(seen) <= 1.0).all() and seen.min() < -0.9 and seen.max() > 0.9
    assert abs(seen.mean()) < 0.1 and seen.std() == pytest.approx(3**-0.5, rel=0.1)


def test_one_seed_gives_the_same_links_whatever_is_sent(city, phy):
    world = dict(backhaul=dict(variation=3.0))
    quiet, busy = Bench(city, phy, **world), Bench(city, phy, **world)
    busy.plan(0, target=1, medium=KV)
    for bench in (quiet, busy):
        bench.step(25)
    assert np.array_equal(quiet.cell["egress_bps"], busy.cell["egress_bps"])


def test_without_variation_nothing_varies(city, phy):
    bench = Bench(city, phy)
    bench.step(30)
    assert (bench.cell["egress_bps"] == LINK_BPS).all() and (bench.cell["ingress_bps"] == LINK_BPS).all()


@pytest.mark.parametrize(("name", "value"), [("variation", 0.5), ("variation_period_s", 0.0)])
def test_an_impossible_variation_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        BackhaulConfig(**{name: value})
