"""Gymnasium views of any task: one controller per environment, alone or many environments side by side.

A `Controller` says what the controller sees, may do and earns, for E environments at once. `ControllerEnv` is a
gymnasium.Env with E = 1, `ControllerVectorEnv` a gymnasium.vector.VectorEnv on one core with any E.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..base.core import Core, seeds_from
from ..base.pricing import total
from ..base.spaces import Choices
from ..base.task import Task
from ..render import RENDER_MODES, Viewer
from .parallel import horizon

_RESET_FIRST = "the episode has not begun or is over: call reset() first"


class Controller(Protocol):
    """What one controller per environment sees, may do and earns, in E environments at once."""

    observation_space: spaces.Box[np.float32]
    action_space: Choices

    def reset(self, core: Core) -> None:
        """A new episode begins somewhere."""

    def plans(self, core: Core, action: np.ndarray) -> np.ndarray:
        """Plans [E, A] from actions int [E, parts]."""

    def observe(self, core: Core) -> np.ndarray:
        """Observations float32 [E, F], a fresh array."""

    def masks(self, core: Core) -> np.ndarray:
        """Which choices can have an effect, bool [E, sum of the action sizes]."""

    def of_agents(self, values: np.ndarray) -> np.ndarray:
        """What the controller gets of numbers that agents have: [E, ...] of [E, A, ...], for rewards and info."""


def infos(controller: Controller, core: Core) -> dict[str, np.ndarray]:
    """Numeric info of every environment, [E, ...] each: action_mask, reward_<term>, and the task's own numbers."""
    terms = controller.of_agents(core.terms)
    return {
        "action_mask": controller.masks(core).astype(np.int8),
        **{f"reward_{term.name}": terms[:, t].copy() for t, term in enumerate(core.task.terms)},
        **{name: np.array(controller.of_agents(values)) for name, values in core.task.info().items()},
    }


def _plans(controller: Controller, core: Core, action: Any, space: gym.Space) -> np.ndarray:
    """Plans [E, A] from actions that must have the shape and type of `space`."""
    action = np.asarray(action)
    if action.shape != space.shape or not np.issubdtype(action.dtype, np.integer):
        raise ValueError(f"the action is {action.dtype} {action.shape}: expected integers of shape {space.shape}")
    return controller.plans(core, action.reshape(core.num_envs, -1))


class ControllerEnv(gym.Env[np.ndarray, np.ndarray]):
    """One environment with one controller; the horizon is a truncation.

    Args:
        task: of the environment, made for one.
        controller: made for that task.
        max_cycles: decision intervals per episode instead of `episode_s`.
        render_mode: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012

    def __init__(self, task: Task, controller: Controller, max_cycles: int | None, render_mode: str | None) -> None:
        self.config, self.controller, self.render_mode = task.config, controller, render_mode
        self.max_cycles = horizon(task.config, max_cycles, "max_cycles")
        self.core = Core(task)
        self._viewer = Viewer(self.core, render_mode)
        self.metadata = self.metadata | {"render_fps": self._viewer.fps}
        self.observation_space, self.action_space = controller.observation_space, controller.action_space
        self._cycle = -1

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; without a seed, the next one after the last seed."""
        super().reset(seed=seed)
        self.core.reset([seed])
        self.controller.reset(self.core)
        self._cycle = 0
        self._viewer.update()
        return self.controller.observe(self.core)[0], self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one decision interval.

        Raises:
            ResetNeeded: before reset, or after the end.
            ValueError: an action outside the space.
        """
        if not 0 <= self._cycle < self.max_cycles or self.core.terminated[0]:
            raise ResetNeeded(_RESET_FIRST)
        self.core.step(_plans(self.controller, self.core, action, self.action_space))
        self._cycle += 1
        self._viewer.update()
        reward = float(total(self.controller.of_agents(self.core.terms))[0])
        ended = bool(self.core.terminated[0])
        over = self._cycle >= self.max_cycles and not ended
        return self.controller.observe(self.core)[0], reward, ended, over, self._info()

    def render(self) -> np.ndarray | None:
        """A frame, uint8 [600, 800, 3], with render_mode "rgb_array"; otherwise None."""
        return self._viewer.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self._viewer.close()

    def action_masks(self) -> np.ndarray:
        """Which choices can have an effect, bool [sum of the action sizes]; sb3-contrib's MaskablePPO asks for it."""
        return self.controller.masks(self.core)[0]

    def _info(self) -> dict[str, Any]:
        rows = {name: values[0] for name, values in infos(self.controller, self.core).items()}
        return {name: row.copy() if row.ndim else row.item() for name, row in rows.items()}


