"""The papers' own settings, with scripted handovers: their delays and their orderings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvroam.agents.handover.ctho import solve
from kvroam.envs.handover.world.state import CONTINUE, KV, SPLIT, TOKEN
from kvroam.envs.sim.params import ServingConfig

from .sim_bench import RADIO_S, Bench

CLOSE = dict(rel=1e-6)


def served(serving: ServingConfig) -> dict:
    """The fields of a preset, for the bench; received caches are restored in no time."""
    names = ("layers", "kv_heads", "head_dim", "prefill_s_per_token", "prefill_overhead_s", "decode_tokens_per_s")
    return {name: getattr(serving, name) for name in names} | dict(restore_bytes_per_s=1e18)


# arXiv 2603.28018, section V: Qwen2.5-7B, K = 4, T_c = 10 ms; UEs start within 10 m of each other at 20 m/s.
QWEN = ServingConfig("qwen2.5-7b")
S_KV = QWEN.kv_bits_per_token(16)


def group(seed: int, users: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Handover times within half a second, and contexts U[1024, longest], in the order of the handovers."""
    generator = np.random.default_rng(seed)
    times = np.sort((150.0 - generator.uniform(120.0, 130.0, users)) / 20.0)
    return times - times[0] + 0.0123, generator.integers(1024, longest + 1, users).astype(float)


def delays(city, phy, tau, context, prefix: int, capacity_bps: float) -> np.ndarray:
    """Handover delays when all UEs move from cell 0 to cell 1 at `tau` and rebuild their first `prefix` tokens.

    The batch waits for the last handover; the pool serves the transfers in the order of the handovers (to 1e-6).
    """
    users = len(tau)
    bench = Bench(city, phy, ues=users, serving=served(QWEN), radio=dict(interruption_s=0.0),
                  backhaul=dict(topology="pool", capacity_bps=capacity_bps))
    for u in range(users):
        bench.put(u, context=context[u])
        medium = KV if prefix == 0 else TOKEN if prefix >= context[u] else SPLIT
        bench.plan(u, medium=medium, prefix=prefix, weight=1e6 ** (users - 1 - u))
    while any(not bench.resumed(u) for u in range(users)):
        now = bench.sim.state.world["time_s"][0]
        for u in range(users):
            bench.plan(u, prefill_delay_s=max(0.0, tau[-1] - now))
            if now <= tau[u] < now + 0.1:
                bench.hand_over(u, 1, tau[u])
        bench.step()
    return np.array([bench.resumed(u)[0]["interruption_s"] for u in range(users)]) - 1 / QWEN.decode_tokens_per_s


@pytest.mark.parametrize("capacity_bps", [2e9, 4.5e9])
@pytest.mark.parametrize(("seed", "users", "longest"), [(0, 1, 8192), (1, 4, 4096), (2, 4, 8192), (3, 8, 8192)])
def test_ctho_tho_and_cho_take_what_the_paper_says_and_ctho_is_the_best(city, phy, seed, users, longest, capacity_bps):
    tau, context = group(seed, users, longest)
    found = solve(tau, context, backhaul_tokens_per_s=capacity_bps / S_KV, cycle_s=0.01,
                  prefill_s_per_token=QWEN.prefill_s_per_token, prefill_overhead_s=QWEN.prefill_overhead_s)
    ctho = delays(city, phy, tau, context, found.prefix_tokens, capacity_bps)
    assert ctho == pytest.approx(found.user_delay_s, rel=1e-4)  # weights of 1e6 : 1 are not quite strict priority
    # tHO: everybody waits for the last handover, the cycle and the padded batch.
    end = math.ceil(tau[-1] / 0.01 - 1e-9) * 0.01 + QWEN.prefill_s_per_token * context.max() + QWEN.prefill_overhead_s
    tho = delays(city, phy, tau, context, int(context.max()), capacity_bps)
    assert tho == pytest.approx(end - tau, **CLOSE)
    # cHO: one transfer after the other.
    free, ends = -math.inf, []
    for start, tokens in zip(tau, context, strict=True):
        free = max(free, start) + tokens * S_KV / capacity_bps
        ends.append(free - start)
    cho = delays(city, phy, tau, context, 0, capacity_bps)
    assert cho == pytest.approx(ends, rel=1e-4)
    assert ctho.max() <= min(tho.max(), cho.max()) * (1 + 1e-4)


@pytest.mark.parametrize(("context", "capacity_bps"), [(1024.0, 4.5e9), (6000.0, 2e9), (8192.0, 10e9)])
def test_one_user_takes_the_delay_of_the_closed_form(city, phy, context, capacity_bps):
    # D* = C s / (R + v s) with v tokens/s of prefill and b = 0, within what one token of prefill takes.
    bench = Bench(city, phy, serving=served(QWEN) | dict(prefill_overhead_s=0.0), radio=dict(interruption_s=0.0),
                  backhaul=dict(capacity_bps=capacity_bps))
    v = 1 / QWEN.prefill_s_per_token
    bench.put(0, context=context)
    bench.plan(0, medium=SPLIT)
    bench.hand_over(0, 1, 0.0)
    delay = bench.until_resumed()["interruption_s"] - 1 / QWEN.decode_tokens_per_s
    assert 0.0 <= delay - context * S_KV / (capacity_bps + v * S_KV) <= 1 / v


