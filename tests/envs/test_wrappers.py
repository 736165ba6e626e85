"""Box and Dict actions stand for MultiDiscrete ones; masks may travel inside observations."""

from __future__ import annotations

from itertools import product

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

import kvroam  # noqa: F401
from kvroam.envs import HandoverCentralEnv, HandoverEgoEnv, HandoverEnv
from kvroam.envs.handover.actions import parts, sizes
from kvroam.envs.handover.config import ActionConfig, HandoverConfig, ScoringConfig
from kvroam.envs.views import wrappers

CONFIG = HandoverConfig(num_ues=4, episode_s=5.0, scoring=ScoringConfig(mode="none"))
LEVELS = [ActionConfig(candidates=2, keep=(1.0, 0.3), bits=(8, 16, 4), weight=(1.0, 0.0, 4.0), backfill=(1.0, 0.0),
                       prefix=(0.5,)),
          ActionConfig(candidates=1, keep=(0.5,), bits=(16,), weight=(2.0, 1.0), backfill=(0.5,), prefix=(),
                       trigger="policy")]


def box_of(index: tuple[int, ...], config: ActionConfig) -> np.ndarray:
    """A Box action that stands for one MultiDiscrete action: its scores, and the middle of its level's interval."""
    entries: list[float] = []
    for part, (chosen, n) in enumerate(zip(index, sizes(config), strict=True)):
        levels = [None, None, config.keep, config.bits, config.weight, config.backfill, None, (0, 1),
                  (0, 1) if len(config.prefix) == 1 else None,
                  (0, 1)][part]
        if levels is None:
            entries += [0.5 if i == chosen else -0.5 for i in range(n)]
        else:
            below = sum(level < levels[chosen] for level in levels)
            entries.append(-1.0 + 2.0 * (below + 0.5) / n)
    return np.array(entries, np.float32)


def dict_of(index: tuple[int, ...], config: ActionConfig) -> dict:
    """The Dict action with exactly the values of one MultiDiscrete action."""
    action = {"target": index[0], "medium": index[1], "keep": np.float32(config.keep[index[2]]),
              "precision": np.float32(config.bits[index[3]]), "share": np.float32(config.weight[index[4]]),
              "backfill": np.float32(config.backfill[index[5]]), "arrival": index[6], "repair": index[7],
              "prefix": index[8]}
    return {**action, "handover": index[9]} if config.trigger == "policy" else action


@pytest.mark.parametrize("config", LEVELS)
def test_every_multidiscrete_action_has_a_box_and_a_dict_action(config: ActionConfig) -> None:
    box, named = wrappers.BoxFormat(parts(config)), wrappers.DictFormat(parts(config))
    for index in product(*map(range, sizes(config))):
        action = box_of(index, config)
        assert box.space.contains(action) and tuple(box.decode(action)) == index
        assert tuple(named.decode(dict_of(index, config))) == index


def test_actions_of_several_ues_are_those_of_each_one_after_the_other() -> None:
    config, generator = LEVELS[0], np.random.default_rng(0)
    indices = [tuple(generator.integers(0, sizes(config))) for _ in range(3)]
    box, named = wrappers.BoxFormat(parts(config), 3), wrappers.DictFormat(parts(config), 3)
    expected = np.concatenate(indices)
    assert np.array_equal(box.decode(np.concatenate([box_of(i, config) for i in indices])), expected)
    rows = [dict_of(i, config) for i in indices]
    assert np.array_equal(named.decode({name: np.array([row[name] for row in rows]) for name in rows[0]}), expected)


def test_values_between_levels_stand_for_the_nearest_and_all_of_a_box_is_used() -> None:
    config = LEVELS[0]
    named = wrappers.DictFormat(parts(config))
    base = dict_of((0,) * 9, config)
    for value, nearest in ((0.3, 1), (0.64, 1), (0.66, 0), (1.0, 0)):
        assert named.decode({**base, "keep": np.float32(value)})[2] == nearest
    box, generator = wrappers.BoxFormat(parts(config)), np.random.default_rng(0)
    seen = np.array([box.decode(generator.uniform(-1, 1, box.space.shape)) for _ in range(400)])
    assert [len(set(column)) for column in seen.T] == sizes(config)


