"""The algorithms of Stable-Baselines3 and sb3-contrib, set up as an experiment says, and where they act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from ..agents import policy_file
from ..agents.learned import in_folder
from ..agents.registry import file_of
from ..envs.base import registry
from ..envs.base.declare import Part
from ..envs.base.make import make_core
from ..envs.views.sb3 import StableBaselinesView
from ..errors import ConfigError
from ..experiment import Experiment, load_experiment
from .decision_ppo import DecisionPPO
from .networks import CentralCriticPolicy
from .worlds import Worlds

Environments = StableBaselinesView | Worlds
_USUAL = 16  # agents of one environment


@dataclass(frozen=True)
class Algorithm:
    """One choice of `train.algorithm`.

    Args:
        intervals: what trains a policy that is asked in every interval, if it can.
        decisions: what trains one that is asked at decision points, if it can.
        masked: choices that can have no effect are closed.
        central: the value function sees more than the policy does.
    """

    intervals: type | None
    decisions: type | None
    masked: bool
    central: bool = False


def table() -> Mapping[str, Algorithm]:
    """The algorithms by name."""
    from sb3_contrib import MaskablePPO, RecurrentPPO

    return {"ppo": Algorithm(PPO, DecisionPPO, False),
            "maskable-ppo": Algorithm(MaskablePPO, DecisionPPO, True),
            "recurrent-ppo": Algorithm(RecurrentPPO, None, False),
            "mappo": Algorithm(None, DecisionPPO, True, central=True),
            "bc": Algorithm(None, DecisionPPO, True)}


def algorithm(experiment: Experiment[Any]) -> tuple[type, bool]:
    """The class that trains as the experiment says, and whether its policy is masked.

    Raises:
        ConfigError: nothing here does.
    """
    options = experiment.train
    found = table().get(options.algorithm)
    kind = None if found is None else found.decisions if options.decisions else found.intervals
    if found is None or kind is None:
        raise ConfigError(f"train.algorithm is {options.algorithm} with decisions {str(options.decisions).lower()}: "
                          f"nothing trains that here; choose among {', '.join(table())}")
    return kind, found.masked


def environments(experiment: Experiment[Any]) -> dict[str, Any]:
    """The settings of the worlds that a policy is trained in, by name, scored as `train.scoring` says.

    Raises:
        ConfigError: one of them has other actions or observations than the experiment's own environment.
    """
    options, own = experiment.train, experiment.environment
    found = {name: _world(name) for name in options.worlds} or {own.task: own}
    for name, config in found.items():
        if config.task != own.task:
            raise ConfigError(f"train.worlds: {name} is of task {config.task}, the experiment of {own.task}")
        for what, theirs, ours in zip(("actions", "observations"), policy_file.layout(config),
                                      policy_file.layout(own), strict=True):
            if theirs != ours:
                raise ConfigError(f"train.worlds: {name} has other {what} than the experiment's own environment: all "
                                  "worlds of one policy need the same keys under actions")
    return {name: scored(config, options.scoring) for name, config in found.items()}


def _world(text: str) -> Any:
    """The environment of one of `train.worlds`: a file or a shipped name, and what to change in it."""
    name, *changes = text.split() or [""]
    return load_experiment(name, changes).environment


def scored(config: Any, mode: str) -> Any:
    """An environment's settings with another scoring.mode, where the task has one."""
    scoring = getattr(config, "scoring", None)
    return config if scoring is None else replace(config, scoring=replace(scoring, mode=mode))


def make_env(experiment: Experiment[Any]) -> Environments:
    """The environments that a policy is trained in."""
    options, goals = experiment.train, experiment.evaluate.objectives
    configs = list(environments(experiment).values())
    if options.decisions:
        cores = [make_core(config, side_by_side(config, options.num_envs)) for config in configs]
        seeds = [options.seed + k * options.num_envs for k in range(len(cores))]
        return Worlds(cores, seeds, options.gamma, goals, table()[options.algorithm].central, options.reward_scale,
                      options.credit)
    view = registry.environment(experiment.environment.task, "VecEnv")
    return view(configs[0], options.num_envs, options.seed, goals)


