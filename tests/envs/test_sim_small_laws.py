"""Laws that are one line each in the simulator and its accounts, by closed forms and brute force."""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.envs import make_core
from kvroam.envs.base.pricing import priced
from kvroam.envs.handover import rewards
from kvroam.envs.handover.config import HandoverConfig, RewardConfig, ScoringConfig
from kvroam.envs.handover.metrics import METRICS, EpisodeMeter
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import FLOW, INTERRUPTED, KV, RESUMED, TOKEN
from kvroam.envs.sim.compute import next_cycle
from kvroam.envs.sim.params import SessionConfig

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, RADIO_S, REESTABLISHMENT_S, Bench, restore_s

CLOSE = dict(rel=1e-9, abs=1e-9)


def test_a_prompt_leaves_half_of_what_is_left_of_its_script_for_the_answers(city, phy) -> None:
    bench = Bench(city, phy, sessions=dict(prompt_tokens=(1e9, 0.0), answer_tokens=(1.0, 0.0), think_s=0.0,
                                           script_tokens=1000), serving=dict(prefill_s_per_token=1e-3))
    bench.ue[0]["end"], bench.ue[0]["pause_left_s"] = 8000.0, 0.05
    expected = 1000.0
    for _ in range(4):
        while bench.ue[0]["prompt"] == 0:
            bench.step()
        assert bench.ue[0]["prompt_tokens"] == pytest.approx((8000.0 - expected) / 2, **CLOSE)
        expected += (8000.0 - expected) / 2 + 1.0
        while bench.ue[0]["context"] < expected - 1e-6:
            bench.step()
    assert bench.ue[0]["session"] == 0


@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_the_queue_of_a_chunked_server_is_all_work_that_it_has_not_done_yet(city, phy, speed) -> None:
    prompts, chunk = 1200.0, 500
    bench = Bench(city, phy, ues=4, compute=dict(prefill="chunked", chunk_tokens=chunk),
                  sessions=dict(prompt_tokens=(prompts, 0.0), think_s=1e9))
    bench.cell["speed"] = speed
    asked_s = (0.01, 0.05, 0.06)
    for u, at_s in enumerate(asked_s):
        bench.ue[u]["pause_left_s"] = at_s
    bench.put(3, radio=5, context=2100.0)
    bench.plan(3, medium=TOKEN)
    bench.hand_over(3, 0, 0.08)
    bench.step()
    works = [1e-4 * tokens / speed + 2e-3 * math.ceil(tokens / chunk) for tokens in (prompts, prompts, prompts, 2100.0)]
    done, free_at = 0.0, 0.0
    for at_s, work in zip((*asked_s, 0.08), works, strict=True):
        start = max(at_s, free_at)
        free_at = start + work
        done += min(max(0.1 - start, 0.0), work)
    assert 0.0 < done < works[0], "the first prompt is being read, two more and the migration wait"
    wait = NetworkView(bench.sim, 3).prefill_wait_s[0]
    assert wait[0] == pytest.approx(sum(works) - done, **CLOSE)
    assert (wait[1:] == 0.0).all()


def test_a_ue_whose_link_has_failed_hears_no_command_to_change_cell(city, phy) -> None:
    bench = Bench(city, phy, ues=2, trigger="policy", radio=dict(reestablishment_s=1.0))
    bench.fail(0, 0.05, 4)
    bench.step()
    for u in (0, 1):
        bench.plan(u, handover=3, medium=TOKEN)
    bench.step(9)
    assert bench.ue["radio"].tolist() == [0, 3] and bench.ue[0]["phase"] == INTERRUPTED
    assert [bench.total("handovers", u) for u in (0, 1)] == [0, 1]
    assert bench.total("rlf", 0) == 1 and bench.total("handover_failures") == 0
    bench.plan(0, handover=-1)
    bench.step(2)
    assert bench.ue[0]["radio"] == 4 and bench.total("handovers", 0) == 0


def test_every_price_is_per_its_own_unit() -> None:
    flow = np.zeros((1, 2), FLOW)
    flow["bits_sent"][0, 0], flow["wasted_bits"][0, 0], flow["wasted_gpu_s"][0, 0] = 3 * 8e9, 2 * 8e9, 5.0
    flow["late_s"][0, 1], flow["slow_s"][0, 1], flow["outage_s"][0, 1] = 6, 8, 9
    flow["forwarded_bits"][0, 0] = 8e9
    flow["interruption_s"][0, 1], flow["detour_s"][0, 1], flow["gpu_s"][0, 1], flow["pingpongs"][0, 1] = 2, 3, 4, 5
    price = RewardConfig(interruption=1.1, late=0.3, slow=0.5, outage=0.7, drift=1.3, wrong=3.7, detour=1.7,
                         traffic=1.9, gpu=2.3, waste=2.9, pingpong=3.1)
    prices = np.array([getattr(price, name) for name in rewards.NAMES])
    amounts = rewards.amounts(flow, np.array([[0.0, 7.0]]), np.array([[2.0, 0.0]]))
    terms = dict(zip(rewards.NAMES, priced(amounts, prices)[0].T, strict=True))
    # A gigabyte is 1e9 bytes of 8 bits, sent or forwarded; waste is gigabytes and GPU seconds together.
    expected = {"interruption": (0, -2.2), "drift": (0, -9.1), "detour": (0, -5.1), "traffic": (-7.6, 0),
                "late": (0, -1.8), "slow": (0, -4.0), "outage": (0, -6.3), "wrong": (-7.4, 0),
                "gpu": (0, -9.2), "waste": (-2.9 * (2 + 5), 0), "pingpong": (0, -15.5)}
    assert set(terms) == set(expected)
    for name, values in expected.items():
        assert terms[name] == pytest.approx(values), name


