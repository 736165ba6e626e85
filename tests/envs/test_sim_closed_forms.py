"""One migration at a time, against closed forms: what an interruption consists of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvroam.envs.handover.world.state import DETOUR, KV, SPLIT, TOKEN
from kvroam.envs.sim.params import ServingConfig

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, Bench, restore_s

CLOSE = dict(rel=1e-6)


@pytest.mark.parametrize("at_s", [0.0, 0.0337, 0.0999])
@pytest.mark.parametrize("context", [50.0, 1234.0, 5000.5])
def test_cho_takes_the_transfer_or_the_radio_interruption_whichever_is_longer(city, phy, context, at_s):
    bench = Bench(city, phy)
    bench.put(0, context=context)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 3, at_s)
    event = bench.until_resumed()
    bits = context * KV_BITS
    assert event["interruption_s"] == pytest.approx(
        max(RADIO_S, bits / LINK_BPS) + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)
    assert event["time_s"] == pytest.approx(at_s + event["interruption_s"], **CLOSE)
    assert (event["source"], event["target"], event["context"]) == (0, 3, context)
    assert bench.total("bits_sent") == pytest.approx(bits, **CLOSE)
    assert bench.total("gpu_s") == bench.total("wasted_bits") == 0.0
    assert bench.ue[0]["server"] == 3


@pytest.mark.parametrize("speed", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("at_s", [0.02, 0.0337, 0.0999])
def test_tho_waits_for_the_cycle_and_then_prefills_at_the_speed_of_the_server(city, phy, at_s, speed):
    bench = Bench(city, phy)
    bench.cell[3]["speed"] = speed
    bench.put(0, context=3000.0)
    bench.plan(0, medium=TOKEN)
    bench.hand_over(0, 3, at_s)
    event = bench.until_resumed()
    prefill = 1e-4 * 3000 / speed + 2e-3
    wait = math.ceil(round(at_s * 100, 9)) / 100 - at_s
    assert event["interruption_s"] == pytest.approx(wait + prefill + FIRST_TOKEN_S / speed, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(prefill, **CLOSE)
    assert bench.total("bits_sent") == 0.0


def test_a_long_cycle_is_waited_for_across_intervals(city, phy):
    bench = Bench(city, phy, compute=dict(cycle_s=0.75))
    bench.plan(0, medium=TOKEN)
    bench.hand_over(0, 1, 0.01)
    assert bench.until_resumed()["interruption_s"] == pytest.approx(0.74 + 0.1 + 2e-3 + FIRST_TOKEN_S, **CLOSE)


@pytest.mark.parametrize("prefix", [0, 1, 400, 1700, 2000, 5000])
def test_a_split_takes_the_later_of_prefill_and_transfer(city, phy, prefix):
    bench = Bench(city, phy)
    bench.put(0, context=2000.0)
    bench.plan(0, medium=SPLIT, prefix=prefix)
    bench.hand_over(0, 2, 0.03)
    event = bench.until_resumed()
    rebuilt = min(prefix, 2000)
    prefill = 1e-4 * rebuilt + 2e-3 if rebuilt else 0.0
    bits = (2000 - rebuilt) * KV_BITS
    assert event["interruption_s"] == pytest.approx(
        max(RADIO_S, prefill, bits / LINK_BPS) + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)
    assert event["prefix"] == rebuilt
    assert bench.total("bits_sent") == pytest.approx(bits, **CLOSE, abs=1e-6)


@pytest.mark.parametrize("capacity", [0.5e9, 1e9, 3e9, 8e9])
@pytest.mark.parametrize("context", [1500.0, 6000.0])
def test_a_balanced_split_of_one_ue_is_the_optimum_of_the_paper(city, phy, context, capacity):
    # arXiv 2603.28018, one UE without offset: L* = C v s / (R + v s), D* = C s / (R + v s), v tokens/s of prefill.
    bench = Bench(city, phy, serving=dict(prefill_overhead_s=0.0), backhaul=dict(capacity_bps=capacity))
    bench.put(0, context=context)
    bench.plan(0, medium=SPLIT)
    bench.hand_over(0, 2, 0.0)
    event = bench.until_resumed()
    v = 1e4
    best_prefix = context * v * KV_BITS / (capacity + v * KV_BITS)
    best_delay = context * KV_BITS / (capacity + v * KV_BITS)
    assert abs(event["prefix"] - best_prefix) < 1.0
    by_brute_force = min(max(n / v, (context - n) * KV_BITS / capacity) for n in range(int(context) + 1))
    bits = (context - event["prefix"]) * KV_BITS
    delay = event["interruption_s"] - restore_s(bits) - FIRST_TOKEN_S
    assert delay == pytest.approx(max(RADIO_S, by_brute_force), **CLOSE)
    assert best_delay - 1e-9 <= delay <= max(RADIO_S, best_delay + 1 / v) + 1e-9


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_a_balanced_split_counts_the_wait_the_overhead_and_the_speed(city, phy, speed):
    bench = Bench(city, phy, compute=dict(cycle_s=0.1))
    bench.cell[1]["speed"] = speed
    bench.put(0, context=4000.0)
    bench.plan(0, medium=SPLIT)
    bench.hand_over(0, 1, 0.04)
    event = bench.until_resumed()
    by_brute_force = [max(0.06 + 2e-3 + 1e-4 * n / speed, (4000 - n) * KV_BITS / LINK_BPS) for n in range(1, 4001)]
    best = 1 + int(np.argmin(by_brute_force))
    assert abs(event["prefix"] - best) <= 1
    bits = (4000 - event["prefix"]) * KV_BITS
    delay = event["interruption_s"] - restore_s(bits) - FIRST_TOKEN_S / speed
    assert delay <= min(by_brute_force) + KV_BITS / LINK_BPS


def test_a_session_that_stays_pays_the_radio_interruption_alone(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 4, 0.06)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert (bench.ue[0]["server"], bench.ue[0]["radio"]) == (0, 4)
    assert bench.total("bits_sent") == bench.total("gpu_s") == 0.0
    hop_s = 0.02
    assert event["ttft_s"] > event["interruption_s"] + hop_s


@pytest.mark.parametrize("medium", [TOKEN, KV, SPLIT, DETOUR])
def test_coming_back_to_the_own_server_pays_the_radio_interruption_alone(city, phy, medium):
    bench = Bench(city, phy)
    bench.put(0, radio=4, server=2)
    bench.plan(0, medium=medium)
    bench.hand_over(0, 2, 0.06)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert (bench.ue[0]["server"], bench.ue[0]["radio"]) == (2, 2)
    assert bench.total("bits_sent") == bench.total("gpu_s") == 0.0


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_keep_and_precision_scale_the_transfer(city, phy, bits, keep):
    bench = Bench(city, phy)
    bench.put(0, context=3000.0)
    bench.plan(0, medium=SPLIT, prefix=1000, keep=keep, bits=bits)
    bench.hand_over(0, 1, 0.0)
    event = bench.until_resumed()
    # 28 layers, K and V, 4 heads, 128 channels; below 16 bit a 2 x 16 bit scale and zero point per 128 values of V
    # and per channel and 32 tokens of K.
    values = 28 * 4 * 128
    per_token = 2 * values * bits + (0 if bits == 16 else 28 * 4 * 32 + values * 32 / 32)
    sent = 2000 * keep * per_token
    assert bench.total("bits_sent") == pytest.approx(sent, **CLOSE)
    assert event["interruption_s"] == pytest.approx(
        max(0.1 + 2e-3, sent / LINK_BPS) + restore_s(sent) + FIRST_TOKEN_S, **CLOSE)
    assert (event["keep"], event["bits"]) == (keep, bits)


def test_sixteen_bits_per_token_are_those_of_the_paper():
    assert ServingConfig("qwen2.5-7b").kv_bits_per_token(16) == 458_752


@pytest.mark.parametrize(("bytes_per_s", "rate"), [(1e8, 25.0), (20e9, 10.0), (20e9, 100.0)])
def test_restore_and_first_decode_step_are_added(city, phy, bytes_per_s, rate):
    bench = Bench(city, phy, serving=dict(restore_bytes_per_s=bytes_per_s, decode_tokens_per_s=rate))
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.05)
    bits = 1000 * KV_BITS
    assert bench.until_resumed()["interruption_s"] == pytest.approx(
        bits / LINK_BPS + restore_s(bits, bytes_per_s) + 1 / rate, **CLOSE)


@pytest.mark.parametrize("interval_s", [0.02, 0.1, 0.5, 2.0])
def test_the_decision_interval_does_not_change_a_reactive_migration(city, phy, interval_s):
    bench = Bench(city, phy, interval_s=interval_s)
    bench.plan(0, medium=SPLIT, prefix=500)
    bench.hand_over(0, 1, 0.013)
    bits = 500 * KV_BITS
    assert bench.until_resumed()["interruption_s"] == pytest.approx(
        bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S, **CLOSE)
