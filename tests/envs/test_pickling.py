"""Environments pickle in the middle of an episode and go on bit for bit; they run in other processes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest

import kvroam  # noqa: F401
from kvroam.envs import HandoverCentralEnv, HandoverEgoEnv, HandoverEnv, env, make_core
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.envs.handover.world.simulator import idle_plans
from kvroam.envs.handover.world.state import KV
from kvroam.envs.sim.params import SessionConfig
from kvroam.envs.views.wrappers import BoxActions, ParallelDictActions

SCORED = HandoverConfig(num_ues=8, episode_s=15.0, sessions=SessionConfig(scripts=4, think_s=0.2))
PHYSICS = HandoverConfig(num_ues=4, episode_s=2.0, scoring=ScoringConfig(mode="none"))


@pytest.mark.parametrize("mode", [{}, {"drift": "resume", "horizon": 16}, {"mode": "none"}], ids=str)
def test_a_pickled_core_goes_on_exactly_with_pruned_sessions_and_running_transfers(mode: dict) -> None:
    core = make_core(replace(SCORED, scoring=ScoringConfig(**mode)), 2)
    core.reset([0, 7])
    plans = idle_plans(2, 8)
    plans["medium"], plans["keep"], plans["bits"] = KV, 0.3, 4
    for _ in range(600):
        core.step(plans)
        if (core.task.sim.state.ue["phase"] != 0).any() and (core.task.scorer is None or core.task.scorer.degraded > 1):
            break
    else:
        raise AssertionError("nothing moved, or nothing was pruned")
    twins = [pickle.loads(pickle.dumps(core)), copy.deepcopy(core)]
    for _ in range(50):
        core.step(plans)
        for twin in twins:
            twin.step(plans)
            assert twin.digest() == core.digest()
            assert np.array_equal(twin.observe(), core.observe()) and np.array_equal(twin.masks(), core.masks())
            if core.task.scores is not None:
                for name, values in vars(core.task.scores).items():
                    assert np.array_equal(values, getattr(twin.task.scores, name)), name
    for one in (core, *twins):
        one.reset()
    assert twins[0].digest() == twins[1].digest() == core.digest()
    twins[0].step(plans)
    assert twins[0].digest() != core.digest(), "twins share nothing"


def test_a_core_that_was_never_reset_pickles() -> None:
    core = pickle.loads(pickle.dumps(make_core(PHYSICS)))
    with pytest.raises(RuntimeError, match="reset"):
        core.step(idle_plans(1, 4))
    core.reset([0])


@pytest.mark.parametrize("make", [
    HandoverCentralEnv, HandoverEgoEnv, lambda c: BoxActions(HandoverEgoEnv(c)),
    lambda c: gym.make("kvroam/HandoverCentral-v0", config=c),
], ids=["central", "ego", "box", "made"])
def test_gymnasium_environments_pickle_in_mid_episode(make: Callable) -> None:
    one = make(PHYSICS)
    one.reset(seed=3)
    one.action_space.seed(0)
    for _ in range(7):
        one.step(one.action_space.sample())
    twin, over, n = pickle.loads(pickle.dumps(one)), False, 7
    while not over:
        action = one.action_space.sample()
        mine, other = one.step(action), twin.step(action)
        assert np.array_equal(mine[0], other[0]) and mine[1:4] == other[1:4]
        over, n = mine[3], n + 1
    assert n == 20 and one.unwrapped.core.digest() == twin.unwrapped.core.digest()


@pytest.mark.parametrize("make", [HandoverEnv, env, lambda c: ParallelDictActions(HandoverEnv(c))],
                         ids=["parallel", "aec", "dict"])
def test_pettingzoo_environments_pickle_in_mid_episode(make: Callable) -> None:
    one = make(PHYSICS)
    one.reset(seed=3)
    parallel = hasattr(one, "parallel_env") or not hasattr(one, "agent_iter")

    def step(view) -> None:
        if parallel:
            view.step({a: chosen[a] for a in view.agents})
        else:
            for a in view.agents:
                view.step(chosen[a])

    for i in range(10):
        for u, a in enumerate(one.possible_agents):
            one.action_space(a).seed(100 * i + u)
        chosen = {a: one.action_space(a).sample() for a in one.possible_agents}
        if i == 5:
            twin = pickle.loads(pickle.dumps(one))
        step(one)
        if i >= 5:
            step(twin)
            assert twin.unwrapped.core.digest() == one.unwrapped.core.digest()


def test_the_vector_environment_of_stable_baselines3_pickles_with_its_meter() -> None:
    one = HandoverVecEnv(PHYSICS, 2, seed=4)
    one.reset()
    one.action_space.seed(0)
    actions = [np.stack([one.action_space.sample() for _ in range(8)]) for _ in range(20)]
    for action in actions[:12]:
        one.step(action)
    twin = pickle.loads(pickle.dumps(one))
    for action in actions[12:]:
        mine, other = one.step(action), twin.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(mine[:3], other[:3], strict=True))
    assert one.episode_metrics and str(one.episode_metrics) == str(twin.episode_metrics)


def _ego(seed: int) -> gym.Env:
    return gym.make("kvroam:kvroam/HandoverEgo-v0", config=PHYSICS, ego=f"ue_{seed}")


def test_it_runs_in_processes_of_stable_baselines3() -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    results = []
    for cls, options in ((DummyVecEnv, {}), (SubprocVecEnv, {"start_method": "fork"})):
        vector = cls([partial(_ego, i) for i in range(2)], **options)
        vector.seed(5)
        rows = [vector.reset()]
        for _ in range(PHYSICS.max_steps):
            row, _, done, infos = vector.step(np.zeros((2, 9), np.int64))
            rows.append(row)
        assert done.all() and all(info["TimeLimit.truncated"] for info in infos)
        assert np.array_equal(vector.env_method("action_masks")[0].shape, (36,))
        vector.close()
        results.append(np.stack(rows))
    assert np.array_equal(*results)
