"""Policies that were trained: the network of a policy file acts for all agents, or a planner its numbers are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.base.decisions import Holder
from ..errors import PolicyError
from ..settings.loader import fingerprint
from . import policy_file
from .base import Policy, Tunables
from .policy_file import PolicyFile

BEST, LAST = "best.safetensors", "policy.safetensors"


def trained(source: Path, config: Any, tunable: Tunables | None = None) -> Policy:
    """The policy of a file or run folder: a network that acts, or a planner with the numbers that were learned for it.

    Args:
        source: a policy file, or the run folder that holds `best.safetensors` or else `policy.safetensors`.
        config: the environment it will act in; actions and observations must be those of the training.
        tunable: what the catalogue of the task has for a file of numbers.

    Returns:
        A policy with `name` and `training_seeds`, the seeds of the environments it was trained in.

    Raises:
        PolicyError: no policy file, a damaged or altered one, or one for another environment.
    """
    file = in_folder(source) if source.is_dir() else source
    found, where = policy_file.read(file), f"policy {str(file)!r}"
    if source.is_dir():
        _check_run(source, file, found)
    name = source.name if source.is_dir() else source.parent.name if source.name in (BEST, LAST) else source.stem
    if found.about.network.kind != "numbers":
        policy: Any = LearnedPolicy(found, config, where)
    else:
        policy_file.check(found, config, where)
        if tunable is None or tunable.names != found.about.network.names:
            raise PolicyError(f"{where} has the numbers {', '.join(found.about.network.names)}; this version has no "
                              "policy with exactly these: train it anew")
        policy = tunable.make(found.tensors["numbers"].astype(np.float64), config)
        policy.training_seeds = _training_seeds(found)
    policy.name = name
    return policy


class LearnedPolicy:
    """Acts as a trained network says: its most probable choices, among those that its masks leave open.

    A policy that was trained at decision points is asked at them only; until an agent's next one, its plan stays.

    Args:
        found: the content of a policy file with a network.
        config: the environment it will act in; actions and observations must be those of the training.
        where: what errors call it.
        deterministic: take the most probable choices; False draws by probability.
        seed: of the draws.

    Attributes:
        about: what the file says about itself.
        training_seeds: the seeds of the environments it was trained in.

    Raises:
        PolicyError: it has no network, or is one for another environment.
    """

    decides_handovers = True

    def __init__(self, found: PolicyFile, config: Any, where: str = "the policy", deterministic: bool = True,
                 seed: int = 0) -> None:
        policy_file.check(found, config, where)
        self.name, self.about, self.actor = found.about.algorithm, found.about, found.actor()
        self.training_seeds = _training_seeds(found)
        self._draws = None if deterministic else np.random.default_rng(seed)
        self._task: Any = None

    def reset(self, view: Any) -> None:
        """New episodes begin everywhere: nothing is remembered, and everybody decides."""
        self._task = view.task
        rows = view.task.num_envs * view.task.num_agents
        self._holder = Holder(view.task)
        self._actions = np.zeros((view.task.num_envs, view.task.num_agents, len(self.actor.sizes)), np.int64)
        self._memory = self.actor.memory(rows)
        self._time_s = np.zeros(view.task.num_envs)

    def act(self, view: Any) -> np.ndarray:
        """Plans [E, A]."""
        task = view.task
        if task is not self._task:
            self.reset(view)
        self._notice_new_episodes(view)
        due = self._holder.due() if self.about.decisions else np.ones(self._actions.shape[:2], bool)
        rows = np.flatnonzero(due)
        if len(rows):
            observations = task.observe().reshape(due.size, -1)[rows]
            masks = task.masks().reshape(due.size, -1)[rows] if self.about.masked else None
            logits, after = self.actor.logits(observations, tuple(array[:, rows] for array in self._memory))
            for array, new in zip(self._memory, after, strict=True):
                array[:, rows] = new
            self._actions[due] = self.actor.choose(logits, masks, self._draws)
        return self._holder.decide(due, self._actions) if self.about.decisions else task.decode(self._actions)

    def _notice_new_episodes(self, view: Any) -> None:
        """Forget what was in environments whose clock has gone back, where the view has a clock."""
        clock = getattr(view, "time_s", None)
        if clock is None:
            return
        anew = np.flatnonzero(clock < self._time_s)
        self._time_s = np.array(clock)
        self._holder.forget(anew)
        agents = self._actions.shape[1]
        for array in self._memory:
            array.reshape(len(array), -1, agents, array.shape[-1])[:, anew] = 0.0


def _training_seeds(found: PolicyFile) -> range:
    options = found.about.config.get("train", {})
    first, worlds = int(options.get("seed", 0)), max(1, len(options.get("worlds", ())))
    return range(first, first + worlds * int(options.get("num_envs", 0)))


def in_folder(run: Path) -> Path:
    """The policy of a run folder: the best by its evaluations, or else the last.

    Raises:
        PolicyError: there is none.
    """
    for name in (BEST, LAST):
        if (run / name).is_file():
            return run / name
    raise PolicyError(f"folder {str(run)!r} holds neither {BEST} nor {LAST}: give a run folder of train.py, or a "
                      f"{policy_file.SUFFIX} file")


def _check_run(folder: Path, file: Path, found: PolicyFile) -> None:
    """Refuse a policy beside the configuration of another run."""
    beside = folder / "config.json"
    if not beside.is_file():
        return
    try:
        own = fingerprint(json.loads(beside.read_text(encoding="utf-8")))
    except ValueError as error:
        raise PolicyError(f"{str(beside)!r} is not JSON: train the run anew") from error
    if own != found.about.fingerprint:
        raise PolicyError(f"run {str(folder)!r} holds the policy of one configuration ({found.about.fingerprint}) and "
                          f"the config.json of another ({own}): name {file.name} itself, or train anew")
