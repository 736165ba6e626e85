"""What every task gets from the base: one matrix of checks over all registered tasks and the miniature one."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test

from kvroam import envs
from kvroam.envs import Core, Task
from kvroam.envs.base import registry
from kvroam.envs.base.spaces import sizes
from kvroam.errors import ConfigError
from kvroam.evaluation.report import write_results
from kvroam.evaluation.results import evaluate
from kvroam.experiment import Experiment, scenarios


def _load(name: str) -> ModuleType:
    """A module beside this file, from whatever directory the tests run."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mini = _load("miniature")


@dataclass(frozen=True)
class Case:
    """A task, small settings for it, and its views."""

    task: type[Task]
    config: Any
    module: Any
    others: Any = None

    def view(self, name: str) -> Callable[..., Any]:
        """The class TITLE + name, e.g. CentralEnv."""
        return getattr(self.module, f"{self.task.title}{name}")


# Settings that make an episode of a registered task short.
SMALL: dict[str, dict[str, Any]] = {
    "handover": {"num_ues": 3, "episode_s": 1.0, "scoring": {"mode": "none"}},
}
CASES = {"counting": Case(mini.Counting, mini.Settings(), mini, mini.perfect)} | {
    name: Case(registry.task(name), envs.base.config.resolve(registry.task(name).Config, SMALL[name]),
               sys.modules[registry.home(name)]) for name in registry.names()}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def draw(core: Core, generator: np.random.Generator) -> np.ndarray:
    """Random actions under the masks, int [E, A, parts]."""
    columns = np.split(core.masks(), np.cumsum(sizes(core.task.parts))[:-1], axis=-1)
    return np.stack([np.where(c, generator.random(c.shape), -1.0).argmax(axis=-1) for c in columns], axis=-1)


def run(core: Core, steps: int, seed: int = 0) -> list[str]:
    """Digests of `steps` random steps."""
    generator, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        core.step(core.decode(draw(core, generator)))
        seen.append(core.digest())
    return seen


def test_every_registered_task_has_small_settings_here_and_is_announced_everywhere() -> None:
    assert set(SMALL) == set(registry.names())
    for name in registry.names():
        task = registry.task(name)
        assert (task.name, task.Config.task) == (name, name)
        ident = f"kvroam/{task.title}-v{task.version}"
        assert ident in pettingzoo.parallel_registry and ident in pettingzoo.aec_registry
        for view in ("Central", "Ego"):
            assert f"kvroam/{task.title}{view}-v{task.version}" in gymnasium.registry


def test_declarations_have_unique_names_and_prices(case: Case) -> None:
    task = case.task(case.config)
    for declared in (task.parts, task.features, task.terms, task.metrics):
        names = [one.name for one in declared]
        assert names and len(set(names)) == len(names)
    assert all(isinstance(getattr(case.config.reward, term.name), float) for term in task.terms)


def test_the_api_checks_of_pettingzoo_pass(case: Case) -> None:
    parallel_api_test(case.view("Env")(case.config), num_cycles=30)
    parallel_seed_test(lambda: case.view("Env")(case.config), num_cycles=20)
    api_test(case.view("AEC")(case.config), num_cycles=30)


def test_the_api_checks_of_gymnasium_pass(case: Case) -> None:
    check_env(case.view("CentralEnv")(case.config), skip_render_check=True)
    check_env(case.view("EgoEnv")(case.config, others=case.others), skip_render_check=True)


def test_every_environment_of_a_batch_equals_the_single_one_with_its_seed(case: Case) -> None:
    batch, steps = Core(case.task(case.config, 3)), 5
    batch.reset([7, 8, 9])
    generator, chosen, seen = np.random.default_rng(1), [], []
    for _ in range(steps):
        chosen.append(draw(batch, generator))
        batch.step(batch.decode(chosen[-1]))
        seen.append((batch.observe(), batch.reward.copy(), batch.masks()))
    for e in range(3):
        alone = Core(case.task(case.config))
        alone.reset([7 + e])
        for actions, (rows, reward, masks) in zip(chosen, seen, strict=True):
            alone.step(alone.decode(actions[e:e + 1]))
            assert np.array_equal(alone.observe()[0], rows[e])
            assert np.array_equal(alone.reward[0], reward[e]) and np.array_equal(alone.masks()[0], masks[e])


