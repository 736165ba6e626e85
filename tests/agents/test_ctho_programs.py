"""ctHO against linear programs, and never worse than its two ends; per user and with fewer bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from kvroam.agents.handover.ctho import CtHO, solve
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import KV, SPLIT, TOKEN

from ..envs.sim_bench import KV_BITS, LINK_BPS, Bench
from .test_ctho import instance


def transfers_fit(tau, send, rate, delay):
    """Whether some allocation r(t) ends every transfer within `delay` of its handover: a linear program.

    Between two instants at which somebody starts or must be done, only the amount that each gets matters.
    """
    tau, send = np.asarray(tau, float)[send > 0], np.asarray(send, float)[send > 0]
    if not len(send):
        return True
    points = np.unique(np.concatenate([tau, tau + delay]))
    lengths, count = np.diff(points), len(send)
    if not len(lengths):
        return False
    allowed = (points[:-1][None] >= tau[:, None] - 1e-12) & (points[1:][None] <= tau[:, None] + delay + 1e-12)
    each = np.kron(np.eye(count), np.ones(len(lengths)))  # what a user gets in all intervals
    link = np.kron(np.ones(count), np.eye(len(lengths)))  # what an interval gives to all users
    found = linprog(np.zeros(count * len(lengths)), A_ub=link, b_ub=rate * lengths, A_eq=each, b_eq=send,
                    bounds=[(0, None if a else 0) for a in allowed.ravel()], method="highs")
    return bool(found.success)


@pytest.mark.parametrize("block", range(4))
def test_no_allocation_of_the_link_beats_the_solution(block):
    checked = 0
    for seed in range(50 * block, 50 * (block + 1)):
        tau, context, world, _ = instance(seed)
        rate = world["backhaul_tokens_per_s"]
        found = solve(tau, context, **world)
        send = np.maximum(context - found.prefix_tokens, 0)
        worst = float(np.max(found.user_delay_s[send > 0], initial=0.0))
        if rate == 0.0 or worst == 0.0:
            continue
        checked += 1
        assert transfers_fit(tau, send, rate, found.delay_s * (1 + 1e-6) + 1e-9), seed
        # Where the link alone decides, nothing shorter is feasible.
        alone = solve(tau, send, **(world | dict(prefill_overhead_s=1e9)))
        assert alone.prefix_tokens == 0
        assert not transfers_fit(tau, send, rate, alone.delay_s * (1 - 1e-4) - 1e-9), seed
        assert transfers_fit(tau, send, rate, alone.delay_s * (1 + 1e-6) + 1e-9), seed
    assert checked > 20


def test_it_is_never_worse_than_either_end_on_a_thousand_instances():
    better = 0
    for seed in range(2000, 3000):
        tau, context, world, _ = instance(seed)
        found = solve(tau, context, **world).delay_s
        ends = [solve(tau, context, **(world | change)).delay_s
                for change in (dict(prefill_overhead_s=1e12), dict(backhaul_tokens_per_s=0.0))]
        assert found <= min(ends) + 1e-9, seed
        better += found < 0.99 * min(ends)
    assert better > 300


def plans_of(city, phy, policy, contexts):
    """Plans when all UEs are about to leave cell 0 for cell 1."""
    bench = Bench(city, phy, ues=len(contexts))
    for u, context in enumerate(contexts):
        bench.put(u, context=context)
        bench.hand_over(u, 1, 0.05)
    return policy.act(NetworkView(bench.sim, 3))[0]


def test_per_user_everybody_solves_alone(city, phy):
    contexts = [5000.0, 5500.0, 6000.0]
    plans = plans_of(city, phy, CtHO(per_user=True), contexts)
    alone = [int(plans_of(city, phy, CtHO(), [context])["prefix"][0]) for context in contexts]
    assert plans["prefix"].tolist() == alone and (plans["medium"] == SPLIT).all()
    assert len(set(plans["weight"])) == 1
    # Alone on the link, a transfer looks faster than it will be beside two others.
    together = plans_of(city, phy, CtHO(), contexts)
    assert together["prefix"].max() > max(alone) and len(set(together["weight"])) == 3


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_fewer_bits_shift_the_optimum_towards_the_link(city, phy, bits):
    plan = plans_of(city, phy, CtHO(bits=bits), [6000.0])[0]
    per_token = {16: KV_BITS, 8: 28 * 4 * (2 * 128 * 8 + 160.0), 4: 28 * 4 * (2 * 128 * 4 + 160.0)}[bits]
    found = solve([0.05], [6000], backhaul_tokens_per_s=LINK_BPS / per_token, prefill_s_per_token=1e-4,
                  prefill_overhead_s=2e-3, cycle_s=0.01)
    assert (plan["prefix"], plan["bits"]) == (found.prefix_tokens, bits)
    assert plan["medium"] in (KV, SPLIT, TOKEN) and not math.isnan(plan["weight"])


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="bits is 3"):
        CtHO(bits=3)
