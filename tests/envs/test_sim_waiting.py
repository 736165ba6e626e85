"""When time counts against the operator: a user waits, first tokens are late, tokens are slow, the link is out."""

from __future__ import annotations

import pytest

from kvroam.envs.handover.world.state import KV, TOKEN

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, REESTABLISHMENT_S, Bench, restore_s

CLOSE = dict(rel=1e-6)
PROMPT = 300.0


def asking(city, phy, at_s: float, **changes) -> Bench:
    """UE 0 thinks until `at_s`; then it asks."""
    changes.setdefault("sessions", dict(prompt_tokens=(PROMPT, 0.0), ttft_objective_s=0.5))
    bench = Bench(city, phy, ues=2, **changes)
    bench.ue[0]["pause_left_s"] = at_s
    return bench


def test_an_interruption_that_nobody_waits_through_costs_nothing(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.0)
    event = bench.until_resumed()
    assert event["interruption_s"] > 0.4 and event["felt_s"] == 0.0
    assert bench.total("interruption_s") == bench.total("unavoidable_s") == 0.0


@pytest.mark.parametrize("at_s", [0.02, 0.2, 0.45])
def test_a_user_who_asks_during_an_interruption_waits_from_then_on(city, phy, at_s):
    bench = asking(city, phy, at_s)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.0)
    event = bench.until_resumed()
    bits = 1000 * KV_BITS
    end = bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S
    assert event["interruption_s"] == pytest.approx(end, **CLOSE)
    assert event["felt_s"] == pytest.approx(end - at_s, **CLOSE)
    assert bench.total("interruption_s", 0) == pytest.approx(end - at_s, **CLOSE)
    # The radio, and the first token after it.
    assert bench.total("unavoidable_s", 0) == pytest.approx(max(0.0, RADIO_S + FIRST_TOKEN_S - at_s), **CLOSE)


@pytest.mark.parametrize("context", [40.0, 1000.0])
def test_nobody_can_avoid_the_radio_and_the_first_token_after_it(city, phy, context):
    bench = Bench(city, phy)
    bench.put(0, context=context, streaming=True)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.02)
    event = bench.until_resumed()
    assert bench.total("interruption_s") == pytest.approx(event["interruption_s"], **CLOSE)
    assert bench.total("unavoidable_s") == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)


def test_nor_a_failure_of_the_link(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.fail(0, 0.05, 0)
    event = bench.until_resumed()
    assert event["felt_s"] == pytest.approx(REESTABLISHMENT_S + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("unavoidable_s") == bench.total("interruption_s") == pytest.approx(event["felt_s"], **CLOSE)
    # Out of service from 0.05 to 0.25 s; it is looked at after every interval.
    assert bench.total("outage_s") == pytest.approx(0.2, **CLOSE)


def test_a_first_token_is_late_beyond_its_objective_only(city, phy):
    bench = asking(city, phy, 0.005)
    bench.put(1, radio=3, context=9980.0)
    bench.plan(1, medium=TOKEN)
    bench.hand_over(1, 0, 0.0)
    bench.step(15)
    # The batch of the other one ends at 1.0 s, and the prompt takes 32 ms.
    assert bench.total("late_s", 0) == pytest.approx(1.032 - 0.505, **CLOSE)
    assert bench.total("late_s", 1) == bench.total("interruption_s", 0) == 0.0


def test_a_first_token_in_time_is_not_late(city, phy):
    bench = asking(city, phy, 0.005)
    bench.step(6)
    assert bench.total("prompt_tokens", 0) == PROMPT and bench.total("late_s") == 0.0


@pytest.mark.parametrize(("objective_s", "slow_s"), [(0.1, 0.0), (0.04, 0.0), (0.03, 0.25), (0.01, 0.75)])
def test_tokens_are_slow_by_what_they_take_beyond_their_objective(city, phy, objective_s, slow_s):
    bench = Bench(city, phy, sessions=dict(tpot_objective_s=objective_s))
    bench.put(0, streaming=True)
    bench.step(10)
    assert bench.total("slow_s") == pytest.approx(slow_s, abs=1e-9)
    assert bench.total("latency_s") == pytest.approx(1.0, **CLOSE)


def test_a_link_below_q_out_is_an_outage_although_nobody_is_interrupted(city, phy):
    bench = Bench(city, phy, radio=dict(q_out_db=1000.0, q_in_db=1000.0, t310_s=1e6))
    bench.step(5)
    # Whether it is out of sync is known from the first measurement on.
    assert bench.total("outage_s") == pytest.approx(0.5, **CLOSE) and bench.total("rlf") == 0
