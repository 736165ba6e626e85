"""The greedy planner: its delay model against the simulator, its drift against the measurement, its choice in full."""

from __future__ import annotations

import csv
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvroam.agents.handover.drift_numbers import KL, WRONG
from kvroam.agents.handover.drift_table import SCORER, drift_per_token, wrong_per_token
from kvroam.agents.handover.planner import _AT, _EARLY, _FETCH, _STAY, GreedyPlanner, Option, Situation, costs, options
from kvroam.envs.handover import rewards
from kvroam.envs.handover.config import PLAN_BITS, HandoverConfig, RewardConfig
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import DETOUR, IDLE, KV, PREPARING, SPLIT, TOKEN

from ..envs.sim_bench import CALM, LINK_BPS, SERVING, Bench

# Nothing drifts in the laboratory, which has no language model.
CONFIG = HandoverConfig(**CALM, reward=RewardConfig(drift=0.0))


def situation(**changes) -> Situation:
    """One session of 4000 tokens in the laboratory."""
    base = dict(context=4000.0, rest=0.0, ahead_s=0.0, behind=False, drift=0.0, rate_bps=LINK_BPS, queue_s=0.0,
                wait_s=0.0, prefill_s_per_token=SERVING.prefill_s_per_token, tokens_per_s=0.0)
    base["forwarded"] = changes.get("rest", 0.0)
    return Situation(**{name: np.array([value]) for name, value in (base | changes).items()})


def simulated_cost(city, phy, option: Option, streaming: bool, price=CONFIG.reward, **serving: float) -> float:
    """What the plan really costs: one session of 4000 tokens whose UE changes cell at 0.2 s."""
    bench = Bench(city, phy, serving=serving)
    bench.put(0, context=4000.0, streaming=streaming)
    bench.step(1)
    for _ in range(40):
        now, me = bench.sim.state.world["time_s"][0], bench.ue[0]
        behind = me["server"] != me["radio"] and me["phase"] == IDLE
        prepare = (option.when == _EARLY and now < 0.15) or (option.when == _FETCH and behind)
        stays = option.when == _STAY or (option.when == _FETCH and not behind)
        bench.plan(0, target=1 if prepare else -1, medium=DETOUR if stays else option.medium, keep=option.keep,
                   bits=option.bits)
        if abs(now - 0.2) < 1e-6:
            bench.hand_over(0, 1, now)
        bench.step()
        if bench.resumed() and me["server"] == 1:
            break
    flow, prices = np.array(bench.flows)[:, None], [getattr(price, name) for name in rewards.NAMES]
    return float((rewards.amounts(flow, np.zeros(flow.shape)) * prices).sum())


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("option", [
    Option(_AT, TOKEN), Option(_AT, KV), Option(_AT, KV, 0.5), Option(_AT, KV, 0.1, 4), Option(_AT, SPLIT, 1.0, 8),
    Option(_EARLY, TOKEN), Option(_EARLY, KV), Option(_EARLY, SPLIT), Option(_FETCH, TOKEN), Option(_FETCH, KV),
    Option(_FETCH, SPLIT, 0.5, 8)], ids=str)
def test_the_expected_cost_is_what_the_simulator_charges(city, phy, option, streaming):
    s = situation(ahead_s=0.1, rest=1e6, tokens_per_s=25.0 if streaming else 0.0)
    expected = costs(option, s, CONFIG, SERVING.kv_bits_per_token(option.bits))[0]
    # A fetch begins with the decision after the handover, up to an interval of detour later.
    slack = 0.1 * 25.0 * CONFIG.backhaul.hop_s * CONFIG.reward.detour if streaming else 0.0
    assert simulated_cost(city, phy, option, streaming) == pytest.approx(expected, rel=0.02, abs=slack + 2e-3)


@pytest.mark.parametrize("option", [Option(_AT, KV), Option(_EARLY, TOKEN), Option(_AT, SPLIT, 0.5, 8),
                                    Option(_FETCH, KV, 0.5, 4)], ids=str)
