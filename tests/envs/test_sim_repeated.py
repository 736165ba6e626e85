"""Handovers and session ends that fall into a migration: nothing is lost, everything is counted."""

from __future__ import annotations

import pytest

from kvroam.envs.handover.world.state import CONTINUE, DETOUR, IDLE, INTERRUPTED, KV, PREPARING, SPLIT, TOKEN

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, Bench, restore_s

CLOSE = dict(rel=1e-6)


def test_a_second_handover_during_the_interruption_starts_again_and_the_interruption_goes_on(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.02)
    bench.step(2)
    bench.hand_over(0, 2, 0.25)
    event = bench.until_resumed()
    bits = 1000 * KV_BITS
    assert event["interruption_s"] == pytest.approx(
        0.25 - 0.02 + bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)
    assert (event["source"], event["target"]) == (0, 2)
    assert bench.total("wasted_bits") == pytest.approx((0.25 - 0.02) * LINK_BPS, **CLOSE)
    assert bench.total("bits_sent") == pytest.approx(bits + (0.25 - 0.02) * LINK_BPS, **CLOSE)
    assert bench.total("handovers") == 2 and bench.total("pingpongs") == 0


def test_going_back_to_the_source_while_interrupted_resumes_there(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.02)
    bench.step(1)
    bench.hand_over(0, 0, 0.15)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(0.13 + RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert (event["source"], event["target"], event["medium"]) == (0, 0, DETOUR)
    assert bench.total("wasted_bits") == pytest.approx(0.13 * LINK_BPS, **CLOSE)
    assert bench.total("pingpongs") == 1
    bench.step(10)
    assert len(bench.resumed()) == 1


def test_a_second_handover_within_the_radio_interruption_starts_it_anew(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 1, 0.09)
    bench.step()
    bench.hand_over(0, 2, 0.11)
    assert bench.until_resumed()["interruption_s"] == pytest.approx(0.02 + RADIO_S + FIRST_TOKEN_S, **CLOSE)


def test_a_ping_pong_counts_within_its_window_only(city, phy):
    bench = Bench(city, phy, radio=dict(pingpong_window_s=1.0))
    bench.hand_over(0, 1, 0.0)
    bench.step(9)
    bench.hand_over(0, 0, 0.95)  # 0.95 s after it left
    bench.step(12)
    assert bench.total("pingpongs") == 1
    bench.hand_over(0, 1, 2.15)  # 1.2 s
    bench.step()
    assert bench.total("pingpongs") == 1 and bench.total("handovers") == 3


def test_a_handover_while_the_session_is_being_fetched_home(city, phy):
    bench = Bench(city, phy)
    bench.put(0, radio=3, server=0)
    bench.plan(0, target=3, medium=KV)
    bench.step(2)
    bench.plan(0, target=CONTINUE, medium=KV)
    bench.hand_over(0, 5, 0.2)
    event = bench.until_resumed()
    bits = 1000 * KV_BITS
    assert (event["source"], event["target"], event["handed_over"]) == (0, 5, True)
    assert event["interruption_s"] == pytest.approx(bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("wasted_bits") == pytest.approx(0.2 * LINK_BPS, **CLOSE)


@pytest.mark.parametrize("interruption_s", [0.0, 0.05])
def test_the_event_says_whether_the_radio_changed_cell(city, phy, interruption_s):
    bench = Bench(city, phy, radio=dict(interruption_s=interruption_s))
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.05)
    assert bench.until_resumed()["handed_over"]
    bench.put(0, radio=1, server=0)
    bench.plan(0, target=1)
    assert not bench.until_resumed()["handed_over"]


def ended(bench: Bench, u: int = 0) -> None:
    """The script of session `u` ends in 20 ms, when its user has stopped thinking."""
    bench.ue[u]["end"], bench.ue[u]["pause_left_s"] = bench.ue[u]["context"], 0.02


def test_a_session_that_ends_is_replaced_at_the_cell_of_its_user(city, phy):
    bench = Bench(city, phy)
    bench.put(0, radio=3, server=0, context=4000.0)
    bench.ue[0]["healthy"] = False
    ended(bench)
    bench.step()
    (event,) = bench.opened()
    me = bench.ue[0]
    assert event["time_s"] == pytest.approx(0.02, **CLOSE)
    assert (me["server"], me["target"], me["radio"], me["session"], me["phase"]) == (3, 3, 3, 1, IDLE)
    assert me["healthy"] and me["streaming"]
    assert event["context"] <= 576 * 8
    assert me["context"] == pytest.approx(event["context"] + 25 * 0.08, **CLOSE)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_a_session_that_ends_while_it_is_prepared_makes_the_preparation_waste(city, phy, weight):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=SPLIT, prefix=500, weight=weight)
    bench.step()
    assert bench.ue[0]["phase"] == PREPARING
    bench.plan(0, target=CONTINUE)
    ended(bench)
    bench.step()
    (event,) = bench.opened()
    me = bench.ue[0]
    assert event["time_s"] == pytest.approx(0.12, **CLOSE)
    assert (me["phase"], me["server"], me["session"]) == (IDLE, 0, 1)
    assert bench.total("wasted_bits") == bench.total("bits_sent") == pytest.approx(0.12 * LINK_BPS * weight, **CLOSE)
    assert bench.total("wasted_gpu_s") == bench.total("gpu_s") == pytest.approx(0.052, **CLOSE)


