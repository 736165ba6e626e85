"""Edge servers: batches, their GPU time, and the decoding that they disturb."""

from __future__ import annotations

import pytest

from kvroam.envs.handover.world.state import DETOUR, KV, TOKEN

from .sim_bench import FIRST_TOKEN_S, Bench

CLOSE = dict(rel=1e-6)


def prefill_s(tokens: float, speed: float = 1.0) -> float:
    """p(L) = a L + b of the bench's serving configuration."""
    return 1e-4 * tokens / speed + 2e-3


def test_jobs_of_one_cycle_are_one_batch_padded_to_the_longest(city, phy):
    bench = Bench(city, phy, ues=3)
    for u, context in enumerate((500.0, 2000.0, 1500.0)):
        bench.put(u, context=context)
        bench.plan(u, medium=TOKEN)
        bench.hand_over(u, 1, 0.031 + 0.002 * u)
    bench.step(5)
    for u in range(3):
        assert bench.resumed(u)[0]["time_s"] == pytest.approx(0.04 + prefill_s(2000) + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(prefill_s(2000), **CLOSE)
    for u, share in enumerate((500, 2000, 1500)):
        assert bench.total("gpu_s", u) == pytest.approx(prefill_s(2000) * share / 4000, **CLOSE)


def test_a_job_that_comes_too_late_waits_for_the_batch_and_the_next_cycle(city, phy):
    bench = Bench(city, phy, ues=2)
    bench.put(0, context=1500.0)
    bench.put(1, context=1000.0)
    for u, at_s in enumerate((0.0, 0.03)):
        bench.plan(u, medium=TOKEN)
        bench.hand_over(u, 1, at_s)
    bench.step(6)
    # The first batch lasts from 0 to 0.152 s; the next cycle begins at 0.16 s.
    assert bench.resumed(0)[0]["time_s"] == pytest.approx(0.152 + FIRST_TOKEN_S, **CLOSE)
    assert bench.resumed(1)[0]["time_s"] == pytest.approx(0.16 + prefill_s(1000) + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(prefill_s(1500) + prefill_s(1000), **CLOSE)


def test_servers_do_not_share_their_queues(city, phy):
    bench = Bench(city, phy, ues=2)
    for u in (0, 1):
        bench.plan(u, medium=TOKEN)
        bench.hand_over(u, 1 + u, 0.0)
    bench.step(4)
    for u in (0, 1):
        assert bench.resumed(u)[0]["time_s"] == pytest.approx(prefill_s(1000) + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(2 * prefill_s(1000), **CLOSE)


def test_tokens_are_decode_rate_times_time(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.step(30)
    assert bench.total("tokens") == pytest.approx(25.0 * 3.0, **CLOSE)
    assert bench.ue[0]["context"] == pytest.approx(1000 + 75.0, **CLOSE)


def test_a_thinking_user_gets_no_tokens_and_the_answer_begins_when_thinking_ends(city, phy):
    bench = Bench(city, phy)
    bench.ue[0]["pause_left_s"] = 1.25
    bench.step(12)
    assert bench.total("tokens") == 0.0
    bench.step(8)
    assert bench.total("tokens") == pytest.approx(25.0 * 0.75, **CLOSE)


@pytest.mark.parametrize("slowdown", [0.0, 0.5, 0.9])
def test_prefill_slows_the_resident_sessions_of_its_server_only(city, phy, slowdown):
    bench = Bench(city, phy, ues=3, compute=dict(decode_slowdown=slowdown))
    bench.put(1, radio=1, streaming=True)
    bench.put(2, radio=2, streaming=True)
    bench.put(0, context=4980.0)
    bench.plan(0, medium=TOKEN)
    bench.hand_over(0, 1, 0.03)
    bench.step(10)
    assert prefill_s(4980) == 0.5
    assert bench.total("tokens", 1) == pytest.approx(25.0 * (0.5 + 0.5 * (1 - slowdown)), **CLOSE)
    assert bench.total("tokens", 2) == pytest.approx(25.0, **CLOSE)


def test_tokens_take_the_decode_step_or_the_air_whichever_is_longer_and_the_detour_once(city, phy):
    bench = Bench(city, phy, ues=2, radio=dict(max_air_s=0.5))
    bench.put(0, radio=1, server=1, streaming=True)
    bench.put(1, radio=2, server=3, streaming=True)
    bench.step()  # the first step still uses the air time of the reset
    air = bench.ue["air_s"].copy()
    bench.step()
    assert air[1] > FIRST_TOKEN_S > air[0]
    flow, hops = bench.flows[1], bench.sim.tables.hops[3, 2]
    assert flow["latency_s"] == pytest.approx([0.1, 0.1], **CLOSE)
    assert flow["tokens"] == pytest.approx([0.1 / FIRST_TOKEN_S, 0.1 / air[1]], **CLOSE)
    assert bench.total("detour_s", 0) == 0.0
    assert bench.total("detour_s", 1) == pytest.approx(0.02 * hops, **CLOSE)


@pytest.mark.parametrize("medium", [KV, DETOUR])
def test_without_a_prefill_no_gpu_time_is_spent(city, phy, medium):
    bench = Bench(city, phy)
    bench.plan(0, medium=medium)
    bench.hand_over(0, 1, 0.0)
    bench.until_resumed()
    assert bench.total("gpu_s") == 0.0


def test_handovers_on_the_very_cycle_share_its_batch(city, phy):
    bench = Bench(city, phy, ues=2)
    for u in (0, 1):
        bench.plan(u, medium=TOKEN)
        bench.hand_over(u, 1, 0.05)
    bench.step(4)
    for u in (0, 1):
        assert bench.resumed(u)[0]["time_s"] == pytest.approx(0.05 + prefill_s(1000) + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(prefill_s(1000), **CLOSE)
