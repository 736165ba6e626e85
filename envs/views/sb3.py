"""Stable-Baselines3 view: a VecEnv whose rows are environment x UE, on the batched core itself.

Unlike wrapped PettingZoo copies, the environments get distinct seeds, and the horizon is a truncation that PPO
bootstraps through (`TimeLimit.truncated`, `terminal_observation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from ..base.core import HandoverCore, seeds_from
from ..handover import actions, observations
from ..handover.config import HandoverConfig, resolve
from ..handover.metrics import EpisodeMeter


class HandoverVecEnv(VecEnv):
    """E environments of U UEs as E * U rows, row e * U + u; all UEs share one policy.

    Args:
        config: a HandoverConfig, a mapping of its keys, a YAML path, or the name of a shipped file.
        num_envs: environments side by side.
        seed: environment i starts from seed + i.
        objectives: TTFT and TPOT objectives of `episode_metrics` [s].
        threads: numba threads of the simulator.

    Attributes:
        core: the batched core, for its `terms`.
        episode_metrics: of the last episodes that ended, one dictionary per environment.
    """

    def __init__(self, config: HandoverConfig | Mapping | str | Path | None = None, num_envs: int = 1, seed: int = 0,
                 objectives: tuple[float, float] = (0.5, 0.1), threads: int = 1) -> None:
        config = resolve(config)
        self.core = HandoverCore(config, num_envs, threads)
        self.rows = num_envs * config.num_ues
        self.render_mode = None
        self._parts = len(actions.sizes(config.actions))
        super().__init__(self.rows, observations.space(config), actions.action_space(config.actions))
        self._objectives = objectives
        self._first_seeds = seeds_from(seed, num_envs)
        self._actions = np.zeros((num_envs, config.num_ues, self._parts), np.int64)
        self.episode_metrics: list[dict[str, float]] = []
        self._step = 0

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed environment i with seed + i at the next reset."""
        if seed is not None:
            self._first_seeds = seeds_from(seed, self.core.num_envs)
        return [s for s in self._first_seeds for _ in range(self.core.num_ues)]

    def reset(self) -> np.ndarray:
        """Begin new episodes; returns observations float32 [E * U, F]."""
        self.core.reset(self._first_seeds)
        self._first_seeds = [None] * self.core.num_envs
        self._begin()
        return self._observe()

    def _begin(self) -> None:
        self._step = 0
        self._return = np.zeros(self.rows)
        self._meter = EpisodeMeter(self.core.num_envs, self.core.num_ues, *self._objectives)

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions int [E * U, parts].

        Raises:
            RuntimeError: before reset.
            ValueError: another shape; values are checked as the step is made.
        """
        self.core.require_reset()
        actions, shape = np.asarray(actions), (self.rows, self._parts)
        if actions.shape != shape:
            raise ValueError(f"actions have shape {actions.shape}: expected {shape}, one row per environment and UE")
        self._actions = actions.reshape(self.core.num_envs, self.core.num_ues, self._parts)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        """Advance all environments; at the horizon all rows end together and begin anew."""
        self.core.step(self.core.decode(self._actions))
        self._meter.add(self.core)
        self._step += 1
        rewards = self.core.reward.reshape(-1).astype(np.float32)
        self._return += rewards
        done = self._step >= self.core.config.max_steps
        observation = self._observe()
        infos: list[dict[str, Any]] = [{} for _ in range(self.rows)]
        if done:
            for row, info in enumerate(infos):
                info["terminal_observation"] = observation[row]
                info["TimeLimit.truncated"] = True
                info["episode"] = {"r": float(self._return[row]), "l": self._step, "t": 0.0}
            self.episode_metrics = [self._meter.result(e) for e in range(self.core.num_envs)]
            self.core.reset()
            self._begin()
            observation = self._observe()
        return observation, rewards, np.full(self.rows, done), infos

    def action_masks(self) -> np.ndarray:
        """Masks of all rows, bool [E * U, sum of the action sizes]."""
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
