"""The greedy planner: its delay model against the simulator, its harm against the measurement, its choice in full."""

from __future__ import annotations

import csv
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvroam.agents.handover import delays
from kvroam.agents.handover.delays import AT, EARLY, FETCH, STAY, Option, Situation, costs, harm, options
from kvroam.agents.handover.judgement import Judgement
from kvroam.agents.handover.planner import GreedyPlanner
from kvroam.envs.handover import rewards
from kvroam.envs.handover.config import PLAN_BITS, HandoverConfig, RewardConfig
from kvroam.envs.handover.harm.drift_numbers import KL, WRONG
from kvroam.envs.handover.harm.drift_table import SCORER, drift_per_token, wrong_per_token
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import DETOUR, IDLE, KV, RESUME, SPLIT, TOKEN

from ..envs.sim_bench import CALM, FIRST_TOKEN_S, LINK_BPS, RADIO_S, SERVING, Bench

# Nothing drifts in the laboratory, which has no language model.
CONFIG = HandoverConfig(**CALM, reward=RewardConfig(drift=0.0, wrong=0.0))
NOT_FORWARDED = dict(backhaul=dict(forwarding="none"))


def situation(**changes) -> Situation:
    """One session of 4000 tokens in the laboratory, whose user waits and is out of reach of forwarding."""
    base = dict(context=4000.0, density=1.0, rest=0.0, ahead_s=0.0, sure=1.0, known=True, behind=False, waits=1.0,
                delay_s=np.inf, rate_bps=LINK_BPS, backlog_bits=0.0, flows=0.0, wait_s=0.0,
                prefill_s_per_token=SERVING.prefill_s_per_token, iteration_s=FIRST_TOKEN_S, sharers=0.0,
                tokens_per_s=0.0)
    # Nobody else asks in the laboratory: prefills take as long as they take.
    return Situation(**{name: np.array([value]) for name, value in (base | changes).items()},
                     judge=Judgement(gpu_margin=1.0))


def expected(option: Option, s: Situation, config=CONFIG) -> float:
    return float(np.ravel(costs(option, s, config, SERVING.kv_bits_per_token(option.bits)))[0])


def simulated_cost(city, phy, option: Option, streaming: bool, price=CONFIG.reward, **serving: float) -> float:
    """What the plan really costs: one session of 4000 tokens whose UE changes cell at 0.2 s."""
    bench = Bench(city, phy, serving=serving)
    bench.put(0, context=4000.0, streaming=streaming)
    bench.step(1)
    for _ in range(40):
        now, me = bench.sim.state.world["time_s"][0], bench.ue[0]
        behind = me["server"] != me["radio"] and me["phase"] == IDLE
        prepare = (option.when == EARLY and now < 0.15) or (option.when == FETCH and behind)
        stays = option.when == STAY or (option.when == FETCH and not behind)
        bench.plan(0, target=1 if prepare else -1, medium=DETOUR if stays else option.medium, keep=option.keep,
                   bits=option.bits, backfill=option.backfill, arrival=RESUME if option.backfill > 0 else 0,
                   prefix=int(option.prefix * 4000) if option.medium == SPLIT else -1)
        if abs(now - 0.2) < 1e-6:
            bench.hand_over(0, 1, now)
        bench.step()
        if bench.resumed() and me["server"] == 1 and me["phase"] == IDLE:
            break
    flow, prices = np.array(bench.flows)[:, None], [getattr(price, name) for name in rewards.NAMES]
    none = np.zeros(flow.shape)
    return float((rewards.amounts(flow, none, none) * prices).sum())


