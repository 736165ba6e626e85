"""Requests: the prefill of a prompt, the first token, the answer; and what a handover does to them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kvroam.envs.handover.config import HandoverConfig
from kvroam.envs.handover.metrics import METRICS, EpisodeMeter
from kvroam.envs.handover.world.state import (
    ANSWER,
    DETOUR,
    FLOW,
    IDLE,
    KV,
    NO_JOB,
    OPENED,
    RUNNING,
    SPLIT,
    TOKEN,
    WAITING,
)

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, Bench, restore_s

CLOSE = dict(rel=1e-6)
PROMPT = 300.0
PREFILL_S = 1e-4 * PROMPT + 2e-3


def asking(city, phy, at_s: float, answer: float = 5.0, ues: int = 1, **changes) -> Bench:
    """A bench whose UE 0 asks at `at_s` and gets an answer of so many tokens."""
    changes.setdefault("sessions", dict(prompt_tokens=(PROMPT, 0.0), answer_tokens=(answer, 0.0), think_s=1e9))
    bench = Bench(city, phy, ues=ues, **changes)
    bench.ue[0]["pause_left_s"] = at_s
    return bench


def answers(bench: Bench, steps: int) -> list[np.void]:
    """The answers that end within so many steps."""
    found = []
    for _ in range(steps):
        bench.step()
        found += list(bench.sim.state.answer[0, :bench.sim.state.world["answers"][0]].copy())
    return found


def test_the_first_token_follows_the_wait_the_prefill_the_decode_step_and_the_air(city, phy):
    bench = asking(city, phy, 0.123)
    bench.step()  # the first step still uses the air time of the reset
    (answer,) = answers(bench, 6)
    air = bench.ue[0]["air_s"]
    assert answer["ttft_s"] == pytest.approx(0.13 - 0.123 + PREFILL_S + FIRST_TOKEN_S + air, **CLOSE)
    assert answer["time_s"] == pytest.approx(0.13 + PREFILL_S + 5 * FIRST_TOKEN_S, **CLOSE)
    assert answer["tokens"] == pytest.approx(5.0, **CLOSE)
    assert answer["duration_s"] == pytest.approx(4 * FIRST_TOKEN_S, **CLOSE)  # from the first token to the last
    assert bench.ue[0]["context"] == pytest.approx(1000 + PROMPT + 5, **CLOSE)
    assert bench.total("prompt_tokens") == PROMPT
    assert bench.total("prompt_gpu_s") == pytest.approx(PREFILL_S, **CLOSE)
    assert bench.total("gpu_s") == 0.0


def test_a_prompt_waits_behind_a_migration_and_joins_the_next_one_in_a_batch(city, phy):
    bench = asking(city, phy, 0.05, ues=3)
    for u, at_s in ((1, 0.0), (2, 0.06)):
        bench.put(u, radio=3, context=1500.0)
        bench.plan(u, medium=TOKEN)
        bench.hand_over(u, 0, at_s)
    (answer,) = answers(bench, 8)
    # The first batch ends at 0.152 s; from 0.16 s on the prompt is padded to the other migration.
    assert answer["time_s"] == pytest.approx(0.16 + 0.152 + 5 * FIRST_TOKEN_S, **CLOSE)
    assert bench.total("gpu_s", 2) == pytest.approx(0.152 * 1500 / 1800, **CLOSE)
    assert bench.total("prompt_gpu_s", 0) == pytest.approx(0.152 * 300 / 1800, **CLOSE)


def test_an_interruption_counts_in_the_time_per_token_of_the_answer(city, phy):
    bench = asking(city, phy, 0.0, answer=20.0, radio=dict(max_air_s=0.0))
    bench.plan(0, medium=KV)
    bench.step(2)
    bench.hand_over(0, 1, 0.25)
    found = answers(bench, 25)
    (resumed,) = bench.resumed(0)
    assert found[0]["duration_s"] == pytest.approx(
        resumed["interruption_s"] + 19 * FIRST_TOKEN_S, **CLOSE)
    assert found[0]["time_s"] == pytest.approx(PREFILL_S + 20 * FIRST_TOKEN_S + resumed["interruption_s"], **CLOSE)


def test_a_prompt_whose_prefill_is_cut_off_begins_again_where_the_session_resumes(city, phy):
    bench = asking(city, phy, 0.01)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.03)
    (answer,) = answers(bench, 12)
    bits = 1000 * KV_BITS
    back = 0.03 + bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S
    (event,) = bench.resumed(0)
    assert event["time_s"] == pytest.approx(back, **CLOSE) and event["context"] == 1000.0
    start = np.ceil(back * 100) / 100
    assert answer["time_s"] == pytest.approx(start + PREFILL_S + 5 * FIRST_TOKEN_S, **CLOSE)
    assert bench.ue[0]["context"] == pytest.approx(1305.0) and bench.total("prompt_tokens") == PROMPT
    assert bench.total("prompt_gpu_s") == pytest.approx(2 * PREFILL_S, **CLOSE)


def test_a_prompt_goes_on_at_the_source_when_the_session_stays(city, phy):
    bench = asking(city, phy, 0.01)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 1, 0.03)
    (answer,) = answers(bench, 8)
    assert answer["time_s"] == pytest.approx(0.03 + RADIO_S + FIRST_TOKEN_S + 5 * FIRST_TOKEN_S, **CLOSE)
    assert bench.total("prompt_gpu_s") == pytest.approx(PREFILL_S, **CLOSE)


def opening(city, phy, at_s: float = 0.01) -> Bench:
    """A bench whose UE 0 opens a new session at `at_s`, with a prompt of 8 * 300 tokens."""
    bench = Bench(city, phy, sessions=dict(context_tokens=(300, 300), script_tokens=900, prompt_tokens=(50.0, 0.0)))
    bench.ue[0]["context"], bench.ue[0]["pause_left_s"] = 8 * 900.0, at_s
    return bench


def test_a_session_opens_with_the_prefill_of_its_whole_context(city, phy):
    bench = opening(city, phy)
    bench.step(4)
    (note,) = bench.opened(0)
    assert (note["kind"], note["time_s"], note["context"]) == (OPENED, pytest.approx(0.01), 2400.0)
    prefill = 0.24 + 2e-3
    assert bench.total("tokens") == pytest.approx((0.4 - 0.01 - prefill) * 25, **CLOSE)
    assert bench.ue[0]["context"] == pytest.approx(2400 + bench.total("tokens"), **CLOSE)
    assert bench.total("prompt_tokens") == 2400.0 and not bench.ue[0]["opening"]


@pytest.mark.parametrize("medium", [TOKEN, KV, SPLIT])
def test_a_session_without_a_cache_is_rebuilt_at_the_new_cell_whatever_the_medium(city, phy, medium):
    bench = opening(city, phy)
    bench.plan(0, medium=medium, prefix=100, keep=0.5, bits=8)
    bench.hand_over(0, 1, 0.05)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(0.242 + FIRST_TOKEN_S, **CLOSE)
    assert (event["medium"], event["prefix"], event["snapshot"]) == (TOKEN, 2400.0, 2400.0)
    bench.step(3)
    me = bench.ue[0]
    assert (me["prompt"], me["opening"], me["healthy"], me["phase"]) == (NO_JOB, False, True, IDLE)
    assert bench.total("bits_sent") == 0.0 and bench.total("prompt_tokens") == 0.0
    assert bench.total("tokens") == pytest.approx((0.1 * len(bench.flows) - event["time_s"]) * 25, **CLOSE)


def test_a_session_without_a_cache_may_also_open_at_the_source(city, phy):
    bench = opening(city, phy)
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 1, 0.05)
    bench.step(4)
    assert bench.total("tokens") == pytest.approx((0.4 - 0.01 - 0.242) * 25, **CLOSE)
    assert bench.ue[0]["server"] == 0


def test_a_second_handover_back_to_a_detour_opens_the_session_at_the_source_after_all(city, phy):
    bench = opening(city, phy)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.05)
    bench.step(1)
    assert bench.ue[0]["prompt"] == WAITING
    bench.plan(0, medium=DETOUR)
    bench.hand_over(0, 2, 0.15)
    event = bench.until_resumed()
    assert event["time_s"] == pytest.approx(0.15 + RADIO_S + FIRST_TOKEN_S, **CLOSE)
    bench.step(1)
    assert bench.ue[0]["prompt"] == RUNNING and bench.ue[0]["opening"] and bench.total("tokens") == 0.0
    bench.step(3)
    assert bench.ue[0]["prompt"] == NO_JOB and bench.total("tokens") > 0.0
    assert bench.total("wasted_gpu_s") == pytest.approx(0.242, **CLOSE)


def test_the_answer_in_which_an_episode_begins_is_no_request(city, phy):
    bench = Bench(city, phy, sessions=dict(think_s=1e9))
    bench.put(0, streaming=True)
    bench.ue[0]["answer_left"] = 2.0
    assert answers(bench, 4) == []


def core_with(rows: list[tuple]) -> SimpleNamespace:
    """As much of a core as the meter reads: one environment of two UEs and the answers of one step."""
    answer = np.zeros((1, 8), ANSWER)
    for i, (ue, ttft_s, tokens, duration_s) in enumerate(rows):
        answer[0, i] = (ue, 0.0, ttft_s, tokens, duration_s)
    world = np.zeros(1, [("time_s", "f8"), ("answers", "i4")])
    world["answers"] = len(rows)
    ue = np.zeros((1, 2), [("phase", "i4"), ("handover_s", "f8"), ("felt_s", "f8")])
    state = SimpleNamespace(flow=np.zeros((1, 2), FLOW), answer=answer, world=world, ue=ue)
    state.flow["refused"] = 1
    sim = SimpleNamespace(state=state, interval_s=0.1)
    task = SimpleNamespace(sim=sim, scores=None, events=lambda: [])
    return SimpleNamespace(task=task, num_agents=2, reward=np.zeros((1, 2)))


def test_goodput_is_the_share_of_requests_that_meet_both_objectives():
    task = SimpleNamespace(num_envs=1, num_agents=2, metrics=METRICS, scorer=None, config=HandoverConfig())
    meter = EpisodeMeter(task, ttft_objective_s=0.5, tpot_objective_s=0.1)
    assert np.isnan(meter.result(0)["goodput"])
    # Of n tokens, n - 1 came after the first.
    meter.add(core_with([(0, 0.5, 11, 1.0), (1, 0.51, 11, 0.5), (0, 0.1, 11, 1.01)]))
    meter.add(core_with([(1, 0.1, 101, 5.0)]))
    result = meter.result(0)
    assert result["goodput"] == 0.5 and result["requests"] == 4 and result["refused"] == 4
    assert result["request_ttft_s_mean"] == pytest.approx((0.5 + 0.51 + 0.1 + 0.1) / 4)
    assert result["request_ttft_s_p95"] == pytest.approx(np.percentile([0.5, 0.51, 0.1, 0.1], 95))
    assert result["request_tpot_s_mean"] == pytest.approx((0.1 + 0.05 + 0.101 + 0.05) / 4)
    assert np.isnan(result["handover_goodput"])
