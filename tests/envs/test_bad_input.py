"""What each view says to what cannot be: actions outside the space, steps out of turn, unknown names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
from gymnasium.error import NameNotFound, NamespaceNotFound, ResetNeeded, VersionNotFound

import kvroam  # noqa: F401
from kvroam.envs import (
    HandoverCentralEnv,
    HandoverCentralVectorEnv,
    HandoverEgoEnv,
    HandoverEgoVectorEnv,
    HandoverEnv,
    env,
    parallel_env,
)
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.errors import ConfigError, PolicyError, SceneError

CONFIG = HandoverConfig(num_ues=3, episode_s=0.3, scoring=ScoringConfig(mode="none"))
GOOD = np.zeros(9, np.int64)
# Every view, and how it steps with one action for all UEs; envs side by side: 2.
VIEWS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, np.ndarray], Any]]] = {
    "parallel": (HandoverEnv, lambda v, a: v.step(dict.fromkeys(v.possible_agents, a))),
    "aec": (env, lambda v, a: v.step(a)),
    "central": (HandoverCentralEnv, lambda v, a: v.step(np.tile(a, 3))),
    "ego": (HandoverEgoEnv, lambda v, a: v.step(a)),
    "central vector": (lambda c: HandoverCentralVectorEnv(2, c), lambda v, a: v.step(np.tile(a, (2, 3)))),
    "ego vector": (lambda c: HandoverEgoVectorEnv(2, c), lambda v, a: v.step(np.tile(a, (2, 1)))),
    "sb3": (lambda c: HandoverVecEnv(c, 2), lambda v, a: v.step(np.tile(a, (6, 1)))),
}
every_view = pytest.mark.parametrize("view", VIEWS)


def begun(view: str) -> tuple[Any, Callable[[Any, np.ndarray], Any]]:
    make, step = VIEWS[view]
    one = make(CONFIG)
    one.reset()
    return one, step


@every_view
@pytest.mark.parametrize("action", [
    np.array([0, 4, 0, 0, 0, 0, 0, 0, 0]), np.array([-1, 0, 0, 0, 0, 0, 0, 0, 0]),
    np.array([0, 0, 0, 0, 0, 0, 0, 2, 0]),
    np.zeros(8, np.int64), np.array([0.5, 0, 0, 0, 0, 0, 0, 0, 0]), np.full(9, np.nan),
], ids=str)
def test_actions_outside_the_space_are_refused_and_nothing_moves(view: str, action: np.ndarray) -> None:
    one, step = begun(view)
    core = one.core if view == "sb3" else one.unwrapped.core
    before = core.digest()
    with pytest.raises(ValueError, match=r"outside|expected"):
        step(one, action)
    assert core.digest() == before
    step(one, GOOD)


@every_view
def test_a_step_before_reset_is_refused(view: str) -> None:
    make, step = VIEWS[view]
    with pytest.raises((ResetNeeded, RuntimeError, AssertionError), match="reset"):
        step(make(CONFIG), GOOD)


@pytest.mark.parametrize(("view", "error"), [("parallel", RuntimeError), ("central", ResetNeeded),
                                             ("ego", ResetNeeded)])
def test_a_step_after_the_end_is_refused(view: str, error: type[Exception]) -> None:
    one, step = begun(view)
    for _ in range(3):
        step(one, GOOD)
    with pytest.raises(error, match="over"):
        step(one, GOOD)
    one.reset()
    step(one, GOOD)


def test_an_agent_of_the_aec_view_that_is_done_may_only_say_none() -> None:
    one = env(CONFIG, max_cycles=1)
    one.reset(seed=0)
    with pytest.raises(ValueError, match="ue_0"):
        one.step(None)
    for _ in range(3):
        one.step(GOOD)
    with pytest.raises(ValueError, match="ue_0 is done"):
        one.step(GOOD)
    for _ in range(3):
        one.step(None)
    assert one.agents == []


@pytest.mark.parametrize("names", [("ue_0", "ue_1"), ("ue_0", "ue_1", "ue_2", "ue_3"), ("ue_0", "ue_1", "UE_2"), ()])
def test_wrong_agent_names_are_refused(names: tuple[str, ...]) -> None:
    one = parallel_env(CONFIG)
    one.reset(seed=0)
    with pytest.raises(KeyError, match=r"(ue|UE)_\d.* is missing or unknown"):
        one.step(dict.fromkeys(names, GOOD))
    for ask in (one.observation_space, one.action_space):
        with pytest.raises(KeyError, match="ue_9"):
            ask("ue_9")


@pytest.mark.parametrize("cls", [HandoverEgoEnv, HandoverEgoVectorEnv])
@pytest.mark.parametrize(("options", "error", "words"), [
    ({"ego": "ue_3"}, ValueError, ["ue_3", "ue_0 ... ue_2"]),
    ({"ego": 0}, ValueError, ["0", "ue_2"]),
    ({"others": "cth0"}, PolicyError, ["cth0", "ctho"]),
    ({"others": "runs/absent.zip"}, PolicyError, ["runs/absent.zip", "train.py"]),
    ({"others": 3}, PolicyError, ["3 is not a policy"]),
])
def test_an_unknown_ego_or_policy_is_named(cls: type, options: dict, error: type, words: list[str]) -> None:
    with pytest.raises(error) as caught:
        cls(config=CONFIG, **options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_policy_of_the_others_that_returns_no_plans_is_named() -> None:
    one = HandoverEgoEnv(CONFIG, others=lambda view: np.zeros((1, 3)))
    one.reset(seed=0)
    with pytest.raises(ValueError, match="expected PLAN"):
        one.step(GOOD)


@pytest.mark.parametrize("make", [make for name, (make, _) in VIEWS.items()], ids=list(VIEWS))
@pytest.mark.parametrize(("config", "error", "words"), [
    ("rushhour", ConfigError, ["rushhour", "shipped names", "handover"]),
    ({"num_uess": 3}, ConfigError, ["num_uess", "num_ues"]),
    ({"scene": "atlantis"}, SceneError, ["atlantis", "munich"]),
    ({"actions": {"trigger": "luck"}}, ConfigError, ["trigger", "luck", "policy"]),
    ({"reward": {"sharing": "teem"}}, ConfigError, ["sharing", "team"]),
    ({"scoring": {"drift": "later"}}, ConfigError, ["drift", "resume"]),
    ({"scoring": {"horizon": 0}}, ConfigError, ["horizon", "0"]),
])
def test_an_unknown_configuration_is_named_in_every_view(
        make: Callable, config: object, error: type, words: list[str]) -> None:
    with pytest.raises(error) as caught:
        make(config)
    assert all(word in str(caught.value) for word in words), caught.value


def test_unknown_ids_get_the_registries_own_errors() -> None:
    with pytest.raises(NameNotFound, match="HandoverCentral"):
        gym.make("kvroam/HandoverCentrl-v0")
    with pytest.raises(VersionNotFound, match="v7"):
        gym.make("kvroam/HandoverEgo-v7")
    with pytest.raises(NamespaceNotFound, match="kvroam"):
        gym.make("kvraom/HandoverEgo-v0")
    with pytest.raises(Exception, match="Handovr"):
        pettingzoo.make("parallel", "kvroam/Handovr-v0")


@pytest.mark.parametrize("make", [
    lambda: HandoverCentralEnv(CONFIG, max_cycles=0), lambda: HandoverEgoEnv(CONFIG, max_cycles=0),
    lambda: HandoverCentralVectorEnv(2, CONFIG, max_cycles=0), lambda: HandoverEnv(CONFIG, max_cycles=0),
    lambda: HandoverEgoVectorEnv(2, CONFIG, max_episode_steps=0),
])
def test_episodes_without_steps_are_refused(make: Callable) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make()


def test_vector_environments_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ValueError, match="Disabled"):
        HandoverCentralVectorEnv(2, CONFIG, autoreset_mode="Disabled")
    with pytest.raises(ValueError, match="num_envs is 0"):
        HandoverCentralVectorEnv(0, CONFIG)
    one = HandoverCentralVectorEnv(2, CONFIG)
    with pytest.raises(ValueError, match="3 seeds were given for 2"):
        one.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask"):
        one.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(RuntimeError, match="reset"):
        one.reset(options={"reset_mask": np.array([True, False])})
    one.reset(seed=[5, None], options={"reset_mask": np.array([True, True])})