def test_an_environment_begins_anew_by_itself_and_the_others_go_on(case: Case) -> None:
    both, left = Core(case.task(case.config, 2)), Core(case.task(case.config, 2))
    for core in (both, left):
        core.reset([3, 4])
    actions = [draw(both, np.random.default_rng(k)) for k in range(6)]
    for k, chosen in enumerate(actions):
        if k == 3:
            both.reset([30], envs=[1])
        for core in (both, left):
            core.step(core.decode(chosen))
        assert np.array_equal(both.observe()[0], left.observe()[0])
    alone = Core(case.task(case.config))
    alone.reset([30])
    for chosen in actions[3:]:
        alone.step(alone.decode(chosen[1:]))
    assert np.array_equal(both.observe()[1], alone.observe()[0])
    assert np.array_equal(both.reward[1], alone.reward[0])


def test_the_next_episode_of_a_seed_is_another_one_and_reproducible(case: Case) -> None:
    def episodes() -> list[list[str]]:
        core, found = Core(case.task(case.config)), []
        for seeds in ([5], None, None, [5]):
            core.reset(seeds)
            found.append(run(core, 4))
        return found

    first = episodes()
    assert first == episodes() and first[0] == first[3]
    assert len({tuple(digests) for digests in first}) == 3


def test_a_core_that_was_pickled_goes_on_bit_for_bit(case: Case) -> None:
    core = Core(case.task(case.config, 2))
    core.reset([1, 2])
    run(core, 3)
    again = pickle.loads(pickle.dumps(core))
    assert again.digest() == core.digest() and np.array_equal(again.observe(), core.observe())
    assert run(again, 3) == run(core, 3)


def test_terms_sum_to_the_reward_in_every_view(case: Case) -> None:
    env, generator = case.view("Env")(case.config), np.random.default_rng(0)
    env.reset(seed=1)
    while env.agents:
        chosen = draw(env.core, generator)[0]
        _, rewards, _, _, infos = env.step({a: chosen[i] for i, a in enumerate(env.agents)})
        for agent, reward in rewards.items():
            assert reward == sum((infos[agent][f"reward_{term.name}"] for term in env.core.task.terms), 0.0)
    central = case.view("CentralEnv")(case.config)
    central.reset(seed=1)
    _, reward, _, _, info = central.step(central.action_space.sample(info_mask(central)))
    assert reward == sum((info[f"reward_{term.name}"] for term in central.core.task.terms), 0.0)


def info_mask(env: Any) -> np.ndarray:
    """The mask of a Gymnasium view, as its action space takes it."""
    return env.action_masks().astype(np.int8)


def test_nothing_can_be_asked_before_the_first_reset(case: Case) -> None:
    core = Core(case.task(case.config, 2))
    for ask in (core.masks, core.observe, lambda: core.view, lambda: core.step(np.zeros(1)),
                lambda: core.reset([1], envs=[0])):
        with pytest.raises(RuntimeError, match="reset"):
            ask()


@pytest.mark.parametrize("seed", [1.5, "1", -1, True, np.float64(2.0)])
def test_a_seed_is_a_whole_number_that_is_not_negative(case: Case, seed: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        Core(case.task(case.config)).reset([seed])


def test_the_meter_measures_each_episode_for_itself(case: Case) -> None:
    core = Core(case.task(case.config, 2))
    core.reset([1, 2])
    meter, cost = core.task.meter(), np.zeros(2)
    for digest in range(4):
        core.step(core.decode(draw(core, np.random.default_rng(digest))))
        meter.add(core)
        cost -= core.reward.mean(axis=1)
    assert [meter.result(e)["cost"] for e in range(2)] == pytest.approx(cost.tolist())
    assert set(meter.result(0)) == {metric.name for metric in core.task.metrics}
    meter.forget(np.array([1]))
    assert meter.result(0)["cost"] == pytest.approx(cost[0]) and meter.result(1)["cost"] == 0.0


# What only the miniature shows: ends of its own, at different times in one batch.
def test_an_end_of_its_own_is_a_termination_and_the_horizon_a_truncation() -> None:
    env = mini.CountingCentralEnv({"stop_at": 1000})
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(6)]
    assert ends == [(False, False)] * 5 + [(False, True)]
    env = mini.CountingCentralEnv({"stop_at": 0})
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[2:4] == (True, False)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(env.action_space.sample())
    game = mini.CountingEnv({"stop_at": 0})
    game.reset(seed=0)
    _, _, terminated, truncated, _ = game.step({agent: np.zeros(1, int) for agent in game.agents})
    assert all(terminated.values()) and not any(truncated.values()) and not game.agents