OPTIONS = [
    Option(AT, TOKEN), Option(AT, KV), Option(AT, KV, 0.5), Option(AT, KV, 0.1, 4), Option(AT, SPLIT, 1.0, 8, 0.5),
    Option(AT, KV, 0.25, 4, 0.0, 1.0), Option(EARLY, TOKEN), Option(EARLY, KV), Option(EARLY, SPLIT, 1.0, 16, 0.25),
    Option(EARLY, KV, 1.0, 16, 0.0, 1.0), Option(EARLY, KV, 0.25, 4, 0.0, 1.0), Option(FETCH, TOKEN),
    Option(FETCH, KV), Option(FETCH, SPLIT, 0.5, 8, 0.5)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_the_expected_cost_is_what_the_simulator_charges(city, phy, option, streaming):
    delay = CONFIG.backhaul.hop_s if option.when == FETCH else np.inf
    s = situation(ahead_s=0.1, rest=1e6, tokens_per_s=25.0 * streaming, waits=float(streaming),
                  delay_s=delay if streaming or delay == np.inf else 0.0)
    assert simulated_cost(city, phy, option, streaming) == pytest.approx(expected(option, s), rel=0.05, abs=4e-3)


@pytest.mark.parametrize("option", [Option(AT, KV), Option(EARLY, TOKEN), Option(AT, SPLIT, 0.5, 8, 0.25),
                                    Option(FETCH, KV, 0.5, 4), Option(AT, KV, 0.25, 4, 0.0, 1.0)], ids=str)
@pytest.mark.parametrize("name", ["traffic", "gpu"])
def test_every_amount_has_its_own_price(city, phy, option, name):
    # One price alone, or a small term would hide behind a large one.
    price = replace(RewardConfig(**dict.fromkeys(rewards.NAMES, 0.0)), **{name: 1.0})
    found = expected(option, situation(ahead_s=0.1, rest=1e6, delay_s=0.02), replace(CONFIG, reward=price))
    assert simulated_cost(city, phy, option, False, price) == pytest.approx(found, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("option", [Option(AT, KV), Option(AT, KV, 0.5), Option(EARLY, KV)], ids=str)
def test_what_arrives_must_also_be_restored(city, phy, option):
    # 0.2 GB per second: a whole cache of 4000 tokens takes 1.1 s into the memory of the GPU.
    slow = dict(restore_bytes_per_s=2e8)
    s = situation(ahead_s=0.1, rest=1e6, tokens_per_s=25.0)
    with_restore, without = (expected(option, s, replace(CONFIG, serving=replace(SERVING, restore_bytes_per_s=speed)))
                             for speed in (2e8, 1e18))
    assert simulated_cost(city, phy, option, True, **slow) == pytest.approx(with_restore, rel=0.03)
    assert with_restore > 1.1 * without


def test_who_stays_is_delayed_once(city, phy):
    found = expected(Option(STAY, DETOUR), situation(rest=1e6, ahead_s=0.1, delay_s=CONFIG.backhaul.hop_s))
    assert found == pytest.approx(RADIO_S + FIRST_TOKEN_S + CONFIG.backhaul.hop_s, rel=1e-3)
    assert simulated_cost(city, phy, Option(STAY, DETOUR), True) == pytest.approx(found, rel=0.01)


def test_a_prefill_beside_others_takes_longer_and_slows_them():
    chunked = replace(CONFIG, compute=replace(CONFIG.compute, prefill="chunked", chunk_tokens=500))
    slow = replace(chunked, sessions=replace(CONFIG.sessions, tpot_objective_s=0.05))
    alone, beside = situation(), situation(sharers=3.0)
    # 8 chunks of 0.052 s; beside others 8 iterations of 0.04 s in between.
    tokens, world = np.array([4000.0]), delays.world_record(slow)
    assert delays.prefill(tokens, alone, world)[0] == pytest.approx(0.416)
    assert delays.prefill(tokens, alone, world)[1] == pytest.approx(0.416)
    assert delays.prefill(tokens, beside, world)[1] == pytest.approx(0.416 + 8 * 0.04)
    assert delays.prefill(tokens, alone, world)[2] == 0.0
    # A token takes 0.092 s instead of the 0.05 s that are accepted, for three of them.
    assert delays.prefill(tokens, beside, world)[2] == pytest.approx(3 * 8 * (0.092 - 0.05))


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
    shipped = (folder / "envs" / "handover" / "harm" / "drift_numbers.py").read_text(encoding="utf-8")
    assert shipped == made, "run: python docs/make_drift_table.py"


def test_the_table_is_of_the_default_scorer():
    scoring = HandoverConfig().scoring
    assert scoring.scorer + ("@head" if scoring.scope == "head" else "") == SCORER


def test_every_precision_of_a_plan_was_measured_and_no_other_is_taken_for_free():
    assert {bits for _, bits in KL[SCORER]} == set(PLAN_BITS)
    with pytest.raises(ValueError, match="bits is 2"):
        drift_per_token(0.5, 2)


def test_harm_is_drift_and_wrong_answers_at_their_prices():
    config = HandoverConfig(reward=RewardConfig(drift=2.0, wrong=3.0))
    assert harm(0.25, 4, config) == pytest.approx(2.0 * KL[SCORER][0.25, 4] + 3.0 * WRONG[SCORER][0.25, 4])


def test_it_prefers_the_exact_plan_when_drift_is_dear_and_the_small_one_when_time_is():
    s = situation(rest=4000.0, rate_bps=1e8, prefill_s_per_token=1e-2)
    for prices, keeps in ((RewardConfig(drift=100.0), 1.0), (RewardConfig(drift=0.0, wrong=0.0), 0.1)):
        config = replace(CONFIG, reward=prices)
        at = [option for option in options(config) if option.when == AT and (option.keep == 1.0 or not option.backfill)]
        assert at[int(np.argmin([expected(option, s, config) for option in at]))].keep == keeps


def test_a_lost_cache_heals_only_by_prefill():
    # Half of the rows: a cache that is sent is smaller, but stays what it is.
    config = replace(CONFIG, reward=RewardConfig(**dict.fromkeys(rewards.NAMES, 0.0)))
    config = replace(config, reward=replace(config.reward, drift=1.0))
    found = {m: expected(Option(AT, m, prefix=0.5), situation(rest=800.0, density=0.5), config)
             for m in (TOKEN, KV, SPLIT)}
    scale = SERVING.context_scale
    assert found[TOKEN] == 0.0
    assert found[SPLIT] == pytest.approx(0.5 * KL[SCORER][0.5, 4] * 800.0 / scale)


def test_what_follows_ends_the_harm():
    config = replace(CONFIG, reward=replace(RewardConfig(**dict.fromkeys(rewards.NAMES, 0.0)), drift=1.0))
    s = situation(rest=4000.0, tokens_per_s=25.0)
    for_ever, for_a_while = (expected(Option(AT, KV, 0.25, 16, 0.0, backfill), s, config) for backfill in (0.0, 1.0))
    # Three quarters of 4000 tokens take 1.38 s over 1 Gbit/s.
    assert for_a_while / for_ever == pytest.approx(25.0 * 0.75 * 4000 * 458_752 / LINK_BPS / 4000.0, rel=1e-6)


def test_options_cover_all_levels_once():
    every = options(CONFIG)
    # Token; kv and four splits at three precisions: whole, and four smaller ones with and without the rest.
    assert len(every) == len(set(every)) == 1 + 3 * (1 + 5 * 3 * (1 + 2 * 4))


def planner_of(bench, config=CONFIG, **changes):
    view, policy = NetworkView(bench.sim, 3), GreedyPlanner(config, **changes)
    policy.reset(view)
    return view, policy


def test_the_policy_writes_the_cheapest_plan(city, phy):
    bench = Bench(city, phy, ues=2, **NOT_FORWARDED)
    bench.put(1, streaming=True)
    bench.hand_over(1, 4, 0.05)  # about to leave
    view, policy = planner_of(bench)
    plans = policy.act(view)[0]
    one = np.array([0])
    s = policy.situation(view, one, one + 1, np.array([4]), np.array([0.05]), np.array([False]), np.array([True]))
    table = np.array([expected(option, s) for option in policy.options])
    assert policy._table(s, np.array([True]))[:, 0][np.isfinite(table)] == pytest.approx(table[np.isfinite(table)])
    best = policy.options[int(np.nanargmin(np.where(np.isfinite(table), table, np.nan)))]
    written = plans[1]
    assert best.when in (EARLY, AT)
    assert (written["keep"], written["bits"], written["medium"]) == (best.keep, best.bits, best.medium)
    assert written["target"] == (4 if best.when == EARLY else -1)
    # Nobody has announced anything for UE 0: a part first, and the rest behind it.
    assert (plans["target"][0], plans["medium"][0], plans["keep"][0]) == (-1, SPLIT, 0.25)


def test_a_bad_horizon_is_named():
    for name in ("rest_tokens", "horizon_s"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            GreedyPlanner(CONFIG, **{name: -1.0})


def test_the_inputs_of_the_delay_model_are_those_of_the_world(city, phy):
    # UE 2 sends from cell 0 to cell 4; the server of cell 4 is three times as fast, and busy for 0.3 s.
    bench = Bench(city, phy, ues=3)
    bench.put(0, context=4000.0, streaming=True, held=1000.0)
    bench.put(1, context=5000.0)
    bench.put(2, context=9000.0)
    bench.plan(2, target=4, medium=KV)
    bench.step()
    now = float(bench.sim.state.world["time_s"][0])
    bench.cell[4]["speed"], bench.cell[4]["busy_until"] = 3.0, now + 0.3
    # Answers of 100 tokens take 4 s, pauses 6 s: 25 token/s while it answers, 10 on average.
    sessions = replace(CONFIG.sessions, script_tokens=4600, answer_tokens=(100.0, 0.0), think_s=6.0)
    view, policy = planner_of(bench, replace(CONFIG, sessions=sessions), rest_tokens=500.0)
    s = policy.situation(view, np.array([0, 0]), np.array([0, 1]), np.array([4, 4]), np.array([0.2, -0.1]),
                         np.array([False, True]), np.array([True, False]))
    context = bench.ue["context"][:2]
    assert s.context.tolist() == context.tolist() and context[0] > 4000.0
    assert s.density == pytest.approx([bench.ue[0]["held"] / context[0], 1.0])
    assert s.rest == pytest.approx([500.0, 500.0])
    assert s.tokens_per_s == pytest.approx([25.0, 10.0])
    assert s.waits == pytest.approx([0.4 + 0.6 * np.exp(-0.2 / 3.0), 0.4 - 0.4 * np.exp(0.1 / 3.0)], abs=1e-9)
    assert s.rate_bps == pytest.approx([0.7 * LINK_BPS] * 2)
    assert s.backlog_bits == pytest.approx([float(bench.ue[2]["bits_left"])] * 2) and s.flows.tolist() == [1, 1]
    assert s.wait_s == pytest.approx([0.3] * 2, abs=1e-6)
    assert s.prefill_s_per_token == pytest.approx([1e-4 / 3.0] * 2)
    assert s.iteration_s == pytest.approx([FIRST_TOKEN_S / 3.0] * 2)
    assert s.ahead_s.tolist() == [0.2, 0.0] and s.behind.tolist() == [False, True]
    assert s.sure == pytest.approx([1.0, 0.95])


@pytest.mark.parametrize("rest", [(4600, 600.0), (4200, 200.0), (3000, 0.0)])
def test_a_session_pays_for_what_is_left_of_its_script(city, phy, rest):
    script, left = rest
    bench = Bench(city, phy)
    bench.put(0, context=4000.0)
    config = replace(CONFIG, sessions=replace(CONFIG.sessions, script_tokens=script),
                     serving=replace(CONFIG.serving, context_scale=1))
    view, policy = planner_of(bench, config)
    one, no = np.array([0]), np.array([False])
    assert policy.situation(view, one, one, np.array([1]), np.array([0.1]), no, no).rest == left


def predict(view, cell, in_s):
    view._next_cell[:], view._next_s[:] = cell, view.time_s[:, None] + in_s


def test_what_is_predicted_is_prepared_and_another_prediction_moves_it(city, phy):
    bench = Bench(city, phy, **NOT_FORWARDED)
    bench.put(0, context=4000.0, streaming=True)
    view, policy = planner_of(bench)
    for cell in (1, 2):
        predict(view, cell, 0.6)
        bench.plans = policy.act(view)
        assert bench.plans["target"][0, 0] == cell
        bench.step()
        view.refresh()
    # Under way, and not begun again; nor given up when nothing is predicted for a while.
    for cell, in_s in ((2, 0.4), (-1, np.inf)):
        predict(view, cell, in_s)
        assert policy.act(view)["target"][0, 0] == -1


def test_a_server_without_memory_is_no_target(city, phy):
    bench = Bench(city, phy, ues=1, **NOT_FORWARDED)
    bench.hand_over(0, 4, 0.05)
    bench.cell["memory_bytes"][4] = 0.0
    view, policy = planner_of(bench)
    assert policy.act(view)["target"][0, 0] == -1


def test_the_second_knows_what_the_first_begins(city, phy):
    bench = Bench(city, phy, ues=2, **NOT_FORWARDED)
    for u in (0, 1):
        bench.put(u, context=6000.0, streaming=True)
    view, policy = planner_of(bench)
    seen = []
    taken = policy.situation
    policy.situation = lambda *given: seen.append(taken(*given)) or seen[-1]
    predict(view, 1, np.array([[0.4, 0.6]]))
    assert policy.act(view)["target"].tolist() == [[1, 1]]
    first, second = seen
    assert first.backlog_bits[0] + first.wait_s[0] < 0.02
    assert second.flows[0] == 1 or second.wait_s[0] > 0.02


def test_it_repairs_what_is_worth_it(city, phy):
    repairs = {}
    for drift in (0.0, 100.0):
        bench = Bench(city, phy)
        bench.put(0, context=4000.0, streaming=True, held=1000.0)
        view, policy = planner_of(bench, replace(CONFIG, reward=RewardConfig(drift=drift, wrong=0.0)))
        repairs[drift] = int(policy.act(view)["repair"][0, 0])
    assert repairs == {0.0: 0, 100.0: 1}


def test_where_tokens_are_forwarded_nobody_waits(city, phy):
    bench = Bench(city, phy, ues=2)
    bench.put(0, radio=1, server=0, context=4000.0, streaming=True)  # left behind
    view, policy = planner_of(bench, replace(CONFIG, reward=RewardConfig(drift=0.0, wrong=0.0, detour=100.0)))
    plans = policy.act(view)[0]
    assert (plans["arrival"] == 2).all()
    assert plans["target"][0] in (-1, 1)


def test_with_the_street_map_it_prepares_for_what_that_says_and_only_if_it_is_likely(city, phy):
    for chance, target in ((0.9, 3), (0.1, -1)):
        bench = Bench(city, phy, **NOT_FORWARDED)
        bench.put(0, context=4000.0, streaming=True)
        view, policy = planner_of(bench, streets=True)
        assert policy.name == "greedy-planner:streets=True"
        predict(view, 1, 0.6)  # straight on it would be cell 1
        seen = policy._routes._forecast
        policy._routes.watch = lambda sim, seen=seen: seen
        seen.cell[:], seen.at_s[:], seen.chance[:] = 3, view.time_s + 0.6, chance
        assert policy.act(view)["target"][0, 0] == target


def test_the_less_likely_a_handover_is_the_less_is_done_for_it(city, phy):
    option = Option(EARLY, KV, 0.25, 4)
    likely, unlikely = (expected(option, situation(ahead_s=5.0, sure=sure, known=False)) for sure in (1.0, 0.2))
    at = expected(Option(AT, KV, 0.25, 4), situation(ahead_s=5.0, known=False))
    assert likely < at and unlikely < likely and expected(option, situation(ahead_s=5.0, sure=0.0, known=False)) > 0.0
