"""Decision points: the semi-Markov view gives the returns of the view by intervals, and bootstraps at truncations."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from kvroam.envs.base.core import Core
from kvroam.envs.base.decisions import DecisionView
from kvroam.envs.base.make import make_core
from kvroam.envs.handover.config import resolve
from kvroam.training.decision_ppo import DecisionPPO
from kvroam.training.worlds import Asked, Worlds, advantages

GAMMA = 0.9


def _miniature() -> Any:
    path = Path(__file__).with_name("miniature.py")
    spec = importlib.util.spec_from_file_location("miniature_of_decisions", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


miniature = _miniature()


class Seldom(miniature.Counting):
    """Player p of Counting may guess anew whenever the counter is a multiple of 2 + p."""

    def occasions(self) -> np.ndarray:
        """How many of those there have been."""
        return self.count[:, None] // (2 + np.arange(self.num_agents))


class Constant(Seldom):
    """Everybody gets 1 in every interval."""

    def price(self) -> np.ndarray:
        """Ones."""
        return np.ones((self.num_envs, self.num_agents, 1))


def handover() -> Core:
    return make_core(resolve("handover", ["num_ues=4", "episode_s=6.0", "scoring.mode=table", "sessions.think_s=0.3"]),
                     2)


def seldom() -> Core:
    """Environments terminate one after the other, and are truncated if they do not."""
    return Core(Seldom(miniature.Settings(players=3, episode_s=9.0, stop_at=25), 5))


def every_interval() -> Core:
    return Core(miniature.Counting(miniature.Settings(players=3, episode_s=9.0, stop_at=25), 5))


def draw(view: DecisionView, draws: np.random.Generator) -> np.ndarray:
    """Random choices among those that are open, for the rows that are due."""
    sizes = [part.size for part in view.core.task.parts]
    scores = np.where(view.masks()[view.due], draws.random((len(view.due), sum(sizes))), -1.0)
    return np.stack([part.argmax(axis=1) for part in np.split(scores, np.cumsum(sizes)[:-1], axis=1)], axis=1)


class Played:
    """A random policy in a DecisionView: what the view said of each decision, and all plans."""

    def __init__(self, core: Core, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plans: list[np.ndarray] = []
        step = core.step
        monkeypatch.setattr(core, "step", lambda plans: (self.plans.append(plans.copy()), step(plans)))
        view, draws = DecisionView(core, GAMMA), np.random.default_rng(0)
        self.seeds = [10 + e for e in range(core.num_envs)]
        view.reset(self.seeds)
        rows = core.num_envs * core.num_agents
        self.decided: list[list[dict]] = [[] for _ in range(rows)]  # of each row, in order
        for t in range(steps):
            for row in view.due:
                self.decided[row].append({"at": t})
            ended, last, envs = view.step(draw(view, draws))
            assert (last is None) == (len(envs) == 0)
            for i, row in enumerate(ended.rows):
                # What is complete is the row's latest decision but for one that is due now, which comes afterwards.
                self.decided[row][-1] |= {name: getattr(ended, name)[i] for name in (
                    "reward", "discount", "elapsed", "over", "truncated")}


def replayed(core: Core, played: Played) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [steps, rows] and ends of episodes [steps, envs] of the same plans in the view by intervals."""
    core.reset(played.seeds)
    length = np.zeros(core.num_envs, int)
    rewards, ends = [], []
    for plans in played.plans:
        core.step(plans)
        length += 1
        over = core.terminated | (length >= core.config.max_steps)
        rewards.append(core.reward.ravel().copy())
        ends.append(over.copy())
        if over.any():
            core.reset(None, np.flatnonzero(over))
            length[over] = 0
    return np.array(rewards), np.array(ends)


@pytest.mark.parametrize("make", [handover, seldom, every_interval])
def test_the_return_from_every_decision_is_that_of_the_view_by_intervals(
        make: Callable[[], Core], monkeypatch: pytest.MonkeyPatch) -> None:
    core = make()
    played = Played(core, 2 * core.config.max_steps + 7, monkeypatch)
    monkeypatch.undo()
    rewards, ends = replayed(make(), played)
    compared = 0
    for row, decisions in enumerate(played.decided):
        env = row // core.num_agents
        for k, decision in enumerate(decisions):
            stop = next((t for t in range(decision["at"], len(ends)) if ends[t, env]), None)
            if stop is None:
                continue  # its episode is not over
            brute = sum(GAMMA ** (t - decision["at"]) * rewards[t, row] for t in range(decision["at"], stop + 1))
            total, discount = 0.0, 1.0
            for later in decisions[k:]:
                total += discount * later["reward"]
                discount *= later["discount"]
                if later["over"]:
                    break
            assert later["at"] + later["elapsed"] - 1 == stop and later["over"]
            assert total == pytest.approx(brute, rel=1e-12, abs=1e-12)
            assert discount == pytest.approx(GAMMA ** (stop + 1 - decision["at"]), rel=1e-12)
            compared += 1
    assert compared > 50
    lasted = [d["elapsed"] for of in played.decided for d in of if "elapsed" in d]
    assert max(lasted) == 1 if make is every_interval else max(lasted) > 2


