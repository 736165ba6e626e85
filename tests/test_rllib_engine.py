"""`train.engine: rllib`: the environment, the policy and the advantages alone, then a training that loses a runner."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray.rllib", reason="ray[rllib] is no dependency of kvroam: make test-rllib")

import ray
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.tune.registry import register_env

from kvroam.agents import policy_file
from kvroam.envs import make_core
from kvroam.envs.base import registry
from kvroam.envs.base.core import Core
from kvroam.envs.base.decisions import Holder
from kvroam.evaluate import command as evaluate_command
from kvroam.evaluate import evaluate
from kvroam.experiment import Experiment, TrainConfig, load_experiment
from kvroam.train import train
from kvroam.training.rllib import checkpoint, engine
from kvroam.training.rllib.actors import asking, start_scorers, stop_scorers
from kvroam.training.rllib.advantages import DecisionAdvantages, decision_advantages, elapsed
from kvroam.training.rllib.environment import ELAPSED, MASK, OBSERVATIONS, RoamEnv, agent_spaces
from kvroam.training.rllib.module import POLICY, MaskedPolicy, actor_weights
from kvroam.training.rllib.scoring import DistantScorer

GAMMA = 0.9


@pytest.fixture
def counting(counting: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The miniature task, whose players decide at different times: player a in every (a + 1)th interval."""

    def occasions(task: Any) -> np.ndarray:
        return task.count[:, None] // np.arange(1, task.num_agents + 1)

    monkeypatch.setattr(counting.Counting, "occasions", occasions)
    return counting


def played(env: RoamEnv, choose: Any) -> list[tuple[dict, dict, dict, dict, dict]]:
    """One episode; what every step returned."""
    seen, _ = env.reset()
    steps = []
    while True:
        steps.append(env.step({agent: choose(agent, row) for agent, row in seen.items()}))
        seen, _, terminated, truncated, _ = steps[-1]
        if terminated["__all__"] or truncated["__all__"]:
            return steps


def zero(agent: str, row: dict[str, np.ndarray]) -> np.ndarray:
    return np.zeros(1, np.int64)


@pytest.mark.parametrize("decisions", [True, False])
def test_rewards_discounted_over_the_lengths_of_decisions_are_those_of_the_intervals(
        counting: ModuleType, decisions: bool) -> None:
    """The same constant actions in the bare core, interval by interval."""
    config = counting.Settings(episode_s=12.0)
    env = RoamEnv([Core(counting.Counting(config, 2))], [5], GAMMA, decisions, scale=3.0)
    steps = played(env, zero)
    total, time = dict.fromkeys(env.possible_agents, 0.0), dict.fromkeys(env.possible_agents, 0)
    for _, rewards, _, _, infos in steps:
        for agent, reward in rewards.items():
            total[agent] += GAMMA ** time[agent] * reward
            time[agent] += infos[agent][ELAPSED]
    assert set(time.values()) == {12} and len(steps) == 12
    core = Core(counting.Counting(config, 2))
    core.reset([5, 6])
    expected = np.zeros((2, 2))
    for t in range(12):
        core.step(core.decode(np.zeros((2, 2, 1), int)))
        expected += GAMMA ** t * 3.0 * core.reward
    assert list(total.values()) == pytest.approx(expected.ravel().tolist())
    often = [sum(agent in rewards for _, rewards, _, _, _ in steps) for agent in env.possible_agents]
    assert (often[1] < often[0] == 12) if decisions else often == [12] * 4


def test_agents_end_by_name_except_the_last_ones_and_a_second_episode_is_another(counting: ModuleType) -> None:
    """Two worlds: one ends at a horizon of 4, the other, of 6, ends by itself in one environment."""
    short = Core(counting.Counting(counting.Settings(episode_s=4.0), 1))
    long = Core(counting.Counting(counting.Settings(episode_s=6.0, stop_at=51), 2))
    env = RoamEnv([short, long], [0, 10], GAMMA, True)
    for _ in range(2):
        steps = played(env, zero)
        assert len(steps) == 6
        terminated, truncated = ({a for step in steps for a, is_so in step[k].items() if is_so} for k in (2, 3))
        assert {"0.0.player_0", "0.0.player_1"} <= truncated and "__all__" in truncated
        assert not terminated & truncated and "__all__" not in terminated
        last = {agent: max(t for t, step in enumerate(steps) if agent in step[0]) for agent in env.possible_agents}
        assert last["0.0.player_0"] == 3 and max(last.values()) == 5
    metrics, terms = env.take()
    assert len(metrics) == 6 and -1 <= terms[0] <= 0 and env.take()[0] == []


