"""Local breakout and forwarding: who is out of reach is interrupted; hops delay a stream once and load the backhaul."""

from __future__ import annotations

import pytest

from kvroam.envs.handover.world.state import DETOUR, IDLE, INTERRUPTED, KV, TOKEN
from kvroam.envs.sim.params import BackhaulConfig

from .sim_bench import FIRST_TOKEN_S, KV_BITS, RADIO_S, REESTABLISHMENT_S, Bench

CLOSE = dict(rel=1e-6)
LOCAL = dict(forwarding="none")
PREFILL_S = 0.102  # of 1000 tokens
EACH = KV_BITS / 8 * 8.0 * 10**6  # bytes that one session reserves


def test_by_default_nothing_is_forwarded():
    assert BackhaulConfig().hops == 0 and BackhaulConfig(forwarding=3).hops == 3
    with pytest.raises(ValueError, match=r"forwarding is -1: give a number of hops, or none"):
        BackhaulConfig(forwarding=-1)


def test_without_forwarding_a_plan_to_stay_behind_rebuilds_the_cache(city, phy):
    bench = Bench(city, phy, backhaul=LOCAL)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 1, 0.0)
    event = bench.until_resumed()
    assert (event["medium"], event["source"], event["target"], event["prefix"]) == (TOKEN, 0, 1, 1000.0)
    assert event["interruption_s"] == pytest.approx(PREFILL_S + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("forwarded_bits") == bench.total("detour_s") == 0.0


def test_a_link_that_fails_and_comes_back_elsewhere_moves_the_session_too(city, phy):
    bench = Bench(city, phy, backhaul=LOCAL)
    bench.plan(0, medium=DETOUR)
    bench.fail(0, 0.0, 1)
    event = bench.until_resumed()
    assert (event["medium"], event["target"], bool(event["rlf"])) == (TOKEN, 1, True)
    assert event["interruption_s"] == pytest.approx(REESTABLISHMENT_S + PREFILL_S + FIRST_TOKEN_S, **CLOSE)


def crowded(city, phy) -> Bench:
    """Servers with room for one session; UE 0 streams at cell 0, UE 1 is at cell 1."""
    bench = Bench(city, phy, ues=2, backhaul=LOCAL, compute=dict(kv_memory_bytes=1.5 * EACH))
    bench.put(0, streaming=True)
    bench.put(1, radio=1)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.05)
    return bench


def test_without_room_a_session_is_stranded_until_there_is_some(city, phy):
    bench = crowded(city, phy)
    bench.step(5)
    me = bench.ue[0]
    assert (me["phase"], me["server"], me["radio"], bool(me["stranded"])) == (INTERRUPTED, 0, 1, True)
    assert bench.total("refused", 0) == 1 and bench.total("bits_sent") == 0.0
    assert bench.total("interruption_s", 0) == pytest.approx(0.45, **CLOSE)
    assert bench.total("unavoidable_s", 0) == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    bench.plan(1, medium=TOKEN)
    bench.plan(0, medium=TOKEN)
    bench.hand_over(1, 2, 0.5)
    # UE 1 is gone at 0.5 + 0.142 s; UE 0 begins with the next interval.
    event = bench.until_resumed(0)
    rebuild = 1e-4 * event["context"] + 2e-3
    assert event["time_s"] == pytest.approx(0.7 + rebuild + FIRST_TOKEN_S, **CLOSE)
    assert event["interruption_s"] == pytest.approx(event["felt_s"], **CLOSE)
    assert not me["stranded"] and (me["server"], me["phase"]) == (1, IDLE)


@pytest.mark.parametrize("how", ["handover", "failure"])
def test_a_stranded_session_goes_on_when_its_user_comes_back(city, phy, how):
    bench = crowded(city, phy)
    bench.step(2)
    if how == "handover":
        bench.hand_over(0, 0, 0.21)
        back = 0.21 + RADIO_S
    else:
        bench.fail(0, 0.21, 0)
        back = 0.21 + REESTABLISHMENT_S
    event = bench.until_resumed(0)
    assert event["time_s"] == pytest.approx(back + FIRST_TOKEN_S, **CLOSE)
    assert (event["medium"], event["source"], event["target"]) == (DETOUR, 0, 0)
    assert not bench.ue[0]["stranded"] and bench.total("bits_sent") == 0.0


@pytest.mark.parametrize(("cell", "reached"), [(1, True), (3, True), (4, True), (2, False), (6, False)])
def test_tokens_are_forwarded_over_so_many_hops_and_no_more(city, phy, cell, reached):
    bench = Bench(city, phy, backhaul=dict(forwarding=1))
    assert bench.sim.tables.hops[0, cell] == (1 if reached else 2)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, cell, 0.0)
    event = bench.until_resumed()
    assert event["target"] == (0 if reached else cell) and event["medium"] == (DETOUR if reached else TOKEN)


def test_a_longer_way_delays_a_stream_once_and_a_shorter_one_does_not(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.plan(0, medium=DETOUR)
    for at_s, cell, detour_s in ((0.0, 1, 0.02), (0.3, 2, 0.04), (0.6, 1, 0.04), (0.9, 2, 0.06), (1.2, 0, 0.06)):
        bench.hand_over(0, cell, at_s)
        bench.step(3)
        assert bench.total("detour_s") == pytest.approx(detour_s, **CLOSE)
    assert bench.ue[0]["server"] == 0
    # Every 0.3 s but 90 ms tokens come, over 1, 2, 1 and 2 hops.
    assert bench.total("forwarded_bits") == pytest.approx(4096 * 25 * 0.21 * (1 + 2 + 1 + 2), **CLOSE)


def test_a_failure_in_the_same_cell_makes_the_way_no_longer(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 1, 0.0)
    bench.step(3)
    bench.fail(0, 0.3, 1)
    bench.step(6)
    assert len(bench.resumed()) == 2
    assert bench.total("detour_s") == pytest.approx(0.02, **CLOSE)


def test_the_way_counts_in_the_time_to_the_first_token_of_a_handover(city, phy):
    bench = Bench(city, phy, radio=dict(max_air_s=0.0))
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 2, 0.0)
    event = bench.until_resumed()
    assert event["ttft_s"] - event["interruption_s"] == pytest.approx(2 * 0.02, **CLOSE)
