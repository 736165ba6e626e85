"""actions.trigger policy: the action hands UEs over; event A3 is a report."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kvroam import agents
from kvroam.agents.handover.a3_handovers import add_a3_handovers
from kvroam.envs import HandoverEgoEnv, HandoverEnv, make_core
from kvroam.envs.handover.actions import sizes
from kvroam.envs.handover.config import ActionConfig, HandoverConfig, RewardConfig, ScoringConfig
from kvroam.envs.handover.world.simulator import idle_plans
from kvroam.envs.handover.world.state import IDLE, INTERRUPTED, KV

A3 = HandoverConfig(num_ues=8, episode_s=30.0, scoring=ScoringConfig(mode="none"))
POLICY = replace(A3, actions=ActionConfig(trigger="policy"), reward=RewardConfig(pingpong=2.0))


def test_the_action_has_a_tenth_part_only_then() -> None:
    assert [*sizes(A3.actions), 2] == sizes(POLICY.actions)
    assert HandoverEnv(POLICY).action_space("ue_0").shape == (10,)


def test_nobody_changes_cell_unless_the_plan_says_so() -> None:
    cores = {}
    for config in (A3, POLICY):
        # Without radio-link failures: a UE that lost its cell finds another one by itself.
        config = replace(config, radio=replace(config.radio, q_out_db=-1000.0))
        cores[config], moves = make_core(config), 0
        cores[config].reset([1])
        start = cores[config].view.radio_cell
        for _ in range(config.max_steps):
            cores[config].step(idle_plans(1, 8))
            moves += cores[config].task.sim.state.flow["handovers"].sum()
        if config.actions.trigger == "a3":
            assert moves > 5
        else:
            assert moves == 0 and np.array_equal(cores[config].view.radio_cell, start)
    by_a3, by_policy = cores.values()
    assert np.array_equal(by_a3.view.position_m, by_policy.view.position_m)


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_a_handover_changes_to_the_chosen_neighbour_at_once_and_its_plan_moves_the_session(slot: int) -> None:
    core = make_core(POLICY)
    core.reset([3])
    before, wanted = core.view.radio_cell, core.view.candidates[0, 2, slot]
    action = np.zeros((1, 8, 10), np.int64)
    action[0, 2] = [slot + 1, KV, 1, 0, 3, 0, 0, 0, 0, 1]  # keep 0.75 of the KV; share 0: the transfer waits
    core.step(core.decode(action))
    me = core.task.sim.state.ue[0, 2]
    assert me["radio"] == wanted != before[0, 2] and me["previous"] == before[0, 2]
    assert me["since_s"] == me["handover_s"] == 0.0 and me["phase"] == INTERRUPTED
    assert me["target"] == wanted and me["server"] == before[0, 2]
    assert me["bits_left"] == pytest.approx(0.75 * me["context"] * core.view.kv_bits_per_token(16))
    assert core.task.sim.state.flow["handovers"].tolist() == [[0, 0, 1, 0, 0, 0, 0, 0]]
    assert core.task.sim.state.flow["interruption_s"][0, 2] == pytest.approx(0.1)


def test_a_handover_without_a_neighbour_as_target_is_none() -> None:
    core = make_core(POLICY)
    core.reset([3])
    for target in (0, 1, sizes(POLICY.actions)[0] - 1):
        action = np.zeros((1, 8, 10), np.int64)
        action[..., 0], action[..., -1] = target, 1
        core.step(core.decode(action))
        assert core.task.sim.state.flow["handovers"].sum() == 0


def test_a_detour_leaves_the_session_where_it_is_and_going_back_is_a_pingpong_with_its_price() -> None:
    env = HandoverEnv(replace(POLICY, backhaul=replace(POLICY.backhaul, forwarding=8)))
    env.reset(seed=3)
    home = int(env.core.view.radio_cell[0, 0])
    stay = {agent: np.zeros(10, np.int64) for agent in env.possible_agents}
    env.step({**stay, "ue_0": np.array([2, 3, 0, 0, 0, 0, 0, 0, 0, 1])})
    for _ in range(3):
        env.step(stay)
    view = env.core.view
    assert view.server_cell[0, 0] == home != view.radio_cell[0, 0] and view.phase[0, 0] == IDLE
    slot = int(np.flatnonzero(view.candidates[0, 0] == home)[0])
    assert slot > 0, "home is the strongest neighbour now"
    mask = env.core.masks()[0, 0]
    assert mask[slot + 1] and mask[-1], "home holds the session, and may still be handed over to"
    _, rewards, _, _, infos = env.step({**stay, "ue_0": np.array([slot + 1, 3, 0, 0, 0, 0, 0, 0, 0, 1])})
    assert env.core.view.radio_cell[0, 0] == home
    assert infos["ue_0"]["reward_pingpong"] == -2.0 and rewards["ue_0"] <= -2.0
    assert all(infos[a]["reward_pingpong"] == 0.0 for a in env.agents if a != "ue_0")


def test_a_report_needs_the_entering_condition_until_it_triggers_and_then_ends_when_leaving_holds() -> None:
    core = make_core(replace(POLICY, episode_s=60.0))
    core.reset([1])
    radio, due, ended = POLICY.radio, [-1] * 8, 0
    for _ in range(600):
        core.step(idle_plans(1, 8))
        rsrp, ue = core.task.sim.state.rsrp_dbm[0], core.task.sim.state.ue[0]
        for u in range(8):
            cell = int(ue["fire_cell"][u])
            if cell >= 0:
                margin = rsrp[u, cell] - rsrp[u, ue["radio"][u]] - radio.a3_offset_db
                triggered = core.view.handover_in_s[0, u] <= ue["phase_s"][u]
                assert margin >= -radio.hysteresis_db if triggered else margin > radio.hysteresis_db
            ended += due[u] >= 0 and due[u] != cell
            due[u] = cell if core.view.handover_in_s[0, u] <= 0.0 else -1
    assert ended > 0


def test_following_a3_hands_over_what_is_due_and_nothing_else() -> None:
    view = SimpleNamespace(handover_in_s=np.array([[0.0, 0.05, np.inf, 0.0, -0.0]]),
                           handover_cell=np.array([[4, 3, -1, 2, 6]]))
    plans = idle_plans(1, 5)
    plans["handover"][0, 3] = 5
    assert add_a3_handovers(view, plans)["handover"].tolist() == [[4, -1, -1, 5, 6]]


@pytest.mark.parametrize("name", ["cho", "ctho"])
def test_policies_that_follow_a3_make_the_handovers_of_a3(name: str) -> None:
    visited = []
    for config in (A3, POLICY):
        core, policy = make_core(config), agents.make(name, config)
        core.reset([5])
        policy.reset(core.view)
        cells: list[list[int]] = [[int(c)] for c in core.view.radio_cell[0]]
        for _ in range(config.max_steps):
            core.step(policy.act(core.view))
            for mine, cell in zip(cells, core.view.radio_cell[0], strict=True):
                if mine[-1] != cell:
                    mine.append(int(cell))
        visited.append(cells)
    handovers = sum(len(mine) - 1 for mine in visited[0])
    alike = sum(a == b for a, b in zip(*visited, strict=True))
    assert handovers > 8 and alike >= 6, visited


def test_policy_objects_follow_a3_too_where_they_are_evaluated_and_where_they_are_the_others() -> None:
    from kvroam.agents.handover.constant import ConstantPlan
    from kvroam.evaluate import evaluate
    from kvroam.experiment import load_experiment

    changes = ["num_ues=8", "episode_s=20", "scoring.mode=none", "actions.trigger=policy"]
    experiment = load_experiment("handover", changes)
    config = experiment.environment
    results = evaluate(experiment, [ConstantPlan("kv")], 1, 5)
    assert results["policies"]["kv 16 bit"]["episodes"]["handovers"][0] > 0
    env, moves = HandoverEgoEnv(config, others=ConstantPlan("kv")), np.zeros(8)
    env.reset(seed=5)
    for _ in range(200):
        env.step(np.zeros(10, np.int64))
        moves += env.core.task.sim.state.flow["handovers"][0]
    assert moves[0] == 0 < moves[1:].sum()


# hindsight refuses such a world (tests/agents/test_hindsight.py).
@pytest.mark.parametrize("name", [name for name in agents.names() if name != "hindsight"])
def test_every_named_policy_plays_and_changes_cell(name: str) -> None:
    core, policy, moves = make_core(POLICY), agents.make(name, POLICY), 0
    core.reset([5])
    policy.reset(core.view)
    for _ in range(100):
        core.step(policy.act(core.view))
        moves += core.task.sim.state.flow["handovers"].sum()
    assert moves > 0


def test_plans_that_hand_over_are_refused_under_a3_and_so_are_cells_that_do_not_exist() -> None:
    plans = idle_plans(1, 8)
    plans["handover"][0, 1] = 2
    core = make_core(A3)
    core.reset([0])
    with pytest.raises(ValueError, match=r"actions\.trigger"):
        core.step(plans)
    core = make_core(POLICY)
    core.reset([0])
    plans["handover"][0, 1] = core.task.sim.num_cells
    with pytest.raises(ValueError, match="numbered from 0"):
        core.step(plans)


def test_masked_actions_of_a_long_random_run_stay_within_the_space_and_lose_no_session() -> None:
    env, generator = HandoverEnv(replace(POLICY, episode_s=60.0)), np.random.default_rng(0)
    rows, infos = env.reset(seed=2)
    space, context = env.action_space("ue_0"), env.core.view.context_tokens
    session = env.core.task.sim.state.ue["session"].copy()
    space.seed(int(generator.integers(100)))
    while env.agents:
        rows, *_, infos = env.step({a: space.sample(infos[a]["action_mask"]) for a in env.agents})
        ue = env.core.task.sim.state.ue
        same = ue["session"] == session
        assert (ue["context"][same] >= context[same]).all()
        assert all(env.observation_space(a).contains(row) for a, row in rows.items())
        context, session = ue["context"].copy(), ue["session"].copy()
