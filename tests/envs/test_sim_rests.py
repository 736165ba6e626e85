"""Unfinished preparations at a handover, rests that follow, and caches that were pruned before."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import (
    BACKFILLED,
    CANCEL,
    CONTINUE,
    FOLLOWING,
    FORWARD,
    IDLE,
    KV,
    PREPARING,
    RESUME,
    SPLIT,
    TOKEN,
    WAIT,
)

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, Bench, restore_s

CLOSE = dict(rel=1e-6)
WHOLE = 1000 * KV_BITS  # of an idle session


def begun(city, phy, arrival: int, at_s: float = 0.1, **plan) -> Bench:
    """A session whose cache has been on its way to cell 1 since 0 s; its user changes to it at `at_s`."""
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=KV, arrival=arrival, **plan)
    bench.step(int(at_s / 0.1 + 1e-9))
    bench.plan(0, target=CONTINUE)
    bench.hand_over(0, 1, at_s)
    return bench


def ended(bench: Bench) -> list:
    """Events in which a rest has arrived."""
    return [e for e in bench.events if e["kind"] == BACKFILLED]


def test_wait_resumes_on_the_whole_first_part(city, phy):
    bench = begun(city, phy, WAIT)
    late = WHOLE - 0.1 * LINK_BPS
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(late / LINK_BPS + restore_s(late) + FIRST_TOKEN_S, **CLOSE)
    assert event["keep"] == 1.0 and not event["rest"] and bench.ue[0]["healthy"]


def test_resume_goes_on_with_what_is_there_and_the_rest_follows(city, phy):
    bench = begun(city, phy, RESUME, backfill=1.0)
    event = bench.until_resumed()
    sent = 0.1 * LINK_BPS
    assert event["interruption_s"] == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert event["keep"] == pytest.approx(sent / WHOLE, **CLOSE) and event["rest"]
    me = bench.ue[0]
    assert (me["phase"], me["server"], me["origin"]) == (FOLLOWING, 1, 0)
    assert me["held"] == pytest.approx(sent / KV_BITS, **CLOSE) and not me["healthy"]
    bench.step(6)
    (done,) = ended(bench)
    assert done["time_s"] == pytest.approx(event["time_s"] + (WHOLE - sent) / LINK_BPS, **CLOSE)
    assert me["held"] == 1000.0 and me["healthy"] and me["phase"] == IDLE
    assert bench.total("bits_sent") == pytest.approx(WHOLE, **CLOSE) and bench.total("wasted_bits") == 0.0


def test_resume_needs_a_twentieth_of_the_cache(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=KV, arrival=RESUME, backfill=1.0)
    bench.hand_over(0, 1, 0.01)
    event = bench.until_resumed()
    assert event["keep"] == pytest.approx(0.05, **CLOSE)
    late = 0.05 * WHOLE - 0.01 * LINK_BPS
    assert event["interruption_s"] == pytest.approx(
        max(RADIO_S, late / LINK_BPS) + restore_s(late) + FIRST_TOKEN_S, **CLOSE)


def test_resume_changes_nothing_when_only_a_prefill_is_missing(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=TOKEN, arrival=RESUME, backfill=1.0)
    bench.hand_over(0, 1, 0.03)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(0.102 - 0.03 + FIRST_TOKEN_S, **CLOSE)
    assert event["keep"] == 1.0 and not event["rest"]


def test_forward_serves_from_the_source_until_all_is_there_and_switches_unnoticed(city, phy):
    bench = begun(city, phy, FORWARD)
    first = bench.until_resumed()
    assert first["interruption_s"] == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert (first["source"], first["target"]) == (0, 0) and first["handed_over"]
    assert bench.ue[0]["phase"] == PREPARING
    second = bench.until_resumed()
    assert second["time_s"] == pytest.approx(WHOLE / LINK_BPS, **CLOSE)
    assert (second["source"], second["target"], bool(second["handed_over"])) == (0, 1, False)
    assert second["interruption_s"] == second["felt_s"] == 0.0  # nothing was left to send


def test_forward_waits_where_nothing_is_forwarded(city, phy):
    bench = Bench(city, phy, backhaul=dict(forwarding="none"))
    bench.plan(0, medium=KV, arrival=FORWARD)
    bench.hand_over(0, 1, 0.0)
    event = bench.until_resumed()
    assert event["target"] == 1
    assert event["interruption_s"] == pytest.approx(WHOLE / LINK_BPS + restore_s(WHOLE) + FIRST_TOKEN_S, **CLOSE)


def test_a_long_switch_behind_the_scenes_is_felt_beyond_the_pace_of_the_tokens(city, phy):
    bench = Bench(city, phy, serving=dict(attach_s_per_token=1e-4))
    bench.put(0, radio=1, server=0, context=500.0, streaming=True)
    bench.plan(0, target=1, medium=KV)
    event = bench.until_resumed()
    assert event["interruption_s"] > 500 * 1e-4 > FIRST_TOKEN_S
    assert event["felt_s"] == pytest.approx(event["interruption_s"] - FIRST_TOKEN_S, **CLOSE)
    assert bench.total("interruption_s") == pytest.approx(event["felt_s"], **CLOSE)
    assert bench.total("unavoidable_s") == 0.0


@pytest.mark.parametrize("medium", [KV, SPLIT])
def test_first_part_and_rest_are_the_whole(city, phy, medium):
    bench = Bench(city, phy)
    bench.plan(0, medium=medium, prefix=400, keep=0.25, backfill=0.5)
    bench.hand_over(0, 1, 0.0)
    event = bench.until_resumed()
    bits = (600 if medium == SPLIT else 1000) * KV_BITS
    first = 0.25 * bits
    assert event["interruption_s"] == pytest.approx(first / LINK_BPS + restore_s(first) + FIRST_TOKEN_S, **CLOSE)
    assert bench.ue[0]["held"] == pytest.approx(1000 - 0.75 * bits / KV_BITS, **CLOSE)
    bench.step(8)
    (done,) = ended(bench)
    assert done["time_s"] == pytest.approx(event["time_s"] + 0.75 * bits / LINK_BPS, **CLOSE)
    assert bench.total("bits_sent") == pytest.approx(bits, **CLOSE)
    assert bench.ue[0]["held"] == 1000.0 and bench.ue[0]["healthy"]


def test_without_backfill_the_rest_is_dropped(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV, keep=0.25)
    bench.hand_over(0, 1, 0.0)
    event = bench.until_resumed()
    assert not event["rest"] and bench.ue[0]["phase"] == IDLE
    assert bench.ue[0]["held"] == pytest.approx(250.0, **CLOSE) and not bench.ue[0]["healthy"]


def test_a_rest_shares_the_link_by_its_own_weight_and_waits_at_none(city, phy):
    bench = Bench(city, phy, ues=2)
    bench.plan(0, medium=KV, keep=0.05, backfill=0.25)
    bench.hand_over(0, 1, 0.0)
    bench.step(2)
    assert bench.ue[0]["phase"] == FOLLOWING
    bench.plan(1, target=1, medium=KV, weight=1.0)
    bench.step()
    assert bench.flows[-1]["bits_sent"] == pytest.approx([0.2 * 0.1 * LINK_BPS, 0.8 * 0.1 * LINK_BPS], **CLOSE)
    bench.plan(0, backfill=0.0)
    bench.step()
    assert bench.flows[-1]["bits_sent"] == pytest.approx([0.0, 0.1 * LINK_BPS], **CLOSE)
    assert bench.ue[0]["phase"] == FOLLOWING


def test_a_rest_keeps_its_memory_at_the_origin_until_it_is_there_or_dropped(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV, keep=0.05, backfill=1.0)
    bench.hand_over(0, 1, 0.0)
    bench.step(2)
    view = NetworkView(bench.sim, 3)
    taken = np.round((view.memory_bytes - view.free_memory_bytes)[0] / view.session_bytes)
    assert taken.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    bench.plan(0, target=CANCEL)
    bench.step()
    view = NetworkView(bench.sim, 3)
    taken = np.round((view.memory_bytes - view.free_memory_bytes)[0] / view.session_bytes)
    assert taken.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0] and bench.ue[0]["phase"] == IDLE
    assert bench.total("wasted_bits") == pytest.approx(bench.total("bits_sent") - 0.05 * WHOLE, **CLOSE)


def test_tokens_that_were_decoded_before_the_rest_came_keep_what_they_saw(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.plan(0, medium=KV, keep=0.5, backfill=1.0)
    bench.hand_over(0, 1, 0.0)
    bench.step(8)
    me = bench.ue[0]
    assert len(ended(bench)) == 1 and me["held"] == me["context"] > 1000.0 and not me["healthy"]


def test_the_rest_of_an_interrupted_session_goes_on_meanwhile(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV, keep=0.05, backfill=1.0)
    bench.hand_over(0, 1, 0.0)
    resumed = bench.until_resumed()["time_s"]
    bench.fail(0, bench.sim.state.world["time_s"][0] + 0.01, 1)
    bench.step(8)
    assert ended(bench)[0]["time_s"] == pytest.approx(resumed + 0.95 * WHOLE / LINK_BPS, **CLOSE)
    assert bench.ue[0]["healthy"] and bench.ue[0]["phase"] == IDLE and len(bench.resumed()) == 2


@pytest.mark.parametrize(("medium", "rows"), [(KV, 400.0), (SPLIT, 300.0)])
def test_of_a_cache_that_was_pruned_only_what_is_there_is_sent(city, phy, medium, rows):
    bench = Bench(city, phy)
    bench.put(0, held=400.0)
    bench.plan(0, medium=medium, prefix=250)
    bench.hand_over(0, 1, 0.0)
    bench.until_resumed()
    assert bench.total("bits_sent") == pytest.approx(rows * KV_BITS, **CLOSE)
    assert bench.ue[0]["held"] == pytest.approx(rows + (250 if medium == SPLIT else 0), **CLOSE)
    assert not bench.ue[0]["healthy"]


def test_a_cache_that_was_pruned_is_whole_again_when_it_is_rebuilt_elsewhere(city, phy):
    bench = Bench(city, phy)
    bench.put(0, held=400.0)
    bench.plan(0, medium=TOKEN)
    bench.hand_over(0, 1, 0.0)
    bench.until_resumed()
    assert bench.ue[0]["held"] == 1000.0 and bench.ue[0]["healthy"] and bench.total("bits_sent") == 0.0
