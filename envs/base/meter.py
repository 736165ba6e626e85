"""What an episode amounts to: one number per metric, computed from what a meter has added up."""

from __future__ import annotations

from typing import Any

import numpy as np

from .declare import Metric


class Meter:
    """Adds up the steps of one episode in each of E environments.

    A task with more to say than its cost derives from it, and its metrics read what it has kept.

    Args:
        task: whose episodes are measured.
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self.cost = np.zeros(task.num_envs)  # minus the mean reward of the agents, summed over the steps

    def __getstate__(self) -> dict[str, Any]:
        """What was added up; whoever unpickles a meter gives it the task of the unpickled core."""
        return {**vars(self), "task": None}

    def add(self, core: Any) -> None:
        """Add the step that `core` has just made."""
        self.cost -= core.reward.sum(axis=1) / core.num_agents

    def forget(self, envs: np.ndarray) -> None:
        """Begin anew in the environments `envs`, int [N], whose episodes have ended.

        Arrays lose their rows, lists of one entry per environment their content; dictionaries hold more of both.
        """
        _forget(list(vars(self).values()), envs, self.task.num_envs)

    def result(self, e: int) -> dict[str, float]:
        """The metrics of the episode in environment `e`; NaN where nothing happened that they are about."""
        return {metric.name: float(metric.of(self, e)) for metric in self.task.metrics}


def _forget(kept: list[Any], envs: np.ndarray, num_envs: int) -> None:
    for value in kept:
        if isinstance(value, np.ndarray):
            value[envs] = 0
        elif isinstance(value, dict):
            _forget(list(value.values()), envs, num_envs)
        elif isinstance(value, list) and len(value) == num_envs:
            for e in envs:
                value[e].clear()


def ratio(part: float, whole: float) -> float:
    """part / whole; NaN where there is no whole."""
    return part / whole if whole > 0 else float("nan")


COST = Metric("cost", "1", "lower", "priced terms of the reward, per agent and episode", "cost",
              lambda meter, e: meter.cost[e])
