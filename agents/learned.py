"""A policy trained by train.py: Stable-Baselines3 PPO with parameters shared by all agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.base import registry
from ..errors import PolicyError
from ..settings.loader import fingerprint
from ..training import description

BEST = "policy.zip"


class LearnedPolicy:
    """The greedy policy of a checkpoint; nothing that is stored in the file is executed.

    Args:
        path: a checkpoint (.zip), or the run folder that holds `policy.zip`.
        config: the environment it will act in; its spaces must be those of the training.

    Attributes:
        training_seeds: the seeds of the environments it was trained in.

    Raises:
        PolicyError: no checkpoint of train.py, one for another environment, or one that was altered.
    """

    decides_handovers = True

    def __init__(self, path: Path, config: Any) -> None:
        file = path / BEST if path.is_dir() else path
        if not file.is_file():
            raise PolicyError(f"checkpoint {str(file)!r} is absent: give a .zip written by train.py")
        about = description.read(file)
        if path.is_dir():
            _check_run(path, about)
        if about.task != config.task:
            raise PolicyError(f"checkpoint {str(file)!r} was trained for task {about.task!r}, this is "
                              f"{config.task!r}: use a policy of the same task")
        parts, features = registry.task(config.task).layout(config)
        wanted = len(features), tuple(part.size for part in parts)
        if wanted != (about.observation_size, about.action_sizes):
            raise PolicyError(f"checkpoint {str(file)!r} was trained on {about.observation_size} observations and "
                              f"actions {list(about.action_sizes)}, this environment has {wanted[0]} and "
                              f"{list(wanted[1])}: use the configuration it was trained with")
        self.network = description.load_policy(file, about)
        options = about.config.get("train", {})
        first = int(options.get("seed", 0))
        self.training_seeds = range(first, first + int(options.get("num_envs", 0)))
        self.name = path.name if path.is_dir() else path.stem if path.stem != "policy" else path.parent.name

    def reset(self, view: Any) -> None:
        """Nothing to remember."""

    def act(self, view: Any) -> np.ndarray:
        """Plans of the most probable actions [E, A]."""
        task = view.task
        rows = task.observe()
        chosen, _ = self.network.predict(rows.reshape(-1, rows.shape[-1]), deterministic=True)
        return task.decode(np.asarray(chosen).reshape(*rows.shape[:2], -1))


def _check_run(folder: Path, about: description.Description) -> None:
    """Refuse a policy beside the configuration of another run."""
    beside = folder / "config.json"
    if not beside.is_file():
        return
    try:
        found = fingerprint(json.loads(beside.read_text(encoding="utf-8")))
    except ValueError as error:
        raise PolicyError(f"{str(beside)!r} is not JSON: train the run anew") from error
    if found != about.fingerprint:
        raise PolicyError(f"run {str(folder)!r} holds the policy of one configuration ({about.fingerprint}) and the "
                          f"config.json of another ({found}): name the checkpoint itself, or train anew")
