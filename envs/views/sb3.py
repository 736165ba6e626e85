"""Stable-Baselines3 view of any task: a VecEnv whose rows are environment x agent, on the batched core itself.

Unlike wrapped PettingZoo copies, the environments get distinct seeds, and the horizon is a truncation that PPO
bootstraps through (`TimeLimit.truncated`, `terminal_observation`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from ..base.config import resolve
from ..base.core import Core, seeds_from
from ..base.meter import Meter
from ..base.spaces import action_space, observation_space
from ..base.task import Task


class StableBaselinesView(VecEnv):
    """E environments of A agents as E * A rows, row e * A + a; all agents share one policy. A subclass names the task.

    Args:
        config: an instance of `task.Config`, a mapping of its keys, a YAML path, or the name of a shipped file.
        num_envs: environments side by side.
        seed: environment i starts from seed + i.
        objectives: of `episode_metrics`, as the task's meter takes them.
        threads: numba threads.

    Attributes:
        core: the batched core, for its `terms`.
        episode_metrics: of the last episodes that ended, one dictionary per environment.
    """

    task: ClassVar[type[Task]]

    def __init__(self, config: Any = None, num_envs: int = 1, seed: int = 0,
                 objectives: Mapping[str, float] | None = None, threads: int = 1) -> None:
        task = self.task(resolve(self.task.Config, config), num_envs, threads)
        self.core = Core(task)
        self.rows = num_envs * task.num_agents
        self.render_mode = None
        super().__init__(self.rows, observation_space(task.features), action_space(task.parts))
        self._objectives = dict(objectives or {})
        self._first_seeds = seeds_from(seed, num_envs)
        self._actions = np.zeros((num_envs, task.num_agents, len(task.parts)), np.int64)
        self.episode_metrics: list[dict[str, float]] = []
        self._meter: Meter = task.meter(**self._objectives)
        self._length = np.zeros(num_envs, np.int64)
        self._return = np.zeros(self.rows)
        self._made = time.perf_counter()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._meter.task = self.core.task

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed environment i with seed + i at the next reset."""
        if seed is not None:
            self._first_seeds = seeds_from(seed, self.core.num_envs)
        return [s for s in self._first_seeds for _ in range(self.core.num_agents)]

    def reset(self) -> np.ndarray:
        """Begin new episodes; returns observations float32 [E * A, F]."""
        self.core.reset(self._first_seeds)
        self._first_seeds = [None] * self.core.num_envs
        self._meter = self.core.task.meter(**self._objectives)
        self._length[:], self._return[:] = 0, 0.0
        return self._observe()

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions int [E * A, parts].

        Raises:
            RuntimeError: before reset.
            ValueError: another shape; values are checked as the step is made.
        """
        self.core.require_reset()
        actions, shape = np.asarray(actions), (self.rows, len(self.core.task.parts))
        if actions.shape != shape:
            raise ValueError(f"actions have shape {actions.shape}: expected {shape}, one row per environment and agent")
        self._actions = actions.reshape(self.core.num_envs, self.core.num_agents, -1)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        """Advance all environments; the rows of those that end begin anew."""
        core = self.core
        core.step(core.decode(self._actions))
        self._meter.add(core)
        self._length += 1
        rewards = core.reward.reshape(-1).astype(np.float32)
        self._return += rewards
        truncated = (self._length >= core.config.max_steps) & ~core.terminated
        ended = np.flatnonzero(truncated | core.terminated)
        observation = self._observe()
        infos: list[dict[str, Any]] = [{} for _ in range(self.rows)]
        done = np.zeros(self.rows, bool)
        if len(ended):
            elapsed = time.perf_counter() - self._made  # as Stable-Baselines3's Monitor counts
            for e in ended:
                for row in range(e * core.num_agents, (e + 1) * core.num_agents):
                    done[row] = True
                    infos[row] = {
                        "terminal_observation": observation[row], "TimeLimit.truncated": bool(truncated[e]),
                        "episode": {"r": float(self._return[row]), "l": int(self._length[e]), "t": round(elapsed, 6)}}
                    self._return[row] = 0.0
            self.episode_metrics = [self._meter.result(int(e)) for e in ended]
            core.reset(None, ended)
            self._meter.forget(ended)
            self._length[ended] = 0
            observation = self._observe()
        return observation, rewards, done, infos

    def action_masks(self) -> np.ndarray:
        """Masks of all rows, bool [E * A, sum of the action sizes]."""
        return self.core.masks().reshape(self.rows, -1)

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """The same attribute for every row."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Refused: rows are no separate environments."""
        raise AttributeError(f"{attr_name!r} cannot be set on single rows: all rows share one core")

    def env_method(self, method_name: str, *args: Any, indices: int | Iterable[int] | None = None,
                   **kwargs: Any) -> list[Any]:
        """Call a method; `action_masks` gives each row its own."""
        result = getattr(self, method_name)(*args, **kwargs)
        rows = list(self._get_indices(indices))
        return [result[i] for i in rows] if method_name == "action_masks" else [result] * len(rows)

    def env_is_wrapped(self, wrapper_class: type, indices: int | Iterable[int] | None = None) -> list[bool]:
        """No wrappers inside."""
        return [False] * len(list(self._get_indices(indices)))

    def _observe(self) -> np.ndarray:
        return self.core.observe().reshape(self.rows, -1)