def test_an_interrupted_session_is_not_replaced_before_it_has_arrived(city, phy):
    bench = Bench(city, phy, sessions=dict(think_s=0.01))
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.0)
    ended(bench)
    bench.step(3)
    assert bench.ue[0]["phase"] == INTERRUPTED and not bench.opened()
    resumed = bench.until_resumed()
    bench.step(5)
    (opened,) = bench.opened()
    assert opened["time_s"] > resumed["time_s"]
    assert resumed["context"] == 1000.0
    assert bench.total("wasted_bits") == 0.0


def test_an_interrupted_user_goes_on_thinking_and_the_answer_waits(city, phy):
    bench = Bench(city, phy)
    bench.ue[0]["pause_left_s"] = 0.1
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.05)
    event = bench.until_resumed()
    me = bench.ue[0]
    assert me["streaming"] and event["context"] == 1000.0
    assert me["context"] == pytest.approx(1000.0 + 25 * (len(bench.flows) * 0.1 - event["time_s"]), **CLOSE)


def test_a_rebuilt_cache_is_healthy_and_a_pruned_one_is_not(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV, keep=0.5)
    bench.hand_over(0, 1, 0.0)
    bench.until_resumed()
    assert not bench.ue[0]["healthy"]
    bench.plan(0, keep=1.0)
    bench.hand_over(0, 2, len(bench.flows) * 0.1)
    bench.until_resumed()
    assert not bench.ue[0]["healthy"]
    bench.plan(0, medium=TOKEN)
    bench.hand_over(0, 3, len(bench.flows) * 0.1)
    bench.until_resumed()
    assert bench.ue[0]["healthy"]


def test_a_split_does_not_heal_a_pruned_cache(city, phy):
    bench = Bench(city, phy)
    bench.ue[0]["healthy"] = False
    bench.plan(0, medium=SPLIT, prefix=600)
    bench.hand_over(0, 1, 0.0)
    bench.until_resumed()
    assert not bench.ue[0]["healthy"]


@pytest.mark.parametrize(("bits", "healthy"), [(16, True), (8, False)])
def test_pruning_does_not_touch_what_is_rebuilt_or_produced_meanwhile_but_precision_does(city, phy, bits, healthy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.plan(0, target=1, medium=TOKEN, keep=0.1, bits=bits)
    bench.step(3)
    bench.hand_over(0, 1, 0.35)
    event = bench.until_resumed()
    assert event["prefix"] == 1000.0 < event["context"]
    assert bench.ue[0]["healthy"] == healthy


def test_no_event_is_lost_when_sessions_are_very_short(city, phy):
    # 24 tokens at 10,000 token/s and 1 ms of thinking: about thirty sessions per interval and UE.
    bench = Bench(city, phy, ues=2, serving=dict(decode_tokens_per_s=1e4),
                  sessions=dict(context_tokens=(7, 7), script_tokens=10, answer_tokens=(100.0, 0.0), think_s=0.0))
    bench.sim.reset()
    for _ in range(5):
        before = bench.ue["session"].copy()
        bench.step()
        assert bench.sim.state.world["events"][0] == (bench.ue["session"] - before).sum() > 20
        assert bench.sim.state.world["events"][0] <= bench.sim.state.event.shape[1]


def test_an_answer_that_is_interrupted_keeps_its_length(city, phy):
    bench = Bench(city, phy, sessions=dict(think_s=1e6))
    bench.put(0, streaming=True)
    bench.ue[0]["answer_left"] = 30.0
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.04)
    bench.until_resumed()
    bench.step(15)
    assert bench.total("tokens") == pytest.approx(30.0, **CLOSE)
    assert not bench.ue[0]["streaming"]
