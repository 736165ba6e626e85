"""The PettingZoo environment: API, determinism, masks, observations, rewards, errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pettingzoo
import pytest
from pettingzoo.test import parallel_api_test

import kvroam
from kvroam.envs import HandoverEnv
from kvroam.envs.handover.actions import sizes
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.rewards import NAMES as TERMS
from kvroam.envs.sim.params import SessionConfig
from kvroam.errors import ConfigError

PHYSICS = HandoverConfig(episode_s=20.0, scoring=ScoringConfig(mode="none"))
SCORED = HandoverConfig(num_ues=8, episode_s=12.0, sessions=SessionConfig(scripts=4))


def masked_actions(env: HandoverEnv, infos: dict, generator: np.random.Generator) -> dict:
    """Random actions among those that the masks allow."""
    actions = {}
    for agent, info in infos.items():
        parts = np.split(info["action_mask"], np.cumsum(sizes(env.config.actions))[:-1])
        actions[agent] = np.array([generator.choice(np.flatnonzero(part)) for part in parts])
    return actions


def trace(config: HandoverConfig, seed: int) -> list[str]:
    """The digests of a full episode under random masked actions."""
    env, generator = HandoverEnv(config), np.random.default_rng(5)
    _, infos = env.reset(seed=seed)
    digests = []
    while env.agents:
        *_, infos = env.step(masked_actions(env, infos, generator))
        digests.append(env.core.digest())
    return digests


def test_it_passes_the_api_test_of_pettingzoo() -> None:
    parallel_api_test(HandoverEnv(PHYSICS), num_cycles=250)


def test_the_registered_id_makes_the_environment() -> None:
    env = pettingzoo.make("parallel", "kvroam/Handover-v0", config=PHYSICS, max_cycles=3)
    env.reset(seed=1)
    for _ in range(3):
        assert env.agents
        env.step({a: env.action_space(a).sample() for a in env.agents})
    assert env.agents == []
    assert kvroam.__version__


@pytest.mark.parametrize("config", [PHYSICS, SCORED], ids=["physics", "scored"])
def test_a_full_episode_repeats_from_its_seed_and_differs_for_another(config: HandoverConfig) -> None:
    first = trace(config, 3)
    assert trace(config, 3) == first
    assert len(set(first)) == len(first)
    assert trace(config, 4)[-1] != first[-1]


def test_a_second_process_gives_the_same_trace() -> None:
    program = (f"import runpy; t = runpy.run_path({str(Path(__file__).resolve())!r}); "
               "print(t['trace'](t['SCORED'], 3)[-1])")
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip().splitlines()[-1] == trace(SCORED, 3)[-1]


def test_episodes_without_a_new_seed_go_on_and_repeat_from_the_first_seed() -> None:
    def positions() -> list[np.ndarray]:
        env = HandoverEnv(PHYSICS)
        env.reset(seed=9)
        first = env.core.view.position_m
        env.reset()
        return [first, env.core.view.position_m]

    a, b = positions(), positions()
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    assert not np.array_equal(a[0], a[1])


def test_reward_terms_in_info_sum_to_the_reward_exactly() -> None:
    env, generator = HandoverEnv(PHYSICS), np.random.default_rng(0)
    _, infos = env.reset(seed=2)
    seen = np.zeros(len(TERMS))
    while env.agents:
        _, rewards, _, _, infos = env.step(masked_actions(env, infos, generator))
        for agent, reward in rewards.items():
            terms = [infos[agent][f"reward_{name}"] for name in TERMS]
            total = 0.0
            for term in terms:
                total += term
            assert total == reward
            seen += terms
    assert all(seen[TERMS.index(name)] < 0 for name in ("interruption", "traffic", "gpu", "waste"))


def test_observations_match_their_documentation() -> None:
    env, generator = HandoverEnv(PHYSICS), np.random.default_rng(1)
    table = env.core.task.features
    assert len({f.name for f in table}) == len(table)
    assert env.observation_space("ue_0").shape == (len(table),)
    low, high = np.full(len(table), np.inf), np.full(len(table), -np.inf)
    rows, infos = env.reset(seed=0)
    index = {f.name: i for i, f in enumerate(table)}
    while env.agents:
        view = env.core.view
        for u, agent in enumerate(env.agents):
            row = rows[agent]
            assert env.observation_space(agent).contains(row)
            assert row[index["streaming"]] == view.streaming[0, u]
            assert row[index["interrupted"]] == (view.phase[0, u] == 2)
            assert row[index["detoured"]] == (view.server_cell[0, u] != view.radio_cell[0, u])
            assert row[index["sinr"]] == pytest.approx(np.clip(view.sinr_db[0, u] / 30, -1, 2), abs=1e-6)
            near = max(0.0, 1 - max(view.handover_in_s[0, u], 0) / 0.5)
            assert row[index["urgency"]] == pytest.approx(near, abs=1e-6)
            soon = max(0.0, 1 - view.predicted_in_s[0, u] / 5)
            assert row[index["predicted_in"]] == pytest.approx(soon, abs=1e-6)
            strongest = view.candidates[0, u, 1]
            assert row[index["candidate_1_is_predicted"]] == (view.predicted_cell[0, u] == strongest)
            prefill = view.context_tokens[0, u] * view.prefill_s_per_token[0, strongest] + view.prefill_overhead_s
            assert row[index["candidate_1_prefill"]] == pytest.approx(prefill / (prefill + 2), abs=1e-6)
            whole = view.held_tokens[0, u] * view.kv_bits_per_token(16) / view.ingress_bps[0, strongest]
            assert row[index["candidate_1_receive_time"]] == pytest.approx(whole / (whole + 2), abs=1e-6)
            low, high = np.minimum(low, row), np.maximum(high, row)
        rows, _, _, _, infos = env.step(masked_actions(env, infos, generator))
    constant = {f.name for f, a, b in zip(table, low, high, strict=True) if a == b}
    # The own cell has no margin over itself and is never next, and weaker neighbours hardly ever are.
    always = {"candidate_0_margin", *(f"candidate_{k}_is_next" for k in (0, 2, 3))}
    always |= {f"candidate_{k}_is_predicted" for k in (0, 3)}
    always |= {"forwarding"} | {f"candidate_{k}_present" for k in range(1, 4)}
    assert constant <= always


def test_observations_are_fresh_arrays() -> None:
    env = HandoverEnv(PHYSICS)
    before, _ = env.reset(seed=0)
    copies = {a: row.copy() for a, row in before.items()}
    after, *_ = env.step({a: np.zeros(9, np.int64) for a in env.agents})
    assert all(np.array_equal(before[a], copies[a]) for a in before)
    assert not any(np.shares_memory(before[a], after[b]) for a in before for b in after)


def test_the_state_is_all_observations_one_after_the_other() -> None:
    env = HandoverEnv(PHYSICS)
    rows, _ = env.reset(seed=0)
    assert np.array_equal(env.state(), np.concatenate([rows[a] for a in env.agents]))
    assert env.state_space.contains(env.state())


def test_masks_forbid_what_has_no_effect() -> None:
    env = HandoverEnv(PHYSICS)
    _, infos = env.reset(seed=0)
    size = sizes(env.config.actions)
    assert all(not info["action_mask"][1] for info in infos.values()), "no session was left behind yet"
    assert all(not info["action_mask"][size[0] - 1] for info in infos.values()), "nothing to cancel yet"
    # Strongest neighbour, kv, share 0: stays preparing.
    prepare = {a: np.array([2, 1, 0, 0, 3, 0, 0, 0, 0]) for a in env.agents}
    *_, infos = env.step(prepare)
    assert all(info["action_mask"][size[0] - 1] for info in infos.values())


def test_a_mask_of_an_interrupted_session_leaves_the_shares_and_the_arrival() -> None:
    env = HandoverEnv(PHYSICS)
    _, infos = env.reset(seed=0)
    while env.agents and not (env.core.view.phase == 2).any():
        *_, infos = env.step({a: np.array([0, 1, 0, 0, 3, 0, 0, 0, 0]) for a in env.agents})
    u = int(np.flatnonzero(env.core.view.phase[0] == 2)[0])
    parts = np.split(infos[f"ue_{u}"]["action_mask"], np.cumsum(sizes(env.config.actions))[:-1])
    assert [int(part.sum()) for part in parts] == [
        1, 1, 1, 1, len(env.config.actions.weight), len(env.config.actions.backfill), 2, 1, 1]


@pytest.mark.parametrize(("action", "match"), [
    (np.array([0, 4, 0, 0, 0, 0, 0, 0, 0]), "outside MultiDiscrete"),
    (np.array([-1, 0, 0, 0, 0, 0, 0, 0, 0]), "outside MultiDiscrete"),
    (np.zeros(7, np.int64), "expected integers"),
    (np.zeros(9), "expected integers"),
])
def test_actions_outside_the_space_are_refused(action: np.ndarray, match: str) -> None:
    env = HandoverEnv(PHYSICS)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=match):
        env.step(dict.fromkeys(env.agents, action))


def test_stepping_outside_an_episode_and_wrong_agents_are_refused() -> None:
    env = HandoverEnv(PHYSICS, max_cycles=1)
    action = np.zeros(9, np.int64)
    with pytest.raises(RuntimeError, match="reset"):
        env.step({})
    env.reset(seed=0)
    with pytest.raises(KeyError, match="ue_99"):
        env.step({**dict.fromkeys(env.agents, action), "ue_99": action})
    with pytest.raises(KeyError, match="ue_3"):
        env.step({a: action for a in env.agents if a != "ue_3"})
    env.step(dict.fromkeys(env.agents, action))
    with pytest.raises(RuntimeError, match="reset"):
        env.step({})


def test_configurations_may_be_mappings_names_and_paths() -> None:
    env = HandoverEnv({"num_ues": 3, "scoring": {"mode": "none"}})
    assert env.possible_agents == ["ue_0", "ue_1", "ue_2"]
    with pytest.raises(ConfigError, match="num_ues"):
        HandoverEnv({"num_uess": 3})
    with pytest.raises(ConfigError, match="nowhere"):
        HandoverEnv("nowhere.yaml")


def test_importing_kvroam_is_light() -> None:
    program = ("import sys, kvroam; heavy = {'torch', 'sionna', 'matplotlib', 'transformers', 'numba', 'mitsuba'} & "
               "set(sys.modules); print(sorted(heavy))")
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