class ControllerVectorEnv(VectorEnv):
    """E environments with one controller each, on one core; sub-environment i seeded s + i is the single one's s + i.

    Args:
        task: of the environments, made for as many as there shall be.
        controller, max_cycles: as for ControllerEnv.
        max_episode_steps: ends an episode before its horizon, as gymnasium.make's time limit; None or -1: does not.
        render_mode: None; make single environments to see one.
        autoreset_mode: NEXT_STEP (Gymnasium's default: in the step after its end an environment resets and ignores its
            action) or SAME_STEP (the last step returns the first observation of the next episode; the last one is in
            `infos["final_obs"]`).
    """

    metadata: dict[str, Any]

    def __init__(self, task: Task, controller: Controller, max_cycles: int | None, max_episode_steps: int | None,
                 render_mode: str | None, autoreset_mode: AutoresetMode | str) -> None:
        if render_mode is not None:
            raise ValueError(f"render_mode is {render_mode!r}: a batch draws nothing, use None, or gymnasium.make")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if self.autoreset_mode == AutoresetMode.DISABLED:
            raise ValueError("autoreset_mode is Disabled: use NextStep or SameStep")
        self.metadata = {"render_modes": [], "render_fps": 10, "autoreset_mode": self.autoreset_mode}
        self.config, self.controller, self.render_mode = task.config, controller, None
        self.num_envs = task.num_envs
        self.max_cycles = horizon(task.config, max_cycles, "max_cycles")
        if max_episode_steps not in (None, -1):
            self.max_cycles = min(self.max_cycles, horizon(task.config, max_episode_steps, "max_episode_steps"))
        self.core = Core(task)
        self.single_observation_space, self.single_action_space = controller.observation_space, controller.action_space
        self.observation_space = batch_space(controller.observation_space, self.num_envs)
        self.action_space = batch_space(controller.action_space, self.num_envs)
        self._cycle = np.full(self.num_envs, -1)
        self._over = np.zeros(self.num_envs, bool)

    def reset(self, *, seed: int | Sequence[int | None] | None = None,
              options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: of environment i, seed + i; or one per environment; None goes on after the last seeds.
            options: with a `reset_mask`, bool [E], only those environments begin anew.

        Raises:
            ValueError: a seed that is not a whole number, seeds of another number, or a mask of another shape.
            RuntimeError: some environments only, before the first reset of all.
        """
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, bool)), bool)
        if mask.shape != (self.num_envs,):
            raise ValueError(f"options['reset_mask'] has shape {mask.shape}: expected ({self.num_envs},)")
        several = isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, str)
        given: Any = seed
        seeds = given if given is None or several else seeds_from(given, self.num_envs)
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds were given for {self.num_envs} environments: give one each")
        super().reset(seed=int(seed) if isinstance(seed, (int, np.integer)) else None)
        chosen = np.flatnonzero(mask)
        return self._begin(chosen, None if seeds is None else [seeds[i] for i in chosen])

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every environment by one decision interval; those that are over begin anew (NEXT_STEP).

        Raises:
            ResetNeeded: before reset.
            ValueError: an action outside the space.
        """
        if (self._cycle < 0).any():
            raise ResetNeeded(_RESET_FIRST)
        over = self._over
        if over.all():
            observation, info = self._begin(np.arange(self.num_envs), None)
            return observation, np.zeros(self.num_envs), ~over, ~over, info
        if over.any():
            # Their actions are for nothing; any valid one lets the others go on.
            actions = np.where(over.reshape(-1, *[1] * (np.ndim(actions) - 1)), 0, actions)
        self.core.step(_plans(self.controller, self.core, actions, self.action_space))
        self._cycle += 1
        reward = total(self.controller.of_agents(self.core.terms))
        terminated = self.core.terminated & ~over
        truncated = (self._cycle >= self.max_cycles) & ~terminated & ~over
        reward[over] = 0.0
        if over.any():
            self._begin(np.flatnonzero(over), None)
        self._over = terminated | truncated
        observation, info = self.controller.observe(self.core), self._infos()
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._over.any():
            ended = self._over
            last = np.full(self.num_envs, None, object)
            for e in np.flatnonzero(ended):
                last[e] = observation[e]
            final = {"final_obs": last, "_final_obs": ended, "final_info": info, "_final_info": ended.copy()}
            observation, info = self._begin(np.flatnonzero(ended), None)
            info.update(final)
        return observation, reward, terminated, truncated, info

    def action_masks(self) -> np.ndarray:
        """Which choices can have an effect, bool [E, sum of the action sizes]."""
        return self.controller.masks(self.core)

    def _begin(self, envs: np.ndarray, seeds: Sequence[int | None] | None) -> tuple[np.ndarray, dict[str, Any]]:
        self.core.reset(seeds, envs)
        self.controller.reset(self.core)
        self._cycle[envs], self._over = 0, np.where(np.isin(np.arange(self.num_envs), envs), False, self._over)
        return self.controller.observe(self.core), self._infos()

    def _infos(self) -> dict[str, Any]:
        rows = infos(self.controller, self.core)
        return {**rows, **{f"_{name}": np.ones(self.num_envs, bool) for name in rows}}
