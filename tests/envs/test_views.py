"""Every interface is a view of one core: the same trajectory for one seed, the libraries' checks, registration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from pettingzoo.test import api_test, max_cycles_test, parallel_seed_test, seed_test, state_test

import kvroam  # noqa: F401
from kvroam.envs import Core, HandoverCentralEnv, HandoverEgoEnv, HandoverEnv, env, make_core, parallel_env
from kvroam.envs.handover.actions import decode, sizes
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.rewards import NAMES as TERMS
from kvroam.envs.sim.params import SessionConfig

CONFIG = HandoverConfig(num_ues=6, episode_s=6.0, scoring=ScoringConfig(mode="none"))
SCORED = HandoverConfig(num_ues=6, episode_s=4.0, sessions=SessionConfig(scripts=4))
CENTRAL, EGO = "kvroam/HandoverCentral-v0", "kvroam/HandoverEgo-v0"


def actions(config: HandoverConfig, envs: int = 1) -> Iterator[np.ndarray]:
    """The same random actions for whoever asks, int [E, U, parts]; those of environment 0 do not depend on `envs`."""
    generators = [np.random.default_rng(100 + e) for e in range(envs)]
    limits = sizes(config.actions)
    while True:
        yield np.stack([g.integers(0, limits, (config.num_ues, len(limits))) for g in generators])


def stamp(core: Core, e: int = 0) -> tuple[bytes, bytes, bytes]:
    """Everything about environment `e` after a step: UEs, cells, rewards."""
    return core.task.sim.state.ue[e].tobytes(), core.task.sim.state.cell[e].tobytes(), core.reward[e].tobytes()


def through_core(config: HandoverConfig, seed: int) -> list:
    core, chosen = make_core(config), actions(config)
    core.reset([seed])
    trace = []
    for _ in range(config.max_steps):
        core.step(core.decode(next(chosen)))
        trace.append(stamp(core))
    return trace


def through_parallel(config: HandoverConfig, seed: int) -> list:
    view, chosen, trace = pettingzoo.make("parallel", "kvroam/Handover-v0", config=config), actions(config), []
    view.reset(seed=seed)
    while view.agents:
        _, rewards, *_ = view.step(dict(zip(view.agents, next(chosen)[0], strict=True)))
        core = view.unwrapped.core
        assert np.array_equal(list(rewards.values()), core.reward[0])
        trace.append(stamp(core))
    return trace


def through_aec(config: HandoverConfig, seed: int) -> list:
    view, chosen, trace = pettingzoo.make("aec", "kvroam/Handover-v0", config=config), actions(config), []
    view.reset(seed=seed)
    core, row = view.unwrapped.core, next(chosen)[0]
    for agent in view.agent_iter():
        observation, reward, _, truncated, _ = view.last()
        u = int(agent.removeprefix("ue_"))
        assert np.array_equal(observation, core.observe()[0, u])
        assert reward == core.reward[0, u]
        view.step(None if truncated else row[u])
        if not truncated and u == config.num_ues - 1:
            trace.append(stamp(core))
            row = next(chosen)[0]
    return trace


def through_central(config: HandoverConfig, seed: int) -> list:
    view, chosen, trace, over = gym.make(CENTRAL, config=config), actions(config), [], False
    view.reset(seed=seed)
    core = view.unwrapped.core
    while not over:
        observation, reward, terminated, over, info = view.step(next(chosen).reshape(-1))
        assert not terminated and np.array_equal(observation, core.observe().reshape(-1))
        assert reward == pytest.approx(core.reward.mean(), abs=1e-12)
        assert reward == sum((info[f"reward_{name}"] for name in TERMS), 0.0)
        trace.append(stamp(core))
    return trace


def through_ego(config: HandoverConfig, seed: int) -> list:
    chosen, current = actions(config), {}

    def others(network):
        return decode(current["row"], network, config.actions)

    view, trace, over = gym.make(EGO, config=config, ego="ue_3", others=others), [], False
    view.reset(seed=seed)
    core = view.unwrapped.core
    while not over:
        current["row"] = next(chosen)
        observation, reward, terminated, over, info = view.step(current["row"][0, 3])
        assert not terminated and np.array_equal(observation, core.observe()[0, 3])
        assert reward == core.reward[0, 3] == sum((info[f"reward_{name}"] for name in TERMS), 0.0)
        trace.append(stamp(core))
    return trace


def through_vector(config: HandoverConfig, seed: int) -> list:
    """The first of three environments."""
    view, chosen, trace = gym.make_vec(CENTRAL, num_envs=3, config=config), actions(config, 3), []
    view.reset(seed=seed)
    for _ in range(config.max_steps):
        *_, over, _ = view.step(next(chosen).reshape(3, -1))
        trace.append(stamp(view.unwrapped.core))
    assert over.all()
    return trace


def through_sb3(config: HandoverConfig, seed: int) -> list:
    """The first of two environments, but for the last step, after which a VecEnv has reset."""
    from kvroam.envs.handover.sb3 import HandoverVecEnv

    view, chosen, trace = HandoverVecEnv(config, 2, seed), actions(config, 2), []
    view.reset()
    for _ in range(config.max_steps - 1):
        _, rewards, *_ = view.step(next(chosen).reshape(2 * config.num_ues, -1))
        assert np.array_equal(rewards, view.core.reward.reshape(-1).astype(np.float32))
        trace.append(stamp(view.core))
    return trace


VIEWS = [through_parallel, through_aec, through_central, through_ego, through_vector, through_sb3]


@pytest.fixture(scope="module")
def truth() -> list:
    return through_core(CONFIG, 11)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_gives_the_trajectory_of_the_core(view: Callable, truth: list) -> None:
    trace = view(CONFIG, 11)
    assert len(trace) >= CONFIG.max_steps - 1 and len(set(truth)) == len(truth)
    assert trace == truth[:len(trace)]


@pytest.mark.parametrize("view", [through_parallel, through_aec, through_central, through_ego])
def test_real_scores_are_the_same_in_every_view(view: Callable) -> None:
    truth = through_core(SCORED, 2)
    assert view(SCORED, 2) == truth
    assert through_core(SCORED, 3) != truth


@pytest.mark.parametrize("name", [CENTRAL, EGO])
def test_environment_i_of_a_batch_is_the_single_one_seeded_s_plus_i(name: str) -> None:
    batch = gym.make_vec(name, num_envs=3, config=CONFIG)
    rows, infos = batch.reset(seed=5)
    singles = [gym.make(name, config=CONFIG) for _ in range(3)]
    batch.action_space.seed(0)
    for i, single in enumerate(singles):
        row, info = single.reset(seed=5 + i)
        assert np.array_equal(row, rows[i]) and np.array_equal(info["action_mask"], infos["action_mask"][i])
    for _ in range(CONFIG.max_steps):
        action = batch.action_space.sample()
        rows, rewards, _, over, infos = batch.step(action)
        for i, single in enumerate(singles):
            row, reward, _, end, info = single.step(action[i])
            assert np.array_equal(row, rows[i]) and reward == rewards[i] and end == over[i]
            assert all(np.array_equal(value, infos[key][i]) for key, value in info.items())
    assert over.all() and len({row.tobytes() for row in rows}) == 3


@pytest.mark.parametrize(("name", "autoreset", "mode"), [
    *((name, autoreset, "sync") for name in (CENTRAL, EGO)
      for autoreset in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)),
    (CENTRAL, AutoresetMode.NEXT_STEP, "async"), (EGO, AutoresetMode.SAME_STEP, "async"),
])
def test_the_batched_vector_environment_does_what_gymnasiums_own_does(
        name: str, autoreset: AutoresetMode, mode: str) -> None:
    own = gym.make_vec(name, num_envs=2, config=CONFIG, max_episode_steps=7, autoreset_mode=autoreset)
    theirs = gym.make_vec(name, num_envs=2, config=CONFIG, max_episode_steps=7, vectorization_mode=mode,
                          vector_kwargs={"autoreset_mode": autoreset})
    assert own.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is autoreset
    assert own.single_observation_space == theirs.single_observation_space
    assert own.observation_space == theirs.observation_space and own.action_space == theirs.action_space

    def same(a, b) -> None:
        if isinstance(a, dict):
            assert set(a) == set(b)
            for key in a:
                same(a[key], b[key])
        elif isinstance(a, tuple) or a.dtype == object:
            for x, y in zip(a, b, strict=True):
                same(x, y)
        else:
            assert np.array_equal(a, b)

    same(own.reset(seed=3), theirs.reset(seed=3))
    own.action_space.seed(1)
    ends = 0
    for _ in range(20):
        action = own.action_space.sample()
        mine, other = own.step(action), theirs.step(action)
        ends += mine[3].sum()
        same(mine, other)
    assert ends == 4
    theirs.close()


def test_a_frame_is_that_of_the_parallel_environment() -> None:
    pytest.importorskip("pygame", reason="frames need pygame: pip install 'kvroam[render]'")
    frames = []
    for make in (HandoverEnv, HandoverCentralEnv, HandoverEgoEnv):
        view = make(CONFIG, render_mode="rgb_array")
        view.reset(seed=3)
        frames.append(view.render())
        view.close()
    assert frames[0].shape == (600, 800, 3) and frames[0].std() > 10
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_the_ego_decides_for_itself_alone_and_the_others_follow_their_policy() -> None:
    from kvroam.agents import make

    policy, core, chosen = make("cho", CONFIG), make_core(CONFIG), actions(CONFIG)
    core.reset([11])
    view, differ = gym.make(EGO, config=CONFIG, ego="ue_2", others="cho"), 0
    view.reset(seed=11)
    for _ in range(CONFIG.max_steps):
        row = next(chosen)
        plans, own = policy.act(core.view), core.decode(row)
        differ += plans[0, 2] != own[0, 2]
        plans[0, 2] = own[0, 2]
        core.step(plans)
        view.step(row[0, 2])
        assert stamp(view.unwrapped.core) == stamp(core)
    assert differ > 10


def test_time_limits_are_not_doubled() -> None:
    def length(view) -> int:
        view.reset(seed=0)
        for n in range(1, 100):
            *_, terminated, truncated, _ = view.step(view.action_space.sample())
            assert not np.any(terminated)
            if np.all(truncated):
                return n
        raise AssertionError("no end")

    for name in (CENTRAL, EGO):
        assert gym.spec(name).max_episode_steps is None
        assert length(gym.make(name, config=CONFIG)) == CONFIG.max_steps
        assert length(gym.make(name, config=CONFIG, max_episode_steps=5)) == 5
        assert length(gym.make(name, config=CONFIG, max_cycles=5)) == 5
        for options, n in (({}, 60), ({"max_episode_steps": 5}, 5), ({"max_cycles": 70}, 70),
                           ({"max_cycles": 70, "max_episode_steps": 80}, 70), ({"max_episode_steps": -1}, 60)):
            assert length(gym.make_vec(name, num_envs=2, config=CONFIG, **options)) == n


@pytest.mark.parametrize("name", [CENTRAL, EGO])
def test_gymnasiums_checker_passes(name: str) -> None:
    check_env(gym.make(name, config=CONFIG).unwrapped)


def test_pettingzoos_tests_pass() -> None:
    api_test(env(CONFIG), num_cycles=100)
    max_cycles_test(SimpleNamespace(env=partial(env, CONFIG), parallel_env=partial(parallel_env, CONFIG)))
    seed_test(partial(env, CONFIG), num_cycles=60)
    parallel_seed_test(partial(parallel_env, CONFIG), num_cycles=60)
    state_test(env(CONFIG), parallel_env(CONFIG))


def test_the_state_does_not_depend_on_the_view() -> None:
    views = env(CONFIG), parallel_env(CONFIG)
    for view in views:
        view.reset(seed=4)
    central, _ = HandoverCentralEnv(CONFIG).reset(seed=4)
    assert all(np.array_equal(view.state(), central) for view in views)
    assert all(view.state_space.contains(view.state()) for view in views)


@pytest.mark.parametrize("cls", [HandoverCentralEnv, HandoverEgoEnv])
def test_what_is_returned_belongs_to_the_caller(cls: type) -> None:
    view, twin = cls(CONFIG), cls(CONFIG)
    for step in range(20):
        results = []
        for one in (view, twin):
            one.action_space.seed(step)
            row, *_, info = one.reset(seed=0) if step == 0 else one.step(one.action_space.sample())
            results.append((row.copy(), info["action_mask"].copy()))
            if one is view:
                row[:] = 9.0
                info["action_mask"][:] = 9
        assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_pettingzoo_results_belong_to_the_caller() -> None:
    view, twin = HandoverEnv(CONFIG), HandoverEnv(CONFIG)
    chosen = actions(CONFIG)
    for step in range(20):
        results, row = [], next(chosen)[0]
        for one in (view, twin):
            if step == 0:
                rows, infos = one.reset(seed=0)
            else:
                rows, *_, infos = one.step(dict(zip(one.agents, row.copy(), strict=True)))
            state = one.state()
            results.append([state.copy()] + [rows[a].copy() for a in rows] + [infos[a]["action_mask"].copy()
                                                                              for a in infos])
            if one is view:
                state[:] = 9.0
                for a in rows:
                    rows[a][:] = 9.0
                    infos[a]["action_mask"][:] = 9
        assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", [CENTRAL, EGO])
def test_observations_stay_in_their_space_for_long(name: str) -> None:
    long = HandoverConfig(num_ues=12, episode_s=90.0, scoring=ScoringConfig(mode="none"))
    view = gym.make(name, config=long, disable_env_checker=True)
    row, info = view.reset(seed=8)
    view.action_space.seed(8)
    over, n = False, 0
    while not over:
        assert view.observation_space.contains(row)
        row, *_, over, info = view.step(view.action_space.sample(info["action_mask"]))
        n += 1
    assert n == 900


def test_masked_samples_obey_the_mask() -> None:
    view = HandoverCentralEnv(CONFIG)
    _, info = view.reset(seed=0)
    size = np.cumsum([0, *view.action_space.nvec])[:-1]
    for _ in range(50):
        action = view.action_space.sample(info["action_mask"])
        assert info["action_mask"][size + action].all()
        *_, info = view.step(action)
    assert not info["action_mask"].all()


PROGRAMS = {
    "gymnasium imports the module itself": """