@pytest.mark.parametrize("cls", [HandoverCentralEnv, HandoverEgoEnv])
@pytest.mark.parametrize("wrapper", [wrappers.BoxActions, wrappers.DictActions])
def test_wrapped_and_plain_environments_go_the_same_way(cls: type, wrapper: type) -> None:
    wrapped, plain = wrapper(cls(CONFIG)), cls(CONFIG)
    wrapped.reset(seed=1)
    plain.reset(seed=1)
    wrapped.action_space.seed(2)
    for _ in range(50):
        action = wrapped.action_space.sample()
        index = wrapped.format.decode(action)
        assert plain.action_space.contains(index)
        assert np.array_equal(wrapped.step(action)[0], plain.step(index)[0])
    assert wrapped.unwrapped.core.digest() == plain.core.digest()


@pytest.mark.parametrize("wrapper", [wrappers.ParallelBoxActions, wrappers.ParallelDictActions])
def test_the_parallel_wrappers_do_the_same(wrapper: type) -> None:
    wrapped, plain = wrapper(HandoverEnv(CONFIG)), HandoverEnv(CONFIG)
    wrapped.reset(seed=1)
    plain.reset(seed=1)
    space = wrapped.action_space("ue_0")
    assert space is wrapped.action_space("ue_1")
    space.seed(3)
    while wrapped.agents:
        chosen = {agent: space.sample() for agent in wrapped.agents}
        plain.step({agent: wrapped.format.decode(action) for agent, action in chosen.items()})
        wrapped.step(chosen)
    assert wrapped.unwrapped.core.digest() == plain.core.digest()


def test_the_checkers_of_the_libraries_pass_on_wrapped_environments() -> None:
    for wrapper in (wrappers.BoxActions, wrappers.MaskInObservation):
        check_env(wrapper(gym.make("kvroam/HandoverCentral-v0", config=CONFIG)), skip_render_check=True)
    for wrapper in (wrappers.ParallelBoxActions, wrappers.ParallelDictActions, wrappers.ParallelMaskInObservation):
        parallel_api_test(wrapper(HandoverEnv(CONFIG)), num_cycles=60)


def test_masks_in_observations_are_those_of_info() -> None:
    single, parallel = wrappers.MaskInObservation(HandoverEgoEnv(CONFIG)), HandoverEnv(CONFIG)
    parallel = wrappers.ParallelMaskInObservation(parallel)
    row, info = single.reset(seed=0)
    rows, infos = parallel.reset(seed=0)
    for _ in range(10):
        assert single.observation_space.contains(row) and np.array_equal(row["action_mask"], info["action_mask"])
        for agent, seen in rows.items():
            assert parallel.observation_space(agent).contains(seen)
            assert np.array_equal(seen["action_mask"], infos[agent]["action_mask"])
        row, *_, info = single.step(single.action_space.sample(row["action_mask"]))
        rows, *_, infos = parallel.step({a: parallel.action_space(a).sample(rows[a]["action_mask"]) for a in rows})


@pytest.mark.parametrize("action", [np.zeros(3, np.float32), np.full(23, 1.5, np.float32), np.full(23, np.nan)])
def test_box_actions_outside_the_box_are_refused(action: np.ndarray) -> None:
    env = wrappers.BoxActions(HandoverEgoEnv(CONFIG))
    env.reset(seed=0)
    assert env.action_space.shape == (23,)
    with pytest.raises(ValueError, match=r"expected \(23,\) numbers in \[-1, 1\]"):
        env.step(action)


@pytest.mark.parametrize(("change", "match"), [
    ({"medium": 4}, "medium is 4"), ({"keep": 0.01}, "keep is 0.01"), ({"target": 0.5}, "target is 0.5"),
    ({"medum": 0}, "'medum' is missing or unknown"), ({"share": None}, "share is None"),
])
def test_dict_actions_outside_their_space_are_refused(change: dict, match: str) -> None:
    env = wrappers.DictActions(HandoverEgoEnv(CONFIG))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=match):
        env.step({**dict_of((0,) * 9, CONFIG.actions), **change})