def test_horizons_are_truncations_and_ends_of_their_own_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    core = seldom()
    played = Played(core, 40, monkeypatch)
    monkeypatch.undo()
    over = [d["truncated"] for of in played.decided for d in of if d.get("over")]
    assert any(over) and not all(over)
    assert not any(d["truncated"] for of in played.decided for d in of if "over" in d and not d["over"])


def constant(players: int = 3) -> Core:
    return Core(Constant(miniature.Settings(players=players, episode_s=7.0, stop_at=10**9), 4))


def ten(observations: np.ndarray, masks: np.ndarray | None = None) -> Any:
    """The value 10 everywhere, and the first choice."""
    values = np.full(len(observations), 10.0, np.float32)
    return values if masks is None else Asked(np.zeros((len(values), 1), np.int64), values, np.zeros_like(values))


def test_a_constant_reward_with_truncations_only_is_worth_ten_at_decision_points() -> None:
    worlds = Worlds([constant(), constant(players=5)], [0, 100], GAMMA)
    worlds.reset()
    for _ in range(4):
        batch = worlds.collect(100, ten, ten)
        assert len(batch.rows) >= 100 and (batch.after == 10.0).all()
        assert np.allclose(batch.reward + batch.discount * batch.after, 10.0, atol=1e-5)
        for gae_lambda in (0.0, 0.5, 1.0):
            assert np.allclose(advantages(batch, gae_lambda) + batch.values, 10.0, atol=1e-4)
    assert not np.allclose(batch.reward, batch.reward[0]), "decisions last differently long"


@pytest.mark.parametrize("by_intervals", [True, False])
def test_returns_of_ppo_are_ten_where_the_value_function_says_ten(by_intervals: bool) -> None:
    class Env(miniature.StableBaselinesView):
        """Constant for Stable-Baselines3."""

        task = Constant

    settings = miniature.Settings(players=3, episode_s=7.0, stop_at=10**9)
    env = Env(settings, 4) if by_intervals else Worlds([constant()], [0], GAMMA)
    model = (PPO if by_intervals else DecisionPPO)(
        "MlpPolicy", env, gamma=GAMMA, n_steps=20, batch_size=60, learning_rate=0.0, seed=0, device="cpu")
    with torch.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.fill_(10.0)
    model.learn(240)
    assert model.rollout_buffer.returns.size >= 240
    assert np.allclose(model.rollout_buffer.returns, 10.0, atol=1e-4)


def test_what_comes_after_an_end_of_its_own_is_worth_nothing() -> None:
    worlds = Worlds([seldom()], [0], GAMMA)
    worlds.reset()
    batch = worlds.collect(400, ten, ten)
    assert set(np.unique(batch.after)) == {0.0, 10.0}
    assert not batch.follows[batch.after == 0.0].any()


@pytest.mark.parametrize("make", [handover, seldom])
def test_worlds_pickle_between_decisions_and_go_on_exactly(make: Callable[[], Core]) -> None:
    worlds = Worlds([make(), make()], [0, 50], GAMMA)
    worlds.reset()

    def ask(observations: np.ndarray, masks: np.ndarray) -> Asked:
        sizes = np.array([part.size for part in worlds.views[0].core.task.parts])
        spread = (np.abs(observations).sum(axis=1)[:, None] * 997).astype(np.int64)
        return Asked(spread % sizes, observations.sum(axis=1), observations[:, 0])

    def value(observations: np.ndarray) -> np.ndarray:
        return observations.sum(axis=1)

    worlds.collect(150, ask, value)
    twin = pickle.loads(pickle.dumps(worlds))
    for _ in range(3):
        mine, other = worlds.collect(150, ask, value), twin.collect(150, ask, value)
        assert all(np.array_equal(a, b) for a, b in zip(mine, other, strict=True))
        assert np.array_equal(worlds.terms, twin.terms)
        assert str(worlds.episode_metrics) == str(twin.episode_metrics)
