"""ctHO against linear programs, and never worse than its two ends; per user and with fewer bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from kvroam.agents.handover.ctho import CtHO, solve
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import KV, SPLIT, TOKEN

from ..envs.sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, Bench
from .test_ctho import batch_end, edf_ends, instance, least_worst_delays


def served(tau, send, rate, delay):
    """The most tokens that any allocation r(t) of the link delivers within `delay` of the handovers.

    Between two instants at which somebody starts or must be done, only the amount that each gets matters: a linear
    program. Its solution and its dual prices are checked here, whatever the solver says about itself.

    Returns:
        (what a feasible allocation delivers, a bound that none exceeds) [tokens].
    """
    points = np.unique(np.concatenate([tau, tau + delay]))
    lengths, count = np.diff(points), len(send)
    if not len(lengths):
        return 0.0, 0.0
    allowed = ((points[:-1][None] >= tau[:, None] - 1e-12) & (points[1:][None] <= tau[:, None] + delay + 1e-12)).ravel()
    each = np.kron(np.eye(count), np.ones(len(lengths)))  # what a user gets in all intervals
    link = np.kron(np.ones(count), np.eye(len(lengths)))  # what an interval gives to all users
    rows, limits = np.vstack([each, link]) * allowed, np.concatenate([send, rate * lengths])
    found = linprog(-1.0 * allowed, A_ub=rows, b_ub=limits, bounds=(0, None), method="highs")
    given = np.maximum(found.x, 0.0) * allowed
    given = given / max(1.0, float((rows @ given / np.maximum(limits, 1e-300)).max()))
    # Weak duality: prices >= 0 under which no entry of the allocation is worth more than it costs bound every one.
    prices = np.maximum(-found.ineqlin.marginals, 0.0)
    dear = (rows.T @ prices)[allowed].min()
    bound = float(prices @ limits) / float(dear) if dear > 0.0 else np.inf
    return float(given.sum()), min(bound, float(send.sum()))


def transfers_fit(tau, send, rate, delay):
    """Whether some allocation of the link ends every transfer within `delay` of its handover."""
    tau, send = np.asarray(tau, float)[send > 0], np.asarray(send, float)[send > 0]
    if not len(send):
        return True
    least, most = served(tau, send, rate, delay)
    total = float(send.sum())
    assert most - least <= 1e-6 * total, "the reference program was not solved"
    return least >= total * (1.0 - 1e-6)


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


def test_online_what_the_link_still_owes_to_others_comes_first(city, phy):
    # UE 2 is sending 800 tokens from cell 0 to cell 1 when UEs 0 and 1 are about to follow.
    contexts, in_s = [5000.0, 4000.0], [0.02, 0.05]
    bench = Bench(city, phy, ues=3)
    bench.put(2, context=800.0)
    bench.plan(2, target=1, medium=KV)
    bench.step()
    now = bench.sim.state.world["time_s"][0]
    for u in range(2):
        bench.put(u, context=contexts[u])
        bench.hand_over(u, 1, now + in_s[u])
    owed_s = float(bench.ue[2]["bits_left"]) / LINK_BPS
    plans = CtHO().act(NetworkView(bench.sim, 3))[0]
    assert owed_s > 0.2 and plans["medium"][0] == SPLIT
    world = dict(prefill_s_per_token=1e-4, prefill_overhead_s=2e-3, cycle_s=0.01)

    def worst(prefix, free_s):
        ends = edf_ends(in_s, np.maximum(np.array(contexts) - prefix, 0.0), LINK_BPS / KV_BITS, in_s, free_s)
        return max(max(end, batch_end(in_s, prefix, world)) - tau for end, tau in zip(ends, in_s, strict=True))

    chosen = int(plans["prefix"][0])
    best = min(range(1, 5001), key=lambda prefix: worst(prefix, owed_s))
    assert worst(chosen, owed_s) == pytest.approx(worst(best, owed_s), rel=1e-3)
    # On a link that owes nothing, another prefix would be the best by far.
    idle = min(range(1, 5001), key=lambda prefix: worst(prefix, -math.inf))
    assert worst(idle, owed_s) > 1.2 * worst(chosen, owed_s)


@pytest.mark.parametrize("at_s", [(0.01, 0.05, 0.09), (0.09, 0.01, 0.05), (0.05, 0.09, 0.01)])
def test_online_transfers_are_served_in_the_order_of_their_handovers(city, phy, at_s):
    # Prefill so slow that everything is sent: 1000 tokens take 0.459 s each, one after the other.
    bench = Bench(city, phy, ues=3, serving=dict(prefill_s_per_token=100.0, restore_bytes_per_s=1e18))
    for u, time in enumerate(at_s):
        bench.hand_over(u, 1, time)
    policy, view = CtHO(), NetworkView(bench.sim, 3)
    while len(bench.events) < 3:
        bench.plans = policy.act(view)
        bench.step()
        view.refresh()
    each = 1000.0 * KV_BITS / LINK_BPS
    for place, u in enumerate(np.argsort(at_s)):
        lasts = min(at_s) + each * (place + 1) - at_s[u] + FIRST_TOKEN_S
        assert float(bench.resumed(int(u))[0]["interruption_s"]) == pytest.approx(lasts, rel=0.01)


def test_online_a_target_is_a_group_of_its_own_and_a_busy_server_is_waited_for(city, phy):
    contexts = [6000.0, 6000.0, 6000.0]
    bench = Bench(city, phy, ues=3)
    for u, cell in enumerate((1, 1, 2)):
        bench.put(u, context=contexts[u])
        bench.hand_over(u, cell, 0.05)
    plans = CtHO().act(NetworkView(bench.sim, 3))[0]
    world = dict(backhaul_tokens_per_s=LINK_BPS / KV_BITS, prefill_s_per_token=1e-4, prefill_overhead_s=2e-3,
                 cycle_s=0.01)
    for group in ([0, 1], [2]):
        every = least_worst_delays([0.05] * len(group), contexts[:len(group)], world)
        assert {int(p) for p in plans["prefix"][group]} == {int(every.argmin())}
    # The target's server is busy for 0.7 s: less is rebuilt there.
    bench.cell[2]["busy_until"] = 0.7
    busy = int(CtHO().act(NetworkView(bench.sim, 3))[0]["prefix"][2])
    assert busy == int(least_worst_delays([0.05], [6000.0], world, server_free=0.7).argmin()) < plans["prefix"][2]