def starts(count: int) -> list[int]:
    """First counter of the environments seeded 0, 1, ..."""
    core = Core(mini.Counting(mini.Settings(), count))
    core.reset(list(range(count)))
    return core.task.count.tolist()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_environments_of_a_batch_end_at_different_times(mode: AutoresetMode) -> None:
    first = starts(4)
    stop = int(np.median(first)) + 2  # before the horizon for some, never for others
    env = mini.CountingCentralVectorEnv(4, {"stop_at": stop, "episode_s": 5.0}, autoreset_mode=mode)
    env.reset(seed=0)
    single = [mini.CountingCentralEnv({"stop_at": stop, "episode_s": 5.0}) for _ in range(4)]
    rows = [one.reset(seed=i)[0] for i, one in enumerate(single)]
    fresh, over, generator = [True] * 4, [False] * 4, np.random.default_rng(0)
    for _ in range(14):
        action = generator.integers(0, 4, (4, 2))
        observation, reward, terminated, truncated, info = env.step(action)
        for i, one in enumerate(single):
            if over[i] and mode == AutoresetMode.NEXT_STEP:
                rows[i], wanted, over[i] = one.reset()[0], (0.0, False, False), False
            else:
                rows[i], *wanted, _ = one.step(action[i])
                over[i] = wanted[1] or wanted[2]
                if over[i] and mode == AutoresetMode.SAME_STEP:
                    assert info["_final_obs"][i] and np.array_equal(info["final_obs"][i], rows[i])
                    rows[i] = one.reset()[0]
            assert np.array_equal(observation[i], rows[i])
            assert (reward[i], terminated[i], truncated[i]) == tuple(wanted)
        fresh = [a and not b for a, b in zip(fresh, over, strict=True)]
    assert not any(fresh), "every environment has ended at least once"


def test_rows_of_stable_baselines_end_with_their_environment() -> None:
    first = starts(3)
    stop = max(first) + 1
    env = mini.CountingVecEnv({"stop_at": stop, "episode_s": 1000.0}, num_envs=3, seed=0)
    env.reset()
    ended = np.zeros(6, bool)
    _, _, done, infos = env.step(np.zeros((6, 1), int))
    longest = int(np.argmax(first))
    ended[2 * longest:2 * longest + 2] = True
    assert np.array_equal(done, ended)
    for row in np.flatnonzero(done):
        assert infos[row]["TimeLimit.truncated"] is False and infos[row]["terminal_observation"][0] == stop % 4
        assert infos[row]["episode"]["l"] == 1 and infos[row]["episode"]["t"] >= 0.0
    assert len(env.episode_metrics) == 1


def test_the_ego_view_lets_a_function_act_for_the_others() -> None:
    env = mini.CountingEgoEnv({"players": 3}, ego="player_1", others=mini.perfect)
    env.reset(seed=0)
    wrong = (int(env.core.task.count[0]) + 2) % 4
    _, reward, _, _, _ = env.step(np.array([wrong]))
    assert reward == -1.0 and env.core.reward[0].tolist() == [0.0, -1.0, 0.0]


def test_a_task_is_evaluated_by_its_own_metrics_against_its_own_references(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "_TASKS", {**registry._TASKS, "counting": f"{mini.__name__}:Counting"})
    monkeypatch.setattr(mini.Counting, "references", ("perfect",))

    def zero(view: Any) -> np.ndarray:
        return np.zeros((view.num_envs, view.num_agents, 1), int)

    results = evaluate(Experiment(mini.Settings()), {"perfect": mini.perfect, "zero": zero}, 2, 3)
    assert results["config"]["task"] == "counting" and results["scoring"] is None
    # Six steps meet every digit once or twice, so 0 is wrong four or five times.
    found = {name: policy["episodes"] for name, policy in results["policies"].items()}
    assert found["perfect"] == {"cost": [0.0, 0.0]} and set(found["zero"]["cost"]) <= {4.0, 5.0}
    assert list(results["paired"]) == ["perfect"] and results["paired"]["perfect"]["zero"]["cost"]["mean"] >= 4.0
    files = write_results(tmp_path, results)
    assert set(files) == {"results.json", "table.md", "report.html"}, "figures are about metrics that this task lacks"
    text = files["table.md"].read_text(encoding="utf-8")
    assert "cost [1]" in text and "interruption" not in text
    with pytest.raises(ConfigError, match="has no scenarios"):
        scenarios("grid:counting")
