"""Gymnasium views of the batched core: one controller per environment, alone or many side by side.

A `Controller` says what the controller sees, may do and earns, for E environments at once. `ControllerEnv` is a
gymnasium.Env with E = 1, `ControllerVectorEnv` a gymnasium.vector.VectorEnv on one core with any E.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..base.core import HandoverCore, seeds_from
from ..handover.actions import Choices
from ..handover.config import HandoverConfig
from ..handover.rewards import TERMS, total
from ..render import RENDER_MODES, Viewer

Config = HandoverConfig | Mapping | str | Path | None
_RESET_FIRST = "the episode has not begun or is over: call reset() first"


class Controller(Protocol):
    """What one controller per environment sees, may do and earns, in E environments at once."""

    observation_space: spaces.Box[np.float32]
    action_space: Choices

    def reset(self, core: HandoverCore) -> None:
        """A new episode begins everywhere."""

    def plans(self, core: HandoverCore, action: np.ndarray) -> np.ndarray:
        """PLAN [E, U] from actions int [E, parts]."""

    def observe(self, core: HandoverCore) -> np.ndarray:
        """Observations float32 [E, F], a fresh array."""

    def terms(self, core: HandoverCore) -> np.ndarray:
        """Reward terms of the last step [E, len(TERMS)]; their sum is the reward."""

    def masks(self, core: HandoverCore) -> np.ndarray:
        """Which choices can have an effect, bool [E, sum of the action sizes]."""

    def interruption_s(self, core: HandoverCore) -> np.ndarray:
        """Time without service in the last step [E] [s]."""


def infos(controller: Controller, core: HandoverCore) -> dict[str, np.ndarray]:
    """Numeric info of every environment, [E, ...] each: action_mask, reward_<term>, interruption_s, scored."""
    terms = controller.terms(core)
    return {
        "action_mask": controller.masks(core).astype(np.int8),
        **{f"reward_{name}": terms[:, t].copy() for t, name in enumerate(TERMS)},
        "interruption_s": np.array(controller.interruption_s(core)),
        "scored": np.full(core.num_envs, int(core.scorer is not None)),
    }


def _plans(controller: Controller, core: HandoverCore, action: Any, space: gym.Space) -> np.ndarray:
    """PLAN [E, U] from actions that must have the shape and type of `space`."""
    action = np.asarray(action)
    if action.shape != space.shape or not np.issubdtype(action.dtype, np.integer):
        raise ValueError(f"the action is {action.dtype} {action.shape}: expected integers of shape {space.shape}")
    return controller.plans(core, action.reshape(core.num_envs, -1))


def _horizon(config: HandoverConfig, steps: int | None, name: str) -> int:
    if steps is not None and steps < 1:
        raise ValueError(f"{name} is {steps}: it must be at least 1")
    return config.max_steps if steps is None else steps


class ControllerEnv(gym.Env[np.ndarray, np.ndarray]):
    """One environment with one controller; the horizon is a truncation.

    Args:
        config: a HandoverConfig, a mapping of its keys, a YAML path, or the name of a shipped file.
        controller: made from the resolved configuration.
        max_cycles: decision intervals per episode instead of `episode_s`.
        render_mode: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012

    def __init__(self, config: HandoverConfig, controller: Controller, max_cycles: int | None,
                 render_mode: str | None) -> None:
        self.config, self.controller, self.render_mode = config, controller, render_mode
        self.max_cycles = _horizon(config, max_cycles, "max_cycles")
        self.core = HandoverCore(config)
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
        if not 0 <= self._cycle < self.max_cycles:
            raise ResetNeeded(_RESET_FIRST)
        self.core.step(_plans(self.controller, self.core, action, self.action_space))
        self._cycle += 1
        self._viewer.update()
        reward = float(total(self.controller.terms(self.core))[0])
        return (self.controller.observe(self.core)[0], reward, False, self._cycle >= self.max_cycles, self._info())

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

    All horizons are equal, so all environments are truncated together.

    Args:
        num_envs: environments side by side.
        config, controller, max_cycles: as for ControllerEnv.
        render_mode: None; make single environments to see one.
        max_episode_steps: ends an episode before its horizon, as gymnasium.make's time limit; None or -1: does not.
        autoreset_mode: NEXT_STEP (Gymnasium's default: the step after the end resets and ignores its actions) or
            SAME_STEP (the last step returns the first observation of the next episode; the last one is in
            `infos["final_obs"]`).
        threads: numba threads of the simulator.
    """

    metadata: dict[str, Any]

    def __init__(self, num_envs: int, config: HandoverConfig, controller: Controller, max_cycles: int | None,
                 max_episode_steps: int | None, render_mode: str | None, autoreset_mode: AutoresetMode | str,
                 threads: int) -> None:
        if render_mode is not None:
            raise ValueError(f"render_mode is {render_mode!r}: a batch draws nothing, use None, or gymnasium.make")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if self.autoreset_mode == AutoresetMode.DISABLED:
            raise ValueError("autoreset_mode is Disabled: all environments end together, use NextStep or SameStep")
        self.metadata = {"render_modes": [], "render_fps": 10, "autoreset_mode": self.autoreset_mode}
        self.config, self.controller, self.num_envs, self.render_mode = config, controller, num_envs, None
        self.max_cycles = _horizon(config, max_cycles, "max_cycles")
        if max_episode_steps not in (None, -1):
            self.max_cycles = min(self.max_cycles, _horizon(config, max_episode_steps, "max_episode_steps"))
        self.core = HandoverCore(config, num_envs, threads)
        self.single_observation_space, self.single_action_space = controller.observation_space, controller.action_space
        self.observation_space = batch_space(controller.observation_space, num_envs)
        self.action_space = batch_space(controller.action_space, num_envs)
        self._cycle = -1

    def reset(self, *, seed: int | Sequence[int | None] | None = None,
              options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin new episodes everywhere.

        Args:
            seed: of environment i, seed + i; or one per environment; None goes on after the last seeds.
            options: a `reset_mask` must be all True.

        Raises:
            ValueError: a seed that is not a whole number, seeds of another number, or a reset of some environments
                only.
        """
        if options and "reset_mask" in options and not np.all(options["reset_mask"]):
            raise ValueError("options['reset_mask'] leaves environments out: they end together, so reset all of them")
        several = isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, str)
        given: Any = seed
        seeds = given if given is None or several else seeds_from(given, self.num_envs)
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds were given for {self.num_envs} environments: give one each")
        super().reset(seed=int(seed) if isinstance(seed, (int, np.integer)) else None)
        return self._begin(seeds)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every environment by one decision interval, or reset them all (NEXT_STEP, after the end).

        Raises:
            ResetNeeded: before reset.
            ValueError: an action outside the space.
        """
        if self._cycle < 0:
            raise ResetNeeded(_RESET_FIRST)
        false = np.zeros(self.num_envs, bool)
        if self._cycle >= self.max_cycles:
            observation, info = self._begin(None)
            return observation, np.zeros(self.num_envs), false, false.copy(), info
        self.core.step(_plans(self.controller, self.core, actions, self.action_space))
        self._cycle += 1
        reward, over = total(self.controller.terms(self.core)), self._cycle >= self.max_cycles
        observation, info = self.controller.observe(self.core), self._infos()
        if over and self.autoreset_mode == AutoresetMode.SAME_STEP:
            last = np.empty(self.num_envs, object)
            last[:] = list(observation)
            final = {"final_obs": last, "_final_obs": ~false, "final_info": info, "_final_info": ~false}
            observation, info = self._begin(None)
            info.update(final)
        return observation, reward, false, np.full(self.num_envs, over), info

    def action_masks(self) -> np.ndarray:
        """Which choices can have an effect, bool [E, sum of the action sizes]."""
        return self.controller.masks(self.core)

    def _begin(self, seeds: Sequence[int | None] | None) -> tuple[np.ndarray, dict[str, Any]]:
        self.core.reset(seeds)
        self.controller.reset(self.core)
        self._cycle = 0
        return self.controller.observe(self.core), self._infos()

    def _infos(self) -> dict[str, Any]:
        rows = infos(self.controller, self.core)
        return {**rows, **{f"_{name}": np.ones(self.num_envs, bool) for name in rows}}