@pytest.mark.parametrize("name", ["traffic", "gpu"])
def test_every_amount_has_its_own_price(city, phy, option, name):
    # One price alone, or a small term would hide behind a large one.
    price = replace(RewardConfig(**dict.fromkeys(("interruption", "drift", "detour", "traffic", "gpu", "waste"), 0.0)),
                    **{name: 1.0})
    expected = costs(option, situation(ahead_s=0.1, rest=1e6), replace(CONFIG, reward=price),
                     SERVING.kv_bits_per_token(option.bits))[0]
    assert simulated_cost(city, phy, option, False, price) == pytest.approx(expected, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("option", [
    Option(_AT, KV), Option(_AT, KV, 0.5), Option(_AT, SPLIT), Option(_EARLY, KV), Option(_EARLY, SPLIT, 1.0, 8)],
    ids=str)
def test_what_arrives_must_also_be_restored(city, phy, option):
    # 0.2 GB per second: a whole cache of 4000 tokens takes 1.1 s into the memory of the GPU.
    slow = dict(restore_bytes_per_s=2e8)
    s = situation(ahead_s=0.1, rest=1e6)
    with_restore, without = (costs(option, s, replace(CONFIG, serving=replace(SERVING, restore_bytes_per_s=speed)),
                                   SERVING.kv_bits_per_token(option.bits))[0] for speed in (2e8, 1e18))
    assert simulated_cost(city, phy, option, False, **slow) == pytest.approx(with_restore, rel=0.02)
    assert with_restore > 1.1 * without


def test_who_stays_pays_the_detour_of_every_token_to_come(city, phy):
    expected = costs(Option(_STAY, DETOUR), situation(rest=25.0 * 3.75, ahead_s=0.1), CONFIG, 1.0)[0]
    # 0.2 s to 4.1 s, less the interruption and the first token: 3.81 s of answers.
    assert simulated_cost(city, phy, Option(_STAY, DETOUR), True) == pytest.approx(expected, rel=0.03)


def test_the_numbers_are_the_measured_ones():
    path = Path(__file__).parents[2] / "docs" / "sweep.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["scorer"] in KL and row["precision"] != "int2"]
    assert len(rows) == sum(map(len, KL.values())) == sum(map(len, WRONG.values()))
    for row in rows:
        plan = float(row["keep"]), {"fp16": 16, "int8": 8, "int4": 4}[row["precision"]]
        assert KL[row["scorer"]][plan] == pytest.approx(float(row["kl"]), rel=0.01)
        assert WRONG[row["scorer"]][plan] == pytest.approx(float(row["wrong"]), rel=0.01)


@pytest.mark.parametrize(("function", "table"), [(drift_per_token, KL), (wrong_per_token, WRONG)])
def test_drift_is_interpolated_between_measured_ratios(function, table):
    for scorer, numbers in table.items():
        middle = (numbers[0.25, 16] + numbers[0.5, 16]) / 2
        assert function(0.375, 16, scorer) == pytest.approx(middle)
        ends = [numbers[0.05, 8], numbers[1.0, 4]]
        assert function([0.01, 1.0], [8, 4], scorer) == pytest.approx(ends)
    assert function(0.3, 8) == function(0.3, 8, SCORER)
    with pytest.raises(ValueError, match="scorer is 'windy'"):
        function(0.3, 8, "windy")


def test_the_numbers_are_written_by_their_program():
    folder = Path(__file__).parents[2]
    made = runpy.run_path(str(folder / "docs" / "make_drift_table.py"))["module"]()
    shipped = (folder / "agents" / "handover" / "drift_numbers.py").read_text(encoding="utf-8")
    assert shipped == made, "run: python docs/make_drift_table.py"


def test_the_table_is_of_the_default_scorer():
    scoring = HandoverConfig().scoring
    assert scoring.scorer + ("@head" if scoring.scope == "head" else "") == SCORER


def test_it_prefers_the_exact_plan_when_drift_is_dear_and_the_small_one_when_time_is():
    s = situation(rest=4000.0, rate_bps=1e8, prefill_s_per_token=1e-2)
    for prices, keeps in ((RewardConfig(drift=10.0), 1.0), (RewardConfig(drift=0.0, interruption=100.0), 0.1)):
        config = replace(CONFIG, reward=prices)
        at = [option for option in options(config) if option.when == _AT]
        table = [costs(option, s, config, SERVING.kv_bits_per_token(option.bits))[0] for option in at]
        assert at[int(np.argmin(table))].keep == keeps


def test_a_lost_cache_heals_only_by_prefill():
    s, config = situation(rest=4000.0, drift=0.4), replace(CONFIG, reward=RewardConfig())
    worth = {m: costs(Option(_AT, m), s, config, SERVING.kv_bits_per_token(16))[0]
             - costs(Option(_AT, m), situation(rest=4000.0), config, SERVING.kv_bits_per_token(16))[0]
             for m in (TOKEN, KV, SPLIT)}
    assert worth[TOKEN] == pytest.approx(0.0)
    assert worth[KV] == pytest.approx(0.02 * 0.4 * 4000.0 / SERVING.context_scale)
    assert 0.0 < worth[SPLIT] < worth[KV]


def test_options_cover_all_levels_once():
    every = options(CONFIG)
    assert len(every) == len(set(every)) == 1 + 3 * (1 + 2 * 5 * 3)


def test_the_policy_writes_the_cheapest_plan(city, phy):
    bench = Bench(city, phy, ues=3)
    bench.put(1, radio=1, server=0)  # left behind
    bench.hand_over(2, 4, 0.05)  # about to leave
    view, policy = NetworkView(bench.sim, 3), GreedyPlanner(CONFIG)
    policy.reset(view)
    plans = policy.act(view)[0]
    assert (plans["target"][0], plans["medium"][0]) == (-1, DETOUR)
    # Detour for 1000 tokens costs 2.0, fetching 1000 tokens far less.
    assert plans["target"][1] == 1 and plans["medium"][1] != DETOUR
    s = policy.situation(view, *(np.array([value]) for value in (0, 2, 4, 0.05, False)))
    table = [costs(option, s, CONFIG, SERVING.kv_bits_per_token(option.bits))[0] for option in policy.options]
    assert policy._table(s, view)[:, 0] == pytest.approx(table, rel=1e-12)
    best = policy.options[int(np.argmin(table))]
    written = plans[2]
    assert (written["keep"], written["bits"]) == (best.keep, best.bits)
    assert written["medium"] == (DETOUR if best.when in (_STAY, _FETCH) else best.medium)
    assert written["target"] == (4 if best.when == _EARLY else -1)


def test_a_bad_horizon_is_named():
    with pytest.raises(ValueError, match="rest_tokens is -1"):
        GreedyPlanner(CONFIG, rest_tokens=-1.0)


def test_the_inputs_of_the_delay_model_are_those_of_the_world(city, phy):
    # UE 2 sends from cell 0 to cell 4; the server of cell 4 is three times as fast, and busy for 0.3 s.
    bench = Bench(city, phy, ues=3)
    bench.put(0, context=4000.0, streaming=True)
    bench.put(1, context=5000.0)
    bench.put(2, context=9000.0)
    bench.plan(2, target=4, medium=KV)
    bench.step()
    now = float(bench.sim.state.world["time_s"][0])
    bench.cell[4]["speed"], bench.cell[4]["busy_until"] = 3.0, now + 0.3
    # Answers of 100 tokens take 4 s, pauses 6 s: 25 token/s while it answers, 10 on average.
    sessions = replace(CONFIG.sessions, script_tokens=4600, answer_tokens=(100.0, 0.0), think_s=6.0)
    view, policy = NetworkView(bench.sim, 3), GreedyPlanner(replace(CONFIG, sessions=sessions), rest_tokens=500.0)
    policy.reset(view)
    s = policy.situation(view, np.array([0, 0]), np.array([0, 1]), np.array([4, 4]), np.array([0.2, -0.1]),
                         np.array([False, True]))
    context = bench.ue["context"][:2]
    assert s.context.tolist() == context.tolist() and context[0] > 4000.0
    scale = SERVING.context_scale
    assert s.rest == pytest.approx(np.clip(4600 * scale - context, 0.0, 500.0))
    assert s.tokens_per_s == pytest.approx([25.0, 10.0])
    assert s.rate_bps == pytest.approx([LINK_BPS] * 2)
    assert s.queue_s == pytest.approx([float(bench.ue[2]["bits_left"]) / LINK_BPS] * 2) and s.queue_s[0] > 1.0
    assert s.wait_s == pytest.approx([0.3] * 2, abs=1e-6)
    assert s.prefill_s_per_token == pytest.approx([1e-4 / 3.0] * 2)
    assert s.ahead_s.tolist() == [0.2, 0.0] and s.behind.tolist() == [False, True]


@pytest.mark.parametrize("rest", [(4600, 600.0), (4200, 200.0), (3000, 0.0)])
def test_a_session_pays_for_what_is_left_of_its_script(city, phy, rest):
    script, expected = rest
    bench = Bench(city, phy)
    bench.put(0, context=4000.0)
    sessions = replace(CONFIG.sessions, script_tokens=script)
    serving = replace(CONFIG.serving, context_scale=1)
    view = NetworkView(bench.sim, 3)
    policy = GreedyPlanner(replace(CONFIG, sessions=sessions, serving=serving))
    policy.reset(view)
    one = np.array([0])
    assert policy.situation(view, one, one, np.array([1]), np.array([0.1]), np.array([False])).rest == expected


def test_a_server_without_memory_is_no_target(city, phy):
    plans = {}
    for memory in (1e15, 0.0):
        bench = Bench(city, phy, ues=2)
        bench.put(0, radio=1, server=0)
        bench.hand_over(1, 4, 0.05)
        bench.cell["memory_bytes"][[1, 4]] = memory
        view, policy = NetworkView(bench.sim, 3), GreedyPlanner(CONFIG)
        policy.reset(view)
        plans[memory] = policy.act(view)[0]
    assert plans[1e15]["target"].tolist() == [1, 4] and (plans[1e15]["medium"] != DETOUR).all()
    assert plans[0.0]["target"].tolist() == [-1, -1] and (plans[0.0]["medium"] == DETOUR).all()


def test_a_preparation_is_left_alone_until_another_cell_is_announced(city, phy):
    bench = Bench(city, phy)
    bench.put(0, context=4000.0)
    bench.plan(0, target=4, medium=KV)
    bench.step()
    now = float(bench.sim.state.world["time_s"][0])
    assert bench.ue[0]["phase"] == PREPARING
    dear = replace(CONFIG, reward=RewardConfig(drift=0.0, detour=1e3))
    view, policy = NetworkView(bench.sim, 3), GreedyPlanner(dear)
    policy.reset(view)
    for cell, planned in ((4, False), (2, True)):
        bench.hand_over(0, cell, now + 0.05)
        assert (policy.act(view)["medium"][0, 0] != DETOUR) == planned


def test_a_session_that_was_left_behind_pays_the_detour_until_it_is_there(city, phy):
    bench = Bench(city, phy)
    bench.put(0, radio=1, server=0, streaming=True)
    # Only detour and traffic cost anything. A rebuild sends nothing, but 0.1 s of answers take the detour: 0.51. A
    # tenth of the KV at 4 bit is there in 0.013 s: 0.06 of detour, 0.02 of traffic.
    prices = RewardConfig(interruption=0.0, drift=0.0, gpu=0.0, detour=10.0, traffic=10.0)
    view, policy = NetworkView(bench.sim, 3), GreedyPlanner(replace(CONFIG, reward=prices))
    policy.reset(view)
    plan = policy.act(view)[0, 0]
    assert plan["target"] == 1 and plan["medium"] in (KV, SPLIT)
    assert (plan["keep"], plan["bits"]) == (0.1, 4)


def test_it_remembers_what_its_plan_did_to_a_cache_until_the_cache_is_whole(city, phy):
    bench = Bench(city, phy, serving=dict(prefill_s_per_token=1.0))
    bench.put(0, context=4000.0)
    view, policy = NetworkView(bench.sim, 3), GreedyPlanner(
        replace(CONFIG, reward=RewardConfig(interruption=100.0, detour=1e3)))
    policy.reset(view)
    one = np.array([0])

    def drift() -> float:
        bench.plans = policy.act(view)
        return float(policy.situation(view, one, one, np.array([2]), np.array([0.1]), np.array([False])).drift[0])

    bench.hand_over(0, 1, 0.05)
    assert drift() == 0.0
    plan = bench.plans[0, 0].copy()
    expected = KL[SCORER][float(plan["keep"]), int(plan["bits"])]
    assert expected > 0.3
    bench.until_resumed()
    bench.ue[0]["healthy"] = False
    view.refresh()
    assert drift() == expected == drift()
    bench.ue[0]["healthy"] = True
    assert drift() == 0.0


def test_every_precision_of_a_plan_was_measured_and_no_other_is_taken_for_free():
    assert {bits for _, bits in KL[SCORER]} == set(PLAN_BITS)
    with pytest.raises(ValueError, match="bits is 2"):
        drift_per_token(0.5, 2)
