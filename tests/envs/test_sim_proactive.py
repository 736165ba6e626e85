"""Preparation before the handover (as Pallas does), its residuals, and what happens when it was for nothing."""

from __future__ import annotations

import pytest

from kvroam.envs.handover.world.state import CANCEL, CONTINUE, DETOUR, IDLE, INTERRUPTED, KV, PREPARING, SPLIT, TOKEN

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, Bench, restore_s

CLOSE = dict(rel=1e-6)
DECODE = 25.0
HANDOVER_S = 1.03
STEP_S = 0.1


def prepare_then_hand_over(bench: Bench, target: int = 1, handover_s: float = HANDOVER_S, **plan) -> None:
    """Session 0 prepares `target` from time 0 and its UE changes to it at `handover_s`."""
    bench.plan(0, target=target, **plan)
    bench.step(int(handover_s / STEP_S + 1e-9))
    bench.hand_over(0, target, handover_s)


@pytest.mark.parametrize("context", [200.0, 1000.0, 6000.0])
def test_a_preparation_in_time_leaves_only_the_last_tokens(city, phy, context):
    # Pallas, T_SIT = T_0 + max(0, T_hist - T_w, T_res): the prefix was rebuilt within T_w, the suffix streamed along.
    bench = Bench(city, phy)
    bench.put(0, context=context, streaming=True)
    prepare_then_hand_over(bench, medium=TOKEN)
    event = bench.until_resumed()
    last = DECODE * (HANDOVER_S - 1.0) * KV_BITS  # tokens since the last interval began, shipped at the handover
    assert last / LINK_BPS < RADIO_S
    assert event["interruption_s"] == pytest.approx(RADIO_S + restore_s(last) + FIRST_TOKEN_S, **CLOSE)
    assert event["snapshot"] == event["prefix"] == context
    assert event["context"] == pytest.approx(context + DECODE * HANDOVER_S, **CLOSE)
    assert bench.total("bits_sent") == pytest.approx(DECODE * HANDOVER_S * KV_BITS, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(1e-4 * context + 2e-3, **CLOSE)
    assert bench.total("wasted_bits") == bench.total("wasted_gpu_s") == 0.0


def test_a_prefill_that_is_not_done_at_the_handover_delays_it_by_the_rest(city, phy):
    # T_hist - T_w with T_hist = 1.602 s and T_w = 1.03 s.
    bench = Bench(city, phy)
    bench.put(0, context=16000.0, streaming=True)
    prepare_then_hand_over(bench, medium=TOKEN)
    last = DECODE * (HANDOVER_S - 1.0) * KV_BITS
    assert bench.until_resumed()["interruption_s"] == pytest.approx(
        1.602 - HANDOVER_S + restore_s(last) + FIRST_TOKEN_S, **CLOSE)


def test_a_suffix_that_grows_faster_than_the_link_leaves_its_backlog(city, phy):
    # T_res = S_inc / B - T_w, but for the first interval, after which the suffix begins to be shipped.
    capacity = 0.8 * DECODE * KV_BITS
    bench = Bench(city, phy, backhaul=dict(capacity_bps=capacity))
    bench.put(0, context=500.0, streaming=True)
    prepare_then_hand_over(bench, medium=TOKEN)
    backlog = DECODE * HANDOVER_S * KV_BITS - capacity * (HANDOVER_S - STEP_S)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(
        backlog / capacity + restore_s(backlog) + FIRST_TOKEN_S, **CLOSE)
    pallas = DECODE * HANDOVER_S * KV_BITS / capacity - HANDOVER_S
    assert pallas < event["interruption_s"] <= pallas + STEP_S + restore_s(backlog) + FIRST_TOKEN_S + 1e-9


def test_a_cache_sent_ahead_leaves_what_the_link_did_not_carry(city, phy):
    bench = Bench(city, phy)
    bench.put(0, context=3000.0, streaming=True)
    prepare_then_hand_over(bench, medium=KV)
    late = (3000 + DECODE * HANDOVER_S) * KV_BITS - LINK_BPS * HANDOVER_S
    assert bench.until_resumed()["interruption_s"] == pytest.approx(
        late / LINK_BPS + restore_s(late) + FIRST_TOKEN_S, **CLOSE)


def test_the_growing_suffix_is_never_pruned_but_has_the_precision_of_the_plan(city, phy):
    bench = Bench(city, phy)
    bench.put(0, context=1000.0, streaming=True)
    prepare_then_hand_over(bench, medium=KV, keep=0.1, bits=8)
    event = bench.until_resumed()
    per_token = 28 * 4 * (2 * 128 * 8 + 32 + 128)
    assert bench.total("bits_sent") == pytest.approx((100 + DECODE * HANDOVER_S) * per_token, **CLOSE)
    assert (event["keep"], event["bits"]) == (0.1, 8)


def test_the_source_decodes_during_the_preparation_and_stops_at_the_handover(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    prepare_then_hand_over(bench, medium=KV)
    event = bench.until_resumed()
    assert bench.total("tokens") == pytest.approx(
        DECODE * (HANDOVER_S + len(bench.flows) * STEP_S - event["time_s"]), **CLOSE)
    assert bench.total("interruption_s") == pytest.approx(event["interruption_s"], **CLOSE)


@pytest.mark.parametrize("fallback", [TOKEN, KV, SPLIT])
def test_a_wrong_target_is_wasted_and_the_plan_of_the_step_is_the_fallback(city, phy, fallback):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=SPLIT, prefix=300)
    bench.step(2)
    assert bench.ue[0]["phase"] == PREPARING
    sent, computed = bench.total("bits_sent"), bench.total("gpu_s")
    assert sent == pytest.approx(0.2 * LINK_BPS, **CLOSE)
    assert computed == pytest.approx(0.032, **CLOSE)
    bench.plan(0, target=CONTINUE, medium=fallback, prefix=600)
    bench.hand_over(0, 2, 0.2)
    event = bench.until_resumed()
    rebuilt = {TOKEN: 1000, KV: 0, SPLIT: 600}[fallback]
    prefill, bits = (1e-4 * rebuilt + 2e-3 if rebuilt else 0.0), (1000 - rebuilt) * KV_BITS
    assert event["interruption_s"] == pytest.approx(
        max(prefill, bits / LINK_BPS) + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)
    assert (event["target"], event["medium"], event["prefix"]) == (2, fallback, rebuilt)
    assert bench.total("wasted_bits") == pytest.approx(sent, **CLOSE)
    assert bench.total("wasted_gpu_s") == pytest.approx(computed, **CLOSE)


def test_a_wrong_target_with_a_detour_leaves_the_session_at_the_source(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=KV)
    bench.step()
    bench.plan(0, target=CONTINUE, medium=DETOUR)
    bench.hand_over(0, 2, 0.15)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert (bench.ue[0]["server"], bench.ue[0]["radio"]) == (0, 2)
    assert bench.total("wasted_bits") == pytest.approx(0.15 * LINK_BPS, **CLOSE)


def test_cancelling_counts_the_waste_and_frees_the_link(city, phy):
    bench = Bench(city, phy, ues=2)
    bench.plan(0, target=1, medium=KV)
    bench.plan(1, medium=KV)
    bench.step()
    bench.plan(0, target=CANCEL)
    bench.hand_over(1, 1, 0.1)
    bench.step(20)
    assert bench.ue[0]["phase"] == IDLE and not bench.resumed(0)
    assert bench.total("wasted_bits", 0) == pytest.approx(0.1 * LINK_BPS, **CLOSE)
    bits = 1000 * KV_BITS
    assert bench.resumed(1)[0]["interruption_s"] == pytest.approx(
        bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)


def test_a_cancelled_prefill_still_occupies_the_server_until_its_batch_ends(city, phy):
    bench = Bench(city, phy, ues=2)
    bench.put(0, context=9980.0)
    bench.plan(0, target=1, medium=TOKEN)
    bench.plan(1, medium=TOKEN)
    bench.step()
    bench.plan(0, target=CANCEL)
    bench.hand_over(1, 1, 0.1)
    bench.step(20)
    # The batch of UE 0 ends at 1.0 s; the prefill of UE 1 (0.102 s) follows on the next cycle.
    assert bench.resumed(1)[0]["interruption_s"] == pytest.approx(0.9 + 0.102 + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("wasted_gpu_s", 0) == pytest.approx(1.0, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(1.102, **CLOSE)


def test_another_target_replaces_the_preparation(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=KV)
    bench.step()
    bench.plan(0, target=2)
    bench.step()
    assert bench.ue[0]["target"] == 2
    assert bench.total("wasted_bits") == pytest.approx(0.1 * LINK_BPS, **CLOSE)


def test_the_same_target_again_changes_the_weight_and_nothing_else(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=KV, keep=0.9, bits=16)
    bench.step()
    bench.plan(0, target=1, medium=TOKEN, keep=0.1, bits=4, weight=0.0)
    bench.step()
    me = bench.ue[0]
    assert (me["medium"], me["keep"], me["bits"], me["weight"]) == (KV, 0.9, 16, 0.0)
    assert bench.total("bits_sent") == pytest.approx(0.1 * LINK_BPS, **CLOSE)
    assert bench.total("wasted_bits") == 0.0


def test_plans_for_an_interrupted_session_change_the_weight_only(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.0)
    bench.step()
    for target in (CANCEL, 0, 5):
        bench.plan(0, target=target, medium=TOKEN, keep=0.2, bits=4, weight=0.5)
        bench.step()
        me = bench.ue[0]
        assert (me["phase"], me["target"], me["medium"], me["keep"], me["bits"]) == (INTERRUPTED, 1, KV, 1.0, 16)
        assert me["weight"] == 0.5
    bench.plan(0, target=CONTINUE)
    bits = 1000 * KV_BITS
    assert bench.until_resumed()["interruption_s"] == pytest.approx(
        bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("wasted_bits") == 0.0


@pytest.mark.parametrize("plan", [dict(target=0, medium=KV), dict(target=3, medium=DETOUR)])
def test_no_preparation_for_the_own_server_or_by_detour(city, phy, plan):
    bench = Bench(city, phy)
    bench.plan(0, **plan)
    bench.step(3)
    assert bench.ue[0]["phase"] == IDLE
    assert bench.total("bits_sent") == bench.total("gpu_s") == 0.0


def test_a_session_left_behind_is_fetched_home_with_a_short_interruption(city, phy):
    bench = Bench(city, phy)
    bench.put(0, radio=3, server=0, streaming=True)
    bench.plan(0, target=3, medium=KV)
    event = bench.until_resumed()
    # The cache arrives within an interval; the tokens produced in it follow. Streaming stops only for those.
    bits = 1000 * KV_BITS
    caught_up_s, behind = 0.0, bits
    while True:  # what the link still has at each interval's end, plus the tokens that were produced meanwhile
        ends = caught_up_s + behind / LINK_BPS
        boundary = round(caught_up_s / STEP_S + 1) * STEP_S
        if ends < boundary:
            break
        behind += DECODE * STEP_S * KV_BITS - LINK_BPS * STEP_S
        caught_up_s = boundary
    last = DECODE * (ends - caught_up_s) * KV_BITS
    pause_s = last / LINK_BPS + restore_s(last)
    assert event["interruption_s"] == pytest.approx(pause_s, **CLOSE)
    assert event["felt_s"] == pytest.approx(max(0.0, pause_s - FIRST_TOKEN_S), **CLOSE)
    assert (event["source"], event["target"], event["handed_over"]) == (0, 3, False)
    assert bench.ue[0]["server"] == 3
    assert bench.total("handovers") == 0


def test_tokens_take_the_detour_until_the_session_has_come_home(city, phy):
    bench = Bench(city, phy)
    bench.put(0, radio=3, server=0, context=5000.0, streaming=True)
    bench.plan(0, target=3, medium=KV)
    bench.step(10)
    assert bench.ue[0]["phase"] == PREPARING
    hops = bench.sim.tables.hops[0, 3]
    assert bench.total("detour_s") == pytest.approx(0.02 * hops, **CLOSE)  # once, whatever the number of tokens
    assert bench.total("forwarded_bits") == pytest.approx(4096.0 * hops * bench.total("tokens"), **CLOSE)
    bench.until_resumed()
    before = bench.total("forwarded_bits")
    bench.step(10)
    assert bench.total("forwarded_bits") == before and bench.total("detour_s") == pytest.approx(0.02 * hops, **CLOSE)
