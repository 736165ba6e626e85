"""Decoding together: the roofline of a server's iterations, attaching of caches, and when the first token comes."""

from __future__ import annotations

import pytest

from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import DETOUR, KV, TOKEN

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, SERVING, Bench, restore_s

CLOSE = dict(rel=1e-6)
SHARED = dict(decode="shared")
READ_S = SERVING.kv_read_s_per_token


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("contexts", [(1000.0,), (1000.0, 4000.0), (500.0, 20_000.0, 80_000.0)])
def test_sessions_of_a_server_share_its_iterations_and_every_context_weighs(city, phy, contexts, speed):
    bench = Bench(city, phy, ues=len(contexts) + 2, compute=SHARED)
    bench.cell[0]["speed"] = speed
    for u, context in enumerate(contexts):
        bench.put(u, context=context, streaming=True)
    bench.put(len(contexts), radio=1, streaming=True)  # elsewhere; the last one thinks
    iteration = (FIRST_TOKEN_S + READ_S * sum(contexts)) / speed
    assert NetworkView(bench.sim, 3).iteration_s[0, 0] == pytest.approx(iteration, **CLOSE)
    bench.step()
    for u in range(len(contexts)):
        assert bench.total("tokens", u) == pytest.approx(0.1 / iteration, **CLOSE)
    assert bench.total("tokens", len(contexts)) == pytest.approx(0.1 / (FIRST_TOKEN_S + READ_S * 1000), **CLOSE)
    assert bench.total("tokens", len(contexts) + 1) == 0.0


def test_rows_that_were_pruned_weigh_nothing(city, phy):
    bench = Bench(city, phy, ues=2, compute=SHARED)
    bench.put(0, context=50_000.0, held=10_000.0, streaming=True)
    bench.step()
    assert bench.total("tokens", 0) == pytest.approx(0.1 / (FIRST_TOKEN_S + READ_S * 10_000), **CLOSE)


def test_alone_nobody_slows_anybody(city, phy):
    bench = Bench(city, phy, ues=8)
    for u in range(8):
        bench.put(u, context=1e5, streaming=True)
    bench.step()
    assert bench.flows[0]["tokens"] == pytest.approx([0.1 / FIRST_TOKEN_S] * 8, **CLOSE)


def test_the_first_token_after_a_handover_waits_for_the_residents_of_its_new_server(city, phy):
    bench = Bench(city, phy, ues=2, compute=SHARED)
    bench.put(1, radio=1, context=30_000.0, streaming=True)
    bench.put(0, context=40.0)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.0)
    # When all is there, at 50 ms, the resident has decoded that long.
    resident = 30_000 + RADIO_S / (FIRST_TOKEN_S + READ_S * 30_000)
    assert bench.until_resumed()["interruption_s"] == pytest.approx(
        RADIO_S + restore_s(40 * KV_BITS) + FIRST_TOKEN_S + READ_S * resident, **CLOSE)


@pytest.mark.parametrize("prepared", [False, True])
def test_attaching_a_received_cache_takes_time_for_every_token(city, phy, prepared):
    each = 1e-5
    bench = Bench(city, phy, serving=dict(attach_s_per_token=each))
    bench.plan(0, medium=KV, keep=0.5, target=1 if prepared else -1)
    bench.step(10 if prepared else 0)
    bench.hand_over(0, 1, 1.0 if prepared else 0.0)
    bits = 500 * KV_BITS
    transfer = RADIO_S if prepared else bits / LINK_BPS + restore_s(bits)
    assert bench.until_resumed()["interruption_s"] == pytest.approx(transfer + 500 * each + FIRST_TOKEN_S, **CLOSE)


def test_a_cache_that_was_rebuilt_needs_no_attaching(city, phy):
    bench = Bench(city, phy, serving=dict(attach_s_per_token=1e-3))
    bench.plan(0, medium=TOKEN)
    bench.hand_over(0, 1, 0.0)
    assert bench.until_resumed()["interruption_s"] == pytest.approx(0.102 + FIRST_TOKEN_S, **CLOSE)


def test_an_interruption_before_the_first_token_delays_it_and_not_the_others(city, phy):
    bench = Bench(city, phy, sessions=dict(answer_tokens=(5.0, 0.0), think_s=1e9), radio=dict(max_air_s=0.0))
    bench.ue[0]["pause_left_s"] = 0.01
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 1, 0.03)  # when half a token has been decoded
    found = []
    for _ in range(5):
        bench.step()
        found += list(bench.sim.state.answer[0, :bench.sim.state.world["answers"][0]].copy())
    (answer,) = found
    lost = RADIO_S + FIRST_TOKEN_S
    assert answer["ttft_s"] == pytest.approx(lost + FIRST_TOKEN_S + 0.02, **CLOSE)  # and one hop
    assert answer["duration_s"] == pytest.approx(4 * FIRST_TOKEN_S, **CLOSE)
    assert answer["tokens"] == pytest.approx(5.0, **CLOSE)


def test_answers_of_fast_servers_have_room(city, phy):
    bench = Bench(city, phy, serving=dict(decode_tokens_per_s=1000.0), radio=dict(max_air_s=0.0), interval_s=1.0,
                  compute=dict(speed_spread=8.0), sessions=dict(answer_tokens=(1.0, 0.0), think_s=0.0))
    bench.cell["speed"] = 8.0
    bench.ue[0]["pause_left_s"] = 0.0
    bench.step()
    answers = bench.sim.state.world["answers"][0]
    # A token in 1/8 ms after every pause of 1 ms.
    assert answers == pytest.approx(1.0 / 1.125e-3, abs=1.0) and answers <= bench.sim.state.answer.shape[1]


def test_ranking_adds_a_share_of_a_prefill_to_every_iteration_and_prompts_are_ranked_behind_the_stream(city, phy):
    bench = Bench(city, phy, ues=2)
    bench.sim.params["ranking"] = 1.25
    for u in range(2):
        bench.put(u, streaming=True)
    bench.ue[1]["unranked"] = 8000.0
    each = 1.25 * SERVING.prefill_s_per_token
    bench.step()
    iteration = FIRST_TOKEN_S + (1 + 17) * each
    assert bench.flows[0]["tokens"] == pytest.approx([0.1 / iteration] * 2, **CLOSE)
    assert bench.ue[1]["unranked"] == pytest.approx(8000 - 16 * 0.1 / iteration, **CLOSE)
