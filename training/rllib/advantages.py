"""Advantages of decisions of different length, in the place of RLlib's, which discount every step alike.

Source: Schulman et al., arXiv 1506.02438, with lambda per decision and gamma per interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import GeneralAdvantageEstimation
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from .environment import ELAPSED


class DecisionLearner(PPOTorchLearner):
    """PPO's learner with `DecisionAdvantages`."""

    def build(self) -> None:
        """Exchange the last piece of the pipeline, which PPO has put there."""
        super().build()
        pieces = self._learner_connector.connectors
        assert isinstance(pieces[-1], GeneralAdvantageEstimation), "PPO computes its advantages last"
        pieces[-1] = DecisionAdvantages(gamma=self.config.gamma, lambda_=self.config.lambda_)


class DecisionAdvantages(ConnectorV2):
    """Adds advantages, of mean 0 and deviation 1, and targets of the value function to a batch.

    Args:
        gamma: discount per interval.
        lambda_: of the estimate, per decision.
    """

    def __init__(self, input_observation_space: Any = None, input_action_space: Any = None, *, gamma: float,
                 lambda_: float) -> None:
        super().__init__(input_observation_space, input_action_space)
        self.gamma, self.lambda_ = gamma, lambda_

    def __call__(self, *, rl_module: Any, episodes: list[Any], batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """RLlib has made every episode one step longer, whose observation is the one after the last decision."""
        found = list(self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False))
        for name, part in batch.items():
            mine = [episode for episode in found if episode.module_id == name]
            with torch.no_grad():
                values = rl_module[name].compute_values(part)
            rewards = part[Columns.REWARDS].cpu().numpy()
            lengths = [len(episode) for episode in mine]
            edges = np.cumsum([0, *lengths])
            assert edges[-1] == len(rewards) == len(values), "one row per step of every agent"
            advantage = np.zeros(edges[-1], np.float32)
            kept = np.ones(edges[-1], bool)
            known = values.cpu().numpy()
            for episode, start, stop in zip(mine, edges[:-1], edges[1:], strict=True):
                discount = self.gamma ** np.array(elapsed(episode), np.float64)
                if episode.is_terminated:
                    discount[-1] = 0.0
                advantage[start:stop - 1] = decision_advantages(
                    rewards[start:stop - 1], known[start:stop], discount, self.lambda_)
                kept[stop - 1] = False
            part[Postprocessing.VALUE_TARGETS] = torch.as_tensor(advantage + known, device=values.device)
            mean, deviation = advantage[kept].mean(), max(1e-4, float(advantage[kept].std()))
            part[Postprocessing.ADVANTAGES] = torch.as_tensor((advantage - mean) / deviation, device=values.device)
        return batch


def elapsed(episode: Any) -> list[int]:
    """Intervals that each decision of a single agent's episode lasted; RLlib's longer step is left out."""
    return [info.get(ELAPSED, 1) for info in episode.get_infos(slice(1, len(episode)))]


def decision_advantages(rewards: np.ndarray, values: np.ndarray, discounts: np.ndarray | Sequence[float],
                        lambda_: float) -> np.ndarray:
    """Generalised advantage estimates of one agent's N decisions, float32 [N].

    Args:
        rewards: of each decision, discounted to it, [N].
        values: of what was seen at each decision, and after the last, [N + 1].
        discounts: of what comes after each decision, [N]; 0 where nothing does.
        lambda_: per decision.
    """
    found, last = np.zeros(len(rewards)), 0.0
    for i in range(len(rewards) - 1, -1, -1):
        delta = rewards[i] + discounts[i] * values[i + 1] - values[i]
        last = found[i] = delta + discounts[i] * lambda_ * last
    return found.astype(np.float32)
