"""A policy's episodes without a language model: what their steps cost added up, or all of their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvroam import agents
from kvroam.envs import make_core
from kvroam.envs.handover.harm.charges import TableAmounts, TableCharges
from kvroam.evaluation.rollout import episodes, rollout
from kvroam.experiment import Experiment


def totals(policy: str, config: Any, seeds: Sequence[int], charges: TableCharges | TableAmounts,
           told: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Both results of `charges.of_step`, summed over the steps of each episode.

    Args:
        policy: as evaluate.py takes it.
        config: of the environment.
        seeds: of the episodes, all side by side.
        charges: for as many environments as there are seeds.
        told: the configuration that the policy is given, where it is another.
    """
    core, player = make_core(config, len(seeds)), agents.make(policy, told or config, seeds[0])
    cost, floor = np.zeros(()), np.zeros(())
    for step in rollout(core, player, seeds):
        if step == 0:
            charges.reset(core.task.sim)
            continue
        more, unavoidable = charges.of_step(core.task.sim)
        cost, floor = cost + more, floor + unavoidable
    return cost, floor


def outcomes(policy: str, experiment: Experiment[Any], seeds: Sequence[int]) -> list[dict[str, float]]:
    """The metrics of one episode per seed, all side by side.

    Args:
        policy: as evaluate.py takes it.
        experiment: its environment, scored as that says, and its objectives.
        seeds: of the episodes.
    """
    config = experiment.environment
    core, player = make_core(config, len(seeds)), agents.make(policy, config, seeds[0])
    *_, found = episodes(core, player, seeds, experiment.evaluate)
    return [metrics for metrics, _ in found or ()]