def sampled(module: ModuleType, decisions: bool, total: int = 40) -> tuple[list[Any], Any]:
    """Episodes of RLlib's own runner, in this process, and its policy."""
    options = TrainConfig(engine="rllib", num_envs=2, rollout_steps=total // 4, batch_size=8, gamma=GAMMA, hidden=(8,),
                          runners=1, decisions=decisions, reward_scale=1.0)
    experiment = Experiment(module.Settings(episode_s=7.0), options)
    register_env(engine.ENVIRONMENT, engine._make_env)
    config = engine.configuration(experiment, [experiment.environment], []).env_runners(num_env_runners=0)
    runner = MultiAgentEnvRunner(config=config, worker_index=1)
    return [episode for _ in range(2) for episode in runner.sample()], runner


@pytest.mark.parametrize("decisions", [True, False])
def test_the_runner_of_rllib_makes_truncated_episodes_that_bootstrap(counting: ModuleType, decisions: bool) -> None:
    episodes, runner = sampled(counting, decisions)
    agents = [single for episode in episodes for single in episode.agent_episodes.values()]
    assert agents and not any(single.is_terminated for single in agents)
    whole = [episode for episode in episodes if episode.is_truncated]
    assert whole and runner.num_envs == 1
    for single in (single for episode in whole for single in episode.agent_episodes.values()):
        assert single.is_truncated and len(single.observations) == len(single) + 1
    metrics = runner.get_metrics()[engine.ENVIRONMENT]
    assert float(np.mean(metrics["episode/cost"].peek())) > 0


def test_the_pipeline_discounts_by_the_time_that_decisions_took(counting: ModuleType) -> None:
    """Against the sum over all later decisions, written out."""
    from ray.rllib.utils.postprocessing.episodes import add_one_ts_to_episodes_and_truncate

    agents = [single for episode in sampled(counting, True)[0] for single in episode.agent_episodes.values()]
    time = [elapsed_before(single) for single in agents]
    assert max(max(steps) for steps in time) == 2 and all(sum(steps) == 7 for steps in time)
    add_one_ts_to_episodes_and_truncate(agents)
    rows = [len(single) for single in agents]
    values = np.random.default_rng(0).normal(size=sum(rows)).astype(np.float32)
    rewards = np.concatenate([np.append(single.get_rewards()[:-1], 0.0) for single in agents]).astype(np.float32)
    piece = DecisionAdvantages(gamma=GAMMA, lambda_=0.8)
    batch = {POLICY: {Columns.REWARDS: torch.as_tensor(rewards)}}
    net = SimpleNamespace(compute_values=lambda part: torch.as_tensor(values))
    piece.single_agent_episode_iterator = lambda *args, **kwargs: iter(agents)  # type: ignore[method-assign]
    piece(rl_module={POLICY: net}, episodes=agents, batch=batch)
    targets, start = batch[POLICY][Postprocessing.VALUE_TARGETS].numpy(), 0
    for single, steps, count in zip(agents, time, rows, strict=True):
        assert elapsed(single) == steps
        v, r, d = values[start:start + count], rewards[start:start + count], GAMMA ** np.array(steps, float)
        for i in range(count - 1):
            expected, weight = v[i], 1.0
            for j in range(i, count - 1):
                expected += weight * (r[j] + d[j] * v[j + 1] - v[j])
                weight *= 0.8 * d[j]
            assert targets[start + i] == pytest.approx(expected, abs=1e-5)
        start += count
    advantages = batch[POLICY][Postprocessing.ADVANTAGES].numpy()
    kept = np.delete(advantages, np.cumsum(rows) - 1)
    assert kept.mean() == pytest.approx(0.0, abs=1e-5) and kept.std() == pytest.approx(1.0, abs=1e-4)


def elapsed_before(single: Any) -> list[int]:
    """From the episode as the runner returned it."""
    return [info[ELAPSED] for info in single.get_infos(slice(1, len(single) + 1))]


