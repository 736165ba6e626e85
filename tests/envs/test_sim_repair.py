"""Caches that are rebuilt where they are, while their sessions stream."""

from __future__ import annotations

import pytest

from kvroam.envs.handover.world.state import CANCEL, DETOUR, IDLE, KV, REPAIRED, REPAIRING

from .sim_bench import FIRST_TOKEN_S, KV_BITS, RADIO_S, Bench

CLOSE = dict(rel=1e-6)
EACH = KV_BITS / 8 * 8.0 * 10**6  # bytes that one session reserves


def pruned(city, phy, streaming: bool = False, context: float = 1000.0, **changes) -> Bench:
    """A session of which 60 % of the cache is missing; its plan is to rebuild it."""
    bench = Bench(city, phy, **changes)
    bench.put(0, context=context, held=0.4 * context, streaming=streaming)
    bench.plan(0, repair=1)
    return bench


def step(bench: Bench, count: int) -> None:
    """Steps in which the plan to repair stands as long as there is something to repair."""
    for _ in range(count):
        bench.plan(0, repair=not bench.ue[0]["healthy"])
        bench.step()


def repaired(bench: Bench) -> list:
    """Events of repairs."""
    return [e for e in bench.events if e["kind"] == REPAIRED]


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_a_repair_takes_a_prefill_of_the_whole_context_and_nothing_on_the_links(city, phy, speed):
    bench = pruned(city, phy)
    bench.cell[0]["speed"] = speed
    step(bench, 1)
    if speed < 2.0:
        assert bench.ue[0]["phase"] == REPAIRING and not bench.ue[0]["healthy"]
    step(bench, 3)
    (event,) = repaired(bench)
    lasts = 0.1 / speed + 2e-3
    assert (event["time_s"], event["prefix"]) == (pytest.approx(lasts, **CLOSE), 1000.0)
    me = bench.ue[0]
    assert (me["phase"], bool(me["healthy"]), me["held"], me["server"]) == (IDLE, True, 1000.0, 0)
    assert bench.total("gpu_s") == pytest.approx(lasts, **CLOSE)
    assert bench.total("bits_sent") == bench.total("interruption_s") == bench.total("wasted_gpu_s") == 0.0


def test_tokens_that_came_meanwhile_are_rebuilt_next(city, phy):
    bench = pruned(city, phy, streaming=True)
    step(bench, 2)
    (event,) = repaired(bench)
    # The first batch ends at 102 ms, at half the pace; what was decoded in it is rebuilt from the next cycle on.
    grown = 0.102 * 12.5
    last = 1e-4 * grown + 2e-3
    assert event["time_s"] == pytest.approx(0.11 + last, **CLOSE)
    assert event["prefix"] == pytest.approx(grown, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(0.102 + last, **CLOSE)
    me = bench.ue[0]
    assert me["healthy"] and me["held"] == me["context"]
    assert bench.total("interruption_s") == 0.0 and bench.total("tokens") > 0.0


def test_a_repair_that_is_cancelled_is_wasted_and_changes_nothing(city, phy):
    bench = pruned(city, phy, context=5000.0, compute=dict(prefill="chunked"))
    bench.step(2)
    bench.plan(0, target=CANCEL, repair=0)
    bench.step()
    me = bench.ue[0]
    assert (me["phase"], bool(me["healthy"]), me["held"]) == (IDLE, False, 2000.0)
    assert bench.total("wasted_gpu_s") == bench.total("gpu_s") == pytest.approx(0.2, **CLOSE)


def test_a_repair_needs_memory_for_a_second_cache(city, phy):
    bench = pruned(city, phy, compute=dict(kv_memory_bytes=1.5 * EACH))
    bench.step()
    assert bench.total("refused") == 1 and bench.ue[0]["phase"] == IDLE and bench.total("gpu_s") == 0.0


def test_a_repair_goes_on_while_the_radio_changes_cell_and_tokens_are_forwarded(city, phy):
    bench = pruned(city, phy)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 1, 0.03)
    step(bench, 3)
    assert repaired(bench)[0]["time_s"] == pytest.approx(0.102, **CLOSE)
    (event,) = bench.resumed()
    assert event["interruption_s"] == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert bench.ue[0]["healthy"] and bench.ue[0]["server"] == 0


def test_a_move_ends_a_repair_and_sends_what_was_there(city, phy):
    bench = pruned(city, phy)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.03)
    bench.until_resumed()
    assert not repaired(bench) and not bench.ue[0]["healthy"]
    assert bench.total("bits_sent") == pytest.approx(400 * KV_BITS, **CLOSE)
    assert bench.total("wasted_gpu_s") == pytest.approx(0.102, **CLOSE)


def test_the_repair_of_a_whole_cache_is_refused_before_anything_moves(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, repair=1)
    with pytest.raises(ValueError, match="ue_0 in environment 0: repair is 1, but its cache is whole"):
        bench.step()
    assert bench.sim.state.world["step"][0] == 0


def test_a_plan_for_a_session_that_ended_is_for_the_one_that_replaced_it(city, phy):
    bench = Bench(city, phy)
    bench.put(0, context=1000.0, held=400.0)
    bench.ue[0]["end"], bench.ue[0]["pause_left_s"] = 1000.0, 0.02
    bench.plan(0, medium=KV, keep=0.5)
    bench.hand_over(0, 1, 0.05)
    bench.step()
    (opened,) = bench.opened()
    assert opened["time_s"] == pytest.approx(0.02) and bench.ue[0]["healthy"]
    moved = bench.until_resumed()
    assert (moved["medium"], moved["keep"], moved["target"]) == (KV, 0.5, 1)
    # It has answered for 30 ms before it moves.
    assert moved["snapshot"] == pytest.approx(opened["context"] + 0.03 * 25.0) and opened["context"] != 1000.0
