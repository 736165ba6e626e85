"""`scoring.mode: table`: the score of a step from the tables, without a language model.

About as fast as no scoring, so policies are trained with it. What it says of drift and of wrong answers is the mean of
what was measured (drift_table.py); it knows nothing of recall.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import HandoverConfig
from ..scores import Scores
from ..world.simulator import Simulator
from .charges import TableAmounts


class TableScorer:
    """Expected drift and wrong answers of E x U sessions.

    Args:
        config: the environment; its prices do not matter.
        num_envs: environments side by side.
    """

    def __init__(self, config: HandoverConfig, num_envs: int) -> None:
        self._amounts, self._scale = TableAmounts(config, num_envs), config.serving.context_scale

    def reset(self, sim: Simulator, envs: np.ndarray) -> None:
        """The sessions of the environments `envs` begin anew, with whole caches."""
        self._amounts.reset(sim, envs)

    def score(self, sim: Simulator) -> Scores:
        """Follow the step that `sim` has just made; to be asked once per step."""
        nats, wrong = self._amounts.harm_of_step(sim)
        scores = Scores.zeros(nats.shape)
        scores.kl, scores.wrong = nats, wrong
        scores.measured = sim.state.flow["tokens"] / self._scale
        return scores

    def charged(self, scores: Scores) -> np.ndarray:
        """KL divergence that the reward charges for the step just scored [E, U] [nat]."""
        return scores.kl

    def save(self) -> Any:
        """What the next step depends on, as plain data."""
        return self._amounts.save()

    def restore(self, saved: Any) -> None:
        """Take over what `save` returned."""
        self._amounts.restore(saved)