@pytest.mark.parametrize("prefix", [1000.0, 5000.0])
@pytest.mark.parametrize("context", [6000.0, 8192.0])
def test_one_user_at_the_crossing_takes_the_delay_of_the_closed_form(city, phy, context, prefix):
    # The backhaul for which L* = C v s / (R + v s) is a whole number: D* = C s / (R + v s) to rounding.
    v = 1 / QWEN.prefill_s_per_token
    capacity_bps = v * S_KV * (context / prefix - 1)
    bench = Bench(city, phy, serving=served(QWEN) | dict(prefill_overhead_s=0.0), radio=dict(interruption_s=0.0),
                  backhaul=dict(capacity_bps=capacity_bps))
    bench.put(0, context=context)
    bench.plan(0, medium=SPLIT, prefix=prefix)
    bench.hand_over(0, 1, 0.0)
    delay = bench.until_resumed()["interruption_s"] - 1 / QWEN.decode_tokens_per_s
    assert delay == pytest.approx(context * S_KV / (capacity_bps + v * S_KV), **CLOSE)


# arXiv 2608.16477: Llama-3-8B, Qwen3-14B and Qwen3-32B on an A6000; 100, 300 and 500 Mbit/s between gNBs; 500
# to 4500 tokens.
MODELS = {name: ServingConfig(name, gpu="a6000") for name in ("llama-3-8b", "qwen3-14b", "qwen3-32b")}


def interruption(city, phy, serving: ServingConfig, context: float, capacity_bps: float, medium: int,
                 ahead_s: float = 0.0, streaming: bool = True) -> float:
    """The interruption of one streaming session, prepared `ahead_s` (whole intervals) before its handover [s]."""
    bench = Bench(city, phy, serving=served(serving), backhaul=dict(capacity_bps=capacity_bps))
    bench.put(0, context=context, streaming=streaming)
    bench.plan(0, medium=medium)
    if ahead_s > 0.0:
        bench.plan(0, target=1)
        bench.step(round(ahead_s / 0.1))
        bench.plan(0, target=CONTINUE)
    bench.hand_over(0, 1, bench.sim.state.world["time_s"][0])
    return float(bench.until_resumed(most=4000)["interruption_s"])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("capacity_bps", [1e8, 3e8, 5e8])
@pytest.mark.parametrize("context", [500.0, 2500.0, 4500.0])
def test_pallas_ctho_recomputation_and_full_copy_come_in_the_papers_order(city, phy, model, capacity_bps, context):
    serving = MODELS[model]
    first = 1 / serving.decode_tokens_per_s
    prefill = serving.prefill_s_per_token * context + serving.prefill_overhead_s
    ahead_s = math.ceil(prefill * 10 + 1) / 10
    pallas = interruption(city, phy, serving, context, capacity_bps, TOKEN, ahead_s)
    ctho = interruption(city, phy, serving, context, capacity_bps, SPLIT)
    recompute = interruption(city, phy, serving, context, capacity_bps, TOKEN)
    copy = interruption(city, phy, serving, context, capacity_bps, KV)
    assert pallas < ctho < recompute < copy
    assert copy - first == pytest.approx(context * serving.kv_bits_per_token(16) / capacity_bps, rel=0.05)
    assert recompute - first == pytest.approx(context * serving.prefill_s_per_token, rel=0.05)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("context", "ahead_s"), [(4500.0, 0.2), (4500.0, 0.4), (2500.0, 1.5), (500.0, 0.1)])
def test_pallas_service_interruption_is_its_formula_without_contention(city, phy, model, context, ahead_s):
    # T_SIT = T_0 + max(0, T_hist - T_w, T_res) with an idle user, so that S_inc and T_res are 0; here T_0 is the radio
    # interruption, if that is longer than the rest, and the first decode step.
    serving = MODELS[model]
    hist = serving.prefill_s_per_token * context + serving.prefill_overhead_s
    found = interruption(city, phy, serving, context, 5e8, TOKEN, ahead_s, streaming=False)
    assert found == pytest.approx(max(RADIO_S, hist - ahead_s) + 1 / serving.decode_tokens_per_s, **CLOSE)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_pallas_residual_is_what_the_link_could_not_carry_of_the_growing_suffix(city, phy, share):
    # T_res = S_inc / B - T_w with S_inc = r_d T_w s_KV: the suffix grows faster than the link carries it. It is queued
    # at the end of every interval, so the link idles during the first one: the formula plus one interval (ours).
    serving, ahead_s = MODELS["llama-3-8b"], 2.0
    growth = serving.decode_tokens_per_s * serving.kv_bits_per_token(16)
    capacity = share * growth
    found = interruption(city, phy, serving, 500.0, capacity, TOKEN, ahead_s)
    # A resident of the target's server is not disturbed; the source's session decodes at its full rate.
    residual = growth * ahead_s / capacity - ahead_s
    assert found == pytest.approx(residual + 0.1 + 1 / serving.decode_tokens_per_s, **CLOSE)