import gymnasium, sys
assert "kvroam" not in sys.modules
view = gymnasium.make("kvroam:kvroam/HandoverCentral-v0", config=C)
view.reset(seed=1); view.step(view.action_space.sample())
batch = gymnasium.make_vec("kvroam:kvroam/HandoverEgo-v0", num_envs=2, config=C)
assert type(batch).__name__ == "HandoverEgoVectorEnv"
""",
    "after an import": """
import gymnasium, pettingzoo, kvroam
gymnasium.register_envs(kvroam)
for id in ("kvroam/HandoverCentral-v0", "kvroam/HandoverEgo-v0"):
    gymnasium.make(id, config=C).reset(seed=1)
pettingzoo.make("parallel", "kvroam/Handover-v0", config=C).reset(seed=1)
pettingzoo.make("aec", "kvroam/Handover-v0", config=C).reset(seed=1)
""",
    "without the registries, twice registered": """
import kvroam
from kvroam.envs import HandoverCentralEnv, HandoverEgoEnv, env, parallel_env, raw_env, register
register()
for make in (HandoverCentralEnv, HandoverEgoEnv, env, parallel_env, raw_env):
    make(C).reset(seed=1)
""",
}


@pytest.mark.parametrize("way", PROGRAMS)
def test_each_way_to_make_an_environment_works_in_a_fresh_interpreter(way: str) -> None:
    program = "C = {'num_ues': 2, 'scoring': {'mode': 'none'}}" + PROGRAMS[way]
    out = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], capture_output=True, text=True,
                         check=False)
    assert out.returncode == 0, out.stderr