def test_the_scorer_prunes_what_was_there_at_the_start_and_keeps_what_came_since() -> None:
    config = HandoverConfig(num_ues=1, sessions=SessionConfig(context_tokens=(40, 60), script_tokens=160, scripts=1),
                            scoring=ScoringConfig(scorer="window", scope="sequence"))
    core = make_core(config)
    core.reset([0])
    scale, state, scorer = config.serving.context_scale, core.task.sim.state, core.task.scorer
    state.ue["context"] = 60 * scale
    scorer.reset(core.task.sim, np.array([0]))
    state.ue["context"] = 150 * scale
    event = state.event[0, 0]
    event["kind"], event["ue"], event["context"], event["medium"] = RESUMED, 0, 150 * scale, KV
    event["keep"], event["bits"], event["prefix"], event["snapshot"] = 0.5, 16, 10 * scale, 60 * scale
    state.world["events"] = 1
    scorer.score(core.task.sim)
    kept = scorer._own[0, 0].rows.positions.tolist()
    assert kept[:10] == list(range(10)), "the prefix was rebuilt"
    assert sum(10 <= position < 60 for position in kept) == 25, "half of what the plan may cut"
    assert kept[-90:] == list(range(60, 150)), "tokens that were produced during the migration"


def test_an_interruption_that_still_runs_at_the_end_counts_with_what_it_has_lasted(city, phy) -> None:
    bench = Bench(city, phy, ues=2)
    task = SimpleNamespace(num_envs=1, num_agents=2, metrics=METRICS, scorer=None, config=HandoverConfig())
    meter = EpisodeMeter(task)
    for u, at_s in ((0, 0.03), (1, 0.04)):
        bench.put(u, streaming=True)
        bench.plan(u, medium=KV, weight=0.0 if u == 0 else 1.0)
        bench.hand_over(u, 3, at_s)
    for _ in range(20):
        bench.step()
        events = [(0, event) for event in bench.sim.state.event[0, :bench.sim.state.world["events"][0]]]
        task = SimpleNamespace(sim=bench.sim, scores=None, events=lambda it=events: it)
        meter.add(SimpleNamespace(task=task, num_agents=2, reward=np.zeros((1, 2))))
    bits = (1000 + 0.04 / FIRST_TOKEN_S) * KV_BITS
    lasted = [2.0 - 0.03, bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S]
    result = meter.result(0)
    assert result["interruption_s_worst"] == pytest.approx(lasted[0], **CLOSE)
    assert result["interruption_s_mean"] == pytest.approx(sum(lasted) / 2, **CLOSE)
    assert result["interruption_s_total"] == pytest.approx(sum(lasted) / 2, **CLOSE)
    assert result["interruption_s_p95"] == pytest.approx(lasted[1] + 0.95 * (lasted[0] - lasted[1]), **CLOSE)


def test_a_link_that_fails_while_a_session_is_about_to_resume_keeps_it_from_resuming(city, phy) -> None:
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.hand_over(0, 3, 0.06)
    bench.step()
    # All is there at 0.11, and the first token would come at 0.15.
    assert 0.06 + RADIO_S < 0.12 < 0.06 + RADIO_S + FIRST_TOKEN_S
    bench.fail(0, 0.12, 3)
    event = bench.until_resumed()
    assert event["time_s"] == pytest.approx(0.12 + REESTABLISHMENT_S + FIRST_TOKEN_S, **CLOSE)
    assert event["interruption_s"] == pytest.approx(event["time_s"] - 0.06, **CLOSE)
    assert len(bench.resumed()) == 1 and event["rlf"]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(number=st.integers(0, 10**6), cycle_ms=st.sampled_from([1, 3, 7, 10, 50]), past_ns=st.integers(0, 10**6))
def test_the_next_cycle_is_the_smallest_multiple_that_is_not_before(number, cycle_ms, past_ns) -> None:
    cycle = Fraction(cycle_ms, 1000)
    # An instant on the grid, as a sum of floats may miss it, is on the grid: what starts there starts now.
    at = number * (cycle_ms / 1000.0)
    assert next_cycle(at, cycle_ms / 1000.0) == pytest.approx(float(number * cycle), rel=1e-12, abs=1e-12)
    now = number * cycle + Fraction(past_ns, 10**9)
    steps = math.ceil(now / cycle)
    if now / cycle - math.floor(now / cycle) > 1e-6:
        assert next_cycle(float(now), cycle_ms / 1000.0) == pytest.approx(float(steps * cycle), rel=1e-12)
