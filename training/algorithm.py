"""The algorithm: Stable-Baselines3 PPO with parameters shared by all UEs, set up as an experiment says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from ..envs.base import registry
from ..envs.base.declare import Part
from ..envs.views.sb3 import StableBaselinesView
from ..experiment import Experiment


def make_env(experiment: Experiment[Any]) -> StableBaselinesView:
    """The environments that a policy is trained in."""
    options = experiment.train
    view = registry.environment(experiment.environment.task, "VecEnv")
    return view(experiment.environment, options.num_envs, options.seed, experiment.evaluate.objectives)


def make_model(experiment: Experiment[Any], env: VecEnv) -> PPO:
    """PPO at the start of a training."""
    options = experiment.train
    model = PPO(
        "MlpPolicy", Scaled(env, options.reward_scale), seed=options.seed, n_steps=options.rollout_steps,
        batch_size=options.batch_size, n_epochs=options.epochs, gamma=options.gamma, gae_lambda=options.gae_lambda,
        learning_rate=LinearSchedule(options.learning_rate, 0.0, 1.0), ent_coef=options.entropy,
        clip_range=options.clip, policy_kwargs={"net_arch": list(options.hidden)}, device="cpu",
    )
    parts, _ = registry.task(experiment.environment.task).layout(experiment.environment)
    _favour_neutral(model, parts, options.neutral_bias)
    return model


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


def _favour_neutral(model: PPO, parts: Sequence[Part], bias: float) -> None:
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
