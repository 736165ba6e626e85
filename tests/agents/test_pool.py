"""With one shared pool, its capacity decides; what single gNBs could send or receive does not."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam import agents
from kvroam.envs.handover.config import HandoverConfig
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import KV, SPLIT

from ..envs.sim_bench import CALM, KV_BITS, LINK_BPS, Bench
from .test_ctho import least_worst_delays

CONFIG = HandoverConfig(**CALM)


def plans_of(city, phy, name: str, pool: float = 1.0, others: float = 1.0) -> np.ndarray:
    """Plans while cell 3 sends to cell 4, two UEs are about to leave it and one was left behind there.

    `pool` and `others` scale the capacities of column 0 and of all others.
    """
    bench = Bench(city, phy, ues=5, backhaul=dict(topology="pool"))
    for u in range(5):
        bench.put(u, radio=3, context=2000.0 + 500.0 * u)
    for u, medium in ((0, KV), (1, SPLIT)):
        bench.plan(u, target=4, medium=medium)
    bench.step()
    now = float(bench.sim.state.world["time_s"][0])
    bench.hand_over(2, 4, now + 0.03)
    bench.hand_over(3, 5, now + 0.06)
    bench.put(4, radio=5, server=3)
    for field in ("egress_bps", "ingress_bps"):
        bench.cell[field][1:] *= others
    bench.cell["egress_bps"][0] *= pool
    view, policy = NetworkView(bench.sim, 3), agents.make(name, CONFIG)
    policy.reset(view)
    return policy.act(view)


# Those that know the future foresee a world of their own, not one that is put together by hand.
@pytest.mark.parametrize("name", [name for name in agents.names() if name not in ("foresight", "hindsight")])
def test_the_links_of_single_cells_change_nothing(city, phy, name):
    plans = plans_of(city, phy, name)
    for scale in (1e-3, 1e3):
        assert np.array_equal(plans_of(city, phy, name, others=scale), plans)


@pytest.mark.parametrize("name", ["ctho", "ctho-per-user", "jmsra", "two-choices:medium=kv", "greedy-planner"])
def test_the_pool_changes_much(city, phy, name):
    assert not np.array_equal(plans_of(city, phy, name, pool=30.0), plans_of(city, phy, name, pool=0.03))


def test_ctho_splits_by_the_rate_of_the_pool(city, phy):
    bench = Bench(city, phy, backhaul=dict(topology="pool"))
    bench.put(0, radio=3, context=6000.0)
    bench.hand_over(0, 4, 0.05)
    bench.cell["egress_bps"][3] = LINK_BPS / 7.0
    plan = agents.make("ctho", CONFIG).act(NetworkView(bench.sim, 3))[0, 0]
    every = least_worst_delays([0.05], [6000.0], dict(
        backhaul_tokens_per_s=LINK_BPS / KV_BITS, prefill_s_per_token=1e-4, prefill_overhead_s=2e-3, cycle_s=0.01))
    assert plan["medium"] == SPLIT and plan["prefix"] == int(every.argmin())
