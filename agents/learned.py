"""A policy trained by train.py: Stable-Baselines3 PPO with parameters shared by all UEs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ..envs.handover import actions, observations
from ..envs.handover.config import HandoverConfig
from ..envs.handover.view import NetworkView
from ..errors import PolicyError

BEST = "policy.zip"


class LearnedPolicy:
    """The greedy policy of a checkpoint.

    Args:
        path: a checkpoint (.zip), or the run folder that holds `policy.zip`.
        config: the environment it will act in; its spaces must be those of the training.
    """

    decides_handovers = True

    def __init__(self, path: Path, config: HandoverConfig) -> None:
        from stable_baselines3 import PPO

        file = path / BEST if path.is_dir() else path
        if not file.is_file() or not zipfile.is_zipfile(file):
            raise PolicyError(f"checkpoint {str(file)!r} is absent or no checkpoint: give a .zip written by train.py")
        try:
            self.model = PPO.load(file, device="cpu")
        except Exception as error:
            reason = type(error).__name__
            raise PolicyError(f"checkpoint {str(file)!r} cannot be read ({reason}): train it anew") from error
        self.config = config
        wanted = (len(observations.features(config.actions.candidates)),), actions.sizes(config.actions)
        found = self.model.observation_space.shape, list(getattr(self.model.action_space, "nvec", []))
        if wanted != (found[0], [int(n) for n in found[1]]):
            raise PolicyError(f"checkpoint {str(file)!r} was trained on {found[0]} observations and actions "
                              f"{[int(n) for n in found[1]]}, this environment has {wanted[0]} and {wanted[1]}: "
                              "use the configuration it was trained with")
        self.name = path.name if path.is_dir() else path.stem if path.stem != "policy" else path.parent.name

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans of the most probable actions, PLAN [E, U]."""
        rows = observations.observe(view).reshape(view.num_envs * view.num_ues, -1)
        chosen, _ = self.model.predict(rows, deterministic=True)
        return actions.decode(np.asarray(chosen).reshape(view.num_envs, view.num_ues, -1), view, self.config.actions)
