"""`scoring.drift: resume`: the drift of a migration is charged at once, over a fixed horizon, when the session resumes.

The tokens that follow are still fed through the cache and counted in the metrics, but not charged again. A session
that moves twice within the horizon is charged twice: each charge is the price of one arrival.
"""

from __future__ import annotations

import numpy as np

from .config import HandoverConfig
from .scoring import KVScorer, Scores
from .world.simulator import Simulator


class ResumeScorer(KVScorer):
    """Charges every session that arrives with KL over `scoring.horizon` tokens, or what is left of its script."""

    def __init__(self, config: HandoverConfig, num_envs: int) -> None:
        super().__init__(config, num_envs)
        self.horizon = config.scoring.horizon
        self._charge = np.zeros((num_envs, config.num_ues))

    def score(self, sim: Simulator) -> Scores:
        """Follow the step that `sim` has just made, and note what its arrivals cost."""
        self._charge = np.zeros(self._charge.shape)
        return super().score(sim)

    def charged(self, scores: Scores) -> np.ndarray:
        """KL over the horizon of the sessions that arrived in this step [E, U] [nat]."""
        return self._charge.copy()

    def _migrate(self, sim: Simulator, moved: list[tuple[int, np.void]]) -> None:
        super()._migrate(sim, moved)
        keys = [(e, int(event["ue"])) for e, event in moved]
        live = [key for key in keys if key in self._degraded]
        if live:
            drift = self.backend.measure([self._degraded[key] for key in live], self.horizon)
            self._charge[tuple(np.array(live).T)] += drift.kl
