"""The policy that knows nothing: uniform among the choices that can have an effect."""

from __future__ import annotations

import numpy as np

from ..envs.handover import actions
from ..envs.handover.config import ActionConfig
from ..envs.handover.view import NetworkView


class RandomPolicy:
    """Uniform MultiDiscrete actions under the masks, from a generator of its own.

    Args:
        config: the levels of the actions.
        seed: of the generator; `reset` starts it anew, so that every episode batch is reproducible.
    """

    name = "random"
    hands_over = True

    def __init__(self, config: ActionConfig, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        self.generator = np.random.default_rng(seed)

    def reset(self, view: NetworkView) -> None:
        """Start the generator anew."""
        self.generator = np.random.default_rng(self.seed)

    def act(self, view: NetworkView) -> np.ndarray:
        """Random plans, PLAN [E, U]."""
        mask = actions.masks(view, self.config)
        size_of = actions.sizes(self.config)
        action = np.empty((view.num_envs, view.num_ues, len(size_of)), np.int64)
        start = 0
        for part, size in enumerate(size_of):
            score = self.generator.random((view.num_envs, view.num_ues, size))
            action[..., part] = np.where(mask[..., start:start + size], score, -1.0).argmax(axis=-1)
            start += size
        return actions.decode(action, view, self.config)
