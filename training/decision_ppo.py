"""PPO over decision points: Stable-Baselines3's and sb3-contrib's updates, on rollouts collected from Worlds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer, MaskableRolloutBufferSamples

from .worlds import Asked, Batch, Worlds, advantages

_SMOOTH = 0.9  # of the spread of advantages, per rollout


class DecisionBuffer(MaskableRolloutBuffer):
    """A rollout of decisions of different length, flat; what the updates of (Maskable)PPO read."""

    spread: np.ndarray | None = None  # of the advantages in each world, smoothed [W]

    def reset(self) -> None:
        """Nothing is allocated beforehand: a batch has as many decisions as were complete."""
        self.values = self.returns = np.zeros(0, np.float32)

    def fill(self, batch: Batch, worlds: int) -> None:
        """Take a batch and compute its advantages: in each world in units of their own spread there.

        Otherwise the worlds where everything costs more would decide what is learned.
        """
        found = advantages(batch, self.gae_lambda)
        self._batch, self.values, self.returns = batch, batch.values, found + batch.values
        count = np.maximum(np.bincount(batch.world, minlength=worlds), 1)
        spread = np.sqrt(np.bincount(batch.world, found.astype(float) ** 2, minlength=worlds) / count)
        self.spread = spread if self.spread is None else _SMOOTH * self.spread + (1.0 - _SMOOTH) * spread
        self._advantages = found / np.maximum(self.spread, 1e-6)[batch.world].astype(np.float32)

    def get(self, batch_size: int | None = None) -> Iterator[MaskableRolloutBufferSamples]:  # type: ignore[override]
        """Shuffled minibatches."""
        batch = self._batch
        n = len(batch.rows)
        order = np.random.permutation(n)  # noqa: NPY002 (seeded and kept by Stable-Baselines3)
        size = batch_size or n
        for start in range(0, n - min(n, size) + 1, size):
            i = order[start:start + size]
            yield MaskableRolloutBufferSamples(*map(torch.as_tensor, (
                batch.observations[i], batch.actions[i].astype(np.float32), batch.values[i], batch.log_prob[i],
                self._advantages[i], self.returns[i], batch.masks[i])))


class DecisionPPO(MaskablePPO):
    """MaskablePPO that is asked at decision points: `n_steps` is decisions per row of `env`, a Worlds, on average.

    A timestep is a decision.

    Attributes:
        critic_first: rollouts from which only the value function will learn yet. A new one would spoil a policy that
            was imitated.
    """

    critic_first = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "rollout_buffer_class": DecisionBuffer})

    def train(self) -> None:
        """Update the networks on the last rollout."""
        if self.critic_first <= 0:
            super().train()
            return
        self.critic_first -= 1
        actor = [p for name, p in self.policy.named_parameters() if "value" not in name]
        for parameter in actor:
            parameter.requires_grad_(False)
        super().train()
        for parameter in actor:
            parameter.requires_grad_(True)

    def collect_rollouts(self, env: Any, callback: Any, rollout_buffer: Any, n_rollout_steps: int,
                         use_masking: bool = True) -> bool:
        """Let the worlds play until enough decisions are complete."""
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        assert isinstance(env, Worlds)

        def ask(observations: np.ndarray, masks: np.ndarray) -> Asked:
            with torch.no_grad():
                actions, values, log_prob = self.policy(
                    torch.as_tensor(observations), action_masks=masks if use_masking else None)
            return Asked(actions.numpy(), values.flatten().numpy(), log_prob.numpy())

        def value(observations: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return self.policy.predict_values(torch.as_tensor(observations)).flatten().numpy()

        batch = env.collect(n_rollout_steps * env.num_envs, ask, value)
        if not use_masking:
            # The updates apply the masks of the buffer, and nothing was closed when these actions were drawn.
            batch = batch._replace(masks=np.ones_like(batch.masks))
        rollout_buffer.fill(batch, len(env.views))
        self.num_timesteps += len(batch.rows)
        callback.update_locals(locals())
        goes_on = bool(callback.on_step())
        callback.on_rollout_end()
        return goes_on
