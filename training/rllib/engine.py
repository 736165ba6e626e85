"""`train.engine: rllib`: the experiment on Ray RLlib, on this machine or on a cluster.

Runners play, this process learns. A runner that dies is started again while the others go on; its unfinished rollout is
lost, and training goes on.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env
from tqdm import tqdm

from ...agents import policy_file
from ...envs.base import registry
from ...envs.base.make import make_core
from ...errors import KvroamError
from ...experiment import Experiment
from .. import checkpoints, folder
from ..algorithm import algorithm as chosen
from ..algorithm import environments, make_logger, scored
from ..held_out import HeldOut
from ..stopping import StopRequest
from . import checkpoint
from .actors import asking, start_scorers, stop_scorers
from .advantages import DecisionLearner
from .environment import RoamEnv, agent_spaces
from .module import POLICY, MaskedPolicy, actor_weights
from .scoring import DistantScorer
from .worlds import counts, deal

ENVIRONMENT = "kvroam"  # its name in RLlib
_PATIENCE = 20  # rollouts in a row that bring nothing, before training gives up


def train(experiment: Experiment[Any], out: Path, quiet: bool = False, overwrite: bool = False) -> Path:
    """Train and return the path of the last policy; SIGINT and SIGTERM end it with the policy as it stands.

    Args:
        experiment: `experiment.train` has the hyper-parameters.
        out: run folder, created if absent.
        quiet: no progress bar.
        overwrite: replace the run that `out` holds.

    Raises:
        KvroamError: the run folder holds a run, the cluster cannot be reached, or its runners bring nothing.
        KeyboardInterrupt: a signal asked to stop; the policy is written.
    """
    options = experiment.train
    worlds = list(environments(experiment).values())
    deal(counts(worlds, options), options.runners)
    folder.begin(out, experiment, overwrite)
    with StopRequest() as stop, _cluster(options), _scorers(worlds, options.scorers) as scorers:
        register_env(ENVIRONMENT, _make_env)
        algorithm = configuration(experiment, worlds, scorers).build_algo()
        try:
            steps = _learn(algorithm, experiment, out, stop, quiet)
            path = out / checkpoints.POLICY
            policy_file.write(path, _policy(algorithm, experiment, steps))
            return path
        finally:
            algorithm.stop()


def configuration(experiment: Experiment[Any], worlds: list[Any], scorers: list[str]) -> PPOConfig:
    """RLlib's PPO, set up as the experiment says.

    With decisions a rollout is whole episodes: RLlib would otherwise carry the past of every agent that has not decided
    lately into the next one.

    Args:
        experiment: what is trained.
        worlds: settings of the environments.
        scorers: names of the actors that score, if any.
    """
    options = experiment.train
    config = worlds[0]
    parts, features = registry.task(config.task).layout(config)
    observation, action = agent_spaces(SimpleNamespace(parts=parts, features=features))
    agents = sum(envs * make_core(scored(world, "none")).num_agents
                 for world, envs in zip(worlds, counts(worlds, options), strict=True))
    batch = options.rollout_steps * agents
    bias = [options.neutral_bias * (part.neutral == i) for part in parts for i in range(part.size)]
    module = RLModuleSpec(module_class=MaskedPolicy, observation_space=observation, action_space=action,
                          model_config={"hidden": options.hidden, "activation": options.activation, "bias": bias})
    return (
        PPOConfig()
        .framework("torch")
        .environment(ENVIRONMENT, disable_env_checking=True, env_config={
            "experiment": experiment, "worlds": worlds, "scorers": scorers, "run": uuid.uuid4().hex})
        .env_runners(num_env_runners=options.runners, num_cpus_per_env_runner=1, sample_timeout_s=None,
                     batch_mode="complete_episodes" if options.decisions else "truncate_episodes")
        .multi_agent(policies={POLICY}, policy_mapping_fn=_same, count_steps_by="agent_steps")
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs={POLICY: module}))
        .learners(num_learners=0, learner_class=DecisionLearner)
        .training(
            train_batch_size_per_learner=batch, minibatch_size=min(options.batch_size, batch),
            num_epochs=options.epochs, shuffle_batch_per_epoch=True, lr=options.learning_rate,
            gamma=options.gamma, lambda_=options.gae_lambda, clip_param=options.clip,
            entropy_coeff=options.entropy, vf_loss_coeff=0.5, vf_clip_param=float("inf"), use_kl_loss=False,
            grad_clip=0.5, grad_clip_by="global_norm")
        .fault_tolerance(restart_failed_env_runners=True, delay_between_env_runner_restarts_s=1.0)
        .callbacks(Metrics)
        .debugging(seed=options.seed, log_level="ERROR")
    )


class Metrics(RLlibCallback):
    """Sends home what a runner has counted."""

    def on_sample_end(self, *, env_runner: Any, metrics_logger: Any, samples: Any, **kwargs: Any) -> None:
        """After each rollout."""
        env = env_runner.env.envs[0].unwrapped
        episodes, terms = env.take()
        found = {f"reward/{term.name}": [float(amount)] for term, amount in zip(env.task.terms, terms, strict=True)}
        found["reward/total"] = [float(terms.sum())]
        for episode in episodes:
            for name, amount in episode.items():
                if not np.isnan(amount):
                    found.setdefault(f"episode/{name}", []).append(amount)
        for name, amounts in found.items():
            for amount in amounts:
                metrics_logger.log_value((ENVIRONMENT, name), amount, reduce="item_series")
        metrics_logger.log_value((ENVIRONMENT, "steps"), sum(episode.agent_steps() for episode in samples),
                                 reduce="sum")


def _same(agent: str, *args: Any, **kwargs: Any) -> str:
    """All agents share one policy."""
    return POLICY


def _make_env(context: Any) -> RoamEnv:
    """The environment of one runner; RLlib counts them from 1."""
    experiment, scorers = context["experiment"], context["scorers"]
    options, runner = experiment.train, (context.worker_index or 1) - 1
    cores, seeds = [], []
    for share in deal(counts(context["worlds"], options), options.runners)[runner]:
        config = context["worlds"][share.world]
        given: dict[str, Any] = {}
        if scorers and _measured(config):
            client = f"{context['run']}-{runner}-{share.world}"
            given["scorer"] = partial(DistantScorer, asking(scorers[runner % len(scorers)]), client)
        cores.append(make_core(config, share.envs, **given))
        seeds.append(options.seed + share.world * options.num_envs + share.first)
    return RoamEnv(cores, seeds, options.gamma, options.decisions, options.reward_scale,
                   experiment.evaluate.objectives, chosen(experiment)[1], options.credit)


def _measured(config: Any) -> bool:
    """Whether a language model scores the steps."""
    return getattr(getattr(config, "scoring", None), "mode", None) == "kv"


@contextmanager
def _cluster(options: Any) -> Iterator[None]:
    """The cluster at `train.ray_address`; or one of this machine, which ends with the training."""
    if ray.is_initialized():
        yield
        return
    processes = 1 + options.runners + options.scorers
    given = dict(address="local", num_cpus=max(processes, os.cpu_count() or 1), include_dashboard=False)
    try:
        ray.init(**(given if options.ray_address is None else {"address": options.ray_address}),
                 logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise KvroamError(f"train.ray_address is {options.ray_address}: no Ray cluster answers there ({error}); start "
                          "one by `ray start --head`, or set null for this machine") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _scorers(worlds: list[Any], count: int) -> Iterator[list[str]]:
    """Names of the actors that score, if a language model scores at all."""
    names = start_scorers(count, f"kvroam-{uuid.uuid4().hex[:8]}") if any(map(_measured, worlds)) else []
    try:
        yield names
    finally:
        stop_scorers(names)


def _learn(algorithm: Algorithm, experiment: Experiment[Any], out: Path, stop: StopRequest, quiet: bool) -> int:
    """Train, evaluate on held-out seeds, and return the steps that it took."""
    options, logger = experiment.train, make_logger(str(out / folder.SCALARS))
    held_out, began = HeldOut(experiment, out), time.perf_counter()
    steps = saved = idle = 0
    with tqdm(total=options.total_steps, unit="step", disable=quiet, dynamic_ncols=True) as bar:
        while steps < options.total_steps:
            if held_out.due(steps):
                _evaluate(held_out, _policy(algorithm, experiment, steps), time.perf_counter() - began, logger)
                if held_out.enough:
                    print(f"stopped after {steps} steps: {options.patience} evaluations without improvement",
                          file=sys.stderr)
                    return steps
            rate = options.learning_rate * (1.0 - steps / options.total_steps)
            algorithm.learner_group.foreach_learner(partial(_set_rate, rate=rate))
            result = algorithm.train()
            found = result.get("env_runners", {}).get(ENVIRONMENT, {})
            taken = int(found.get("steps", 0))
            idle = 0 if taken else idle + 1
            if idle == _PATIENCE:
                raise KvroamError(f"no runner has brought anything {_PATIENCE} times in a row: see what they say in "
                                  "Ray's logs, /tmp/ray/session_latest/logs")
            steps += taken
            _record(logger, result, found, rate, steps)
            bar.update(min(steps, options.total_steps) - bar.n)
            if stop.asked or steps - saved >= options.checkpoint_every:
                saved = steps
                policy_file.write(out / checkpoints.POLICY, _policy(algorithm, experiment, steps))
            if stop.asked:
                print(f"written: {out / checkpoints.POLICY}; evaluate it with --policies {shlex.quote(str(out))}",
                      file=sys.stderr)
                raise KeyboardInterrupt
    if options.evaluate_every > 0:
        _evaluate(held_out, _policy(algorithm, experiment, steps), time.perf_counter() - began, logger)
    return steps


def _evaluate(held_out: HeldOut, found: policy_file.PolicyFile, seconds: float, logger: Any) -> None:
    """Play the held-out episodes now."""
    row = held_out.evaluate(found, seconds)
    logger.record(f"held_out/{held_out.metric}", row.cost)
    logger.dump(row.steps)


def _record(logger: Any, result: dict[str, Any], found: dict[str, Any], rate: float, steps: int) -> None:
    """Scalars of one rollout and update."""
    for name, amounts in found.items():
        if name != "steps" and np.size(amounts):
            logger.record(name, float(np.mean(amounts)))
    learned = result.get("learners", {}).get(POLICY, {})
    for ours, theirs in (("loss", "total_loss"), ("value_loss", "vf_loss"), ("entropy", "entropy"),
                         ("explained_variance", "vf_explained_var")):
        if theirs in learned:
            logger.record(f"train/{ours}", float(learned[theirs]))
    logger.record("train/learning_rate", rate)
    logger.dump(steps)


def _set_rate(learner: Any, rate: float) -> None:
    for _, optimiser in learner.get_optimizers_for_module(POLICY):
        for group in optimiser.param_groups:
            group["lr"] = rate


def _actor(learner: Any) -> dict[str, np.ndarray]:
    return actor_weights(learner.module[POLICY].unwrapped())


def _policy(algorithm: Algorithm, experiment: Experiment[Any], steps: int) -> policy_file.PolicyFile:
    """The policy as it stands."""
    (actor,) = [result.get() for result in algorithm.learner_group.foreach_learner(_actor)]
    return checkpoint.policy_of(experiment, actor, steps)