def test_nothing_follows_a_decision_with_discount_zero() -> None:
    found = decision_advantages(np.array([1.0, 2.0]), np.array([0.5, 0.25, 9.0]), [GAMMA, 0.0], 1.0)
    assert found.tolist() == pytest.approx([1.0 + GAMMA * 2.0 - 0.5, 2.0 - 0.25])


def policy(experiment: Experiment[Any]) -> MaskedPolicy:
    parts, features = registry.task("handover").layout(experiment.environment)
    observation, action = agent_spaces(SimpleNamespace(parts=parts, features=features))
    return MaskedPolicy(observation_space=observation, action_space=action, model_config={
        "hidden": experiment.train.hidden, "activation": experiment.train.activation,
        "bias": [0.0] * sum(part.size for part in parts)})


@pytest.mark.parametrize("activation", ["ReLU", "Tanh"])
def test_masked_choices_are_never_taken_and_the_policy_file_has_the_same_network(
        activation: str, tmp_path: Path) -> None:
    experiment = load_experiment("default", ["train.hidden=[16, 8]", f"train.activation={activation}"])
    module = policy(experiment)
    sizes = [int(n) for n in module.action_space.nvec]
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(200, module.observation_space[OBSERVATIONS].shape[0])).astype(np.float32)
    mask = (generator.random((200, sum(sizes))) < 0.4).astype(np.float32)
    mask[:, np.cumsum([0, *sizes[:-1]])] = 1.0
    seen = {OBSERVATIONS: torch.as_tensor(rows), MASK: torch.as_tensor(mask)}
    logits = module.forward_exploration({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
    taken = module.get_exploration_action_dist_cls().from_logits(logits).sample().numpy()
    assert (np.take_along_axis(mask, taken + np.cumsum([0, *sizes[:-1]]), axis=1) == 1.0).all()
    path = tmp_path / "policy.safetensors"
    policy_file.write(path, checkpoint.policy_of(experiment, actor_weights(module), 7))
    found = policy_file.read(path)
    about, options = found.about, experiment.train
    assert (about.decisions, about.masked, about.steps) == (options.decisions, True, 7)
    with torch.no_grad():
        expected = module.actor(seen[OBSERVATIONS]).numpy()
    assert np.allclose(found.actor().logits(rows)[0], expected, atol=1e-6)


def test_the_policy_file_says_how_it_was_trained() -> None:
    experiment = load_experiment("default", ["train.hidden=[8]", "train.algorithm=ppo", "train.decisions=false"])
    about = checkpoint.policy_of(experiment, actor_weights(policy(experiment)), 0).about
    assert (about.algorithm, about.decisions, about.masked) == ("ppo", False, False)


@pytest.mark.parametrize(("decisions", "credit"), [(True, True), (True, False), (False, True)])
def test_rewards_masks_and_metrics_are_those_of_the_other_engine(decisions: bool, credit: bool) -> None:
    """At decision points credited, if so set; in every interval as they are; the last interval counts, too."""
    credited = decisions and credit
    settings = ["num_ues=4", "episode_s=4", f"train.decisions={str(decisions).lower()}", "scoring.mode=none"]
    config = load_experiment("default", settings).environment
    env = RoamEnv([make_core(config, 2)], [5], GAMMA, decisions, masked=False, credited=credit)
    idle = np.array([max(part.neutral or 0, 0) for part in env.task.parts])
    steps = played(env, lambda agent, row: idle)
    assert all((row[MASK] == 1.0).all() for step in steps for row in step[0].values())
    total, time = dict.fromkeys(env.possible_agents, 0.0), dict.fromkeys(env.possible_agents, 0)
    for _, rewards, _, _, infos in steps:
        for agent, reward in rewards.items():
            total[agent] += GAMMA ** time[agent] * reward
            time[agent] += infos[agent][ELAPSED]
    core, expected = make_core(config, 2), np.zeros((2, 4))
    core.reset([5, 6])
    holder, meter, terms = Holder(core.task), core.task.meter(), np.zeros(len(core.task.terms))
    for t in range(config.max_steps):
        due = holder.due() if decisions else np.ones((2, 4), bool)
        core.step(holder.decide(due, np.tile(idle, (2, 4, 1))))
        expected += GAMMA ** t * (core.task.credit(core.reward) if credited else core.reward)
        meter.add(core)
        terms += core.terms.mean(axis=(0, 1))
    assert list(total.values()) == pytest.approx(expected.ravel().tolist(), rel=1e-6, abs=1e-9)
    metrics, means = env.take()
    assert metrics == [pytest.approx(meter.result(e), nan_ok=True) for e in range(2)]
    assert means.tolist() == pytest.approx((terms / config.max_steps).tolist())


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One on this machine, for all tests below."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


SMALL = ["num_ues=4", "episode_s=4", "sessions.scripts=2", "train.engine=rllib", "train.num_envs=2",
         "train.rollout_steps=8", "train.batch_size=32", "train.epochs=2", "train.hidden=[16]",
         "train.checkpoint_every=100", "train.evaluate_every=0"]


def runners() -> dict[int, str]:
    """Processes of runners that this process has started, by their ids."""
    import psutil

    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            name = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::MultiAgentEnvRunner"):
            found[child.pid] = name
    return found


@pytest.mark.slow
def test_a_runner_is_killed_and_training_goes_on_to_a_checkpoint_that_is_evaluated(
        cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runners, one scorer for both; SIGKILL in the middle of a rollout."""
    results: list[dict[str, Any]] = []
    killed: list[int] = []
    after: list[int] = []  # rollouts before the kill
    original = engine._record

    def kill() -> None:
        killed.append(min(runners()))
        after.append(len(results))
        os.kill(killed[0], signal.SIGKILL)

    def record(logger: Any, result: dict[str, Any], *rest: Any) -> None:
        results.append(result)
        if len(results) == 1:
            assert len(runners()) == 2
            threading.Timer(0.05, kill).start()
        original(logger, result, *rest)

    monkeypatch.setattr(engine, "_record", record)
    experiment = load_experiment("default", [*SMALL, "train.scoring=kv", "train.total_steps=600"])
    out = tmp_path / "run"
    path = train(experiment, out, quiet=True)
    assert path == out / "policy.safetensors" and killed and killed[0] not in runners()
    assert len(results) > 2 and not (out / "run.lock").exists()
    # Whether RLlib notices the death itself depends on whether Ray has put another process in its place by then.
    assert len(results) > after[0]
    found = evaluate(load_experiment("default", [*SMALL, "scoring.mode=none"]), [str(out)], 1, 100)
    assert np.isfinite(found["policies"]["run"]["episodes"]["cost"]).all()


@pytest.mark.slow
def test_two_worlds_are_trained_in_evaluated_and_played_by_evaluate_py(cluster: None, tmp_path: Path) -> None:
    """`ppo` in every world at once, with a learning curve; the best policy is the one that evaluate.py plays."""
    out = tmp_path / "run"
    experiment = load_experiment("default", [
        *SMALL, "train.algorithm=ppo", "train.worlds=['calm num_ues=4 episode_s=4', 'calm num_ues=6 episode_s=4']",
        "train.scoring=none", "train.total_steps=200", "train.evaluate_every=100", "train.evaluate_episodes=2"])
    train(experiment, out, quiet=True)
    curve = (out / "learning_curve.csv").read_text().splitlines()
    assert curve[0].startswith("steps,seconds,") and len(curve) >= 3 and (out / "best.safetensors").is_file()
    about = policy_file.read(out / "best.safetensors").about
    assert (about.algorithm, about.decisions, about.masked) == ("ppo", True, False)
    assert evaluate_command.main(["--config", str(out / "config.json"), "--policies", str(out), "--episodes", "2",
                                  "--out", str(tmp_path / "results"), "--quiet"]) == 0


@pytest.mark.slow
def test_a_scorer_in_another_process_says_the_same_to_the_last_bit(cluster: None) -> None:
    from functools import partial

    from kvroam.envs.handover.world.simulator import idle_plans
    from kvroam.envs.handover.world.state import KV

    config = load_experiment("default", [*SMALL, "sessions.think_s=0.2", "serving.preset=qwen2.5-7b"]).environment
    names = start_scorers(1, "test")
    try:
        shared = make_core(config, 2, scorer=partial(DistantScorer, asking(names[0]), "client"))
        own = make_core(config, 2)
        for core in (own, shared):
            core.reset([3, 4])
        plans = idle_plans(2, 4)
        plans["medium"], plans["keep"] = KV, 0.5
        for _ in range(40):
            own.step(plans)
            shared.step(plans)
            assert np.array_equal(own.reward, shared.reward)
        assert own.digest() == shared.digest()
    finally:
        stop_scorers(names)