def side_by_side(config: Any, num_envs: int) -> int:
    """Environments of a world: `num_envs`, or where each has many agents so many that a world has no more of them."""
    agents = getattr(config, "num_ues", _USUAL)
    return max(1, round(num_envs * min(1.0, _USUAL / agents)))


def wrapped(env: Environments, experiment: Experiment[Any]) -> VecEnv:
    """The environments as an algorithm takes them."""
    return env if isinstance(env, Worlds) else Scaled(env, experiment.train.reward_scale)


def make_model(experiment: Experiment[Any], env: Environments) -> Any:
    """The algorithm at the start of a training.

    Raises:
        ConfigError, PolicyError: what the experiment asks for does not exist or does not fit.
    """
    options = experiment.train
    kind, _ = algorithm(experiment)
    policy: str | type = "MlpPolicy"
    network: dict[str, Any] = {"net_arch": list(options.hidden),
                               "activation_fn": getattr(torch.nn, options.activation)}
    if options.algorithm == "recurrent-ppo":
        policy = "MlpLstmPolicy"
        network |= {"lstm_hidden_size": options.hidden[0], "net_arch": list(options.hidden[1:])}
    elif isinstance(env, Worlds) and table()[options.algorithm].central:
        policy, network["seen"] = CentralCriticPolicy, env.seen
    model = kind(
        policy, wrapped(env, experiment), seed=options.seed,
        n_steps=options.rollout_steps, batch_size=options.batch_size, n_epochs=options.epochs, gamma=options.gamma,
        gae_lambda=options.gae_lambda, learning_rate=LinearSchedule(options.learning_rate, 0.0, 1.0),
        ent_coef=options.entropy, clip_range=options.clip, policy_kwargs=network, device="cpu",
    )
    if isinstance(model, DecisionPPO):
        model.critic_first = options.critic_first
    if options.start is not None:
        start_from(model, experiment, options.start)
    else:
        parts, _ = registry.task(experiment.environment.task).layout(experiment.environment)
        _favour_neutral(model, parts, options.neutral_bias)
    return model


def start_from(model: Any, experiment: Experiment[Any], text: str) -> None:
    """Give the model the actor of another policy; its value function is new.

    Raises:
        PolicyError: there is no such policy, or it does not fit.
    """
    path = file_of(text, experiment.environment)
    file = in_folder(path) if path.is_dir() else path
    found = policy_file.read(file)
    policy_file.check(found, experiment.environment, f"train.start {str(file)!r}")
    policy_file.into_sb3(found, model)


def learn(model: Any, experiment: Experiment[Any], callback: Any, resume: bool) -> None:
    """Train up to `train.total_steps`."""
    _, masked = algorithm(experiment)
    maskable = "MaskablePPO" in {kind.__name__ for kind in type(model).__mro__}
    more = {"use_masking": masked} if maskable else {}
    # SB3 counts a resumed run's steps on top of those it has.
    model.learn(experiment.train.total_steps - model.num_timesteps, callback=callback, reset_num_timesteps=not resume,
                **more)


def make_logger(folder: str) -> Logger:
    """A logger that writes TensorBoard files into a folder."""
    return configure(folder, ["tensorboard"])


class Scaled(VecEnvWrapper):
    """Environments with their rewards multiplied by `scale`, for PPO's value function."""

    def __init__(self, env: VecEnv, scale: float) -> None:
        super().__init__(env)
        self.scale = np.float32(scale)

    def reset(self) -> Any:
        """Begin new episodes."""
        return self.venv.reset()

    def step_wait(self) -> Any:
        """Advance all environments."""
        observation, reward, done, info = self.venv.step_wait()
        return observation, reward * self.scale, done, info


def _favour_neutral(model: Any, parts: Sequence[Part], bias: float) -> None:
    """Start from a policy that mostly takes the neutral choice of each part that has one.

    In Handover: prepare nothing, keep everything at full precision, share equally. Under uniform choices nearly every
    transfer is pruned, and PPO learns to avoid transfers before it learns that whole ones are good.
    """
    start = 0
    with torch.no_grad():
        for part in parts:
            if part.neutral is not None:
                model.policy.get_parameter("action_net.bias")[start + part.neutral] += bias
            start += part.size
