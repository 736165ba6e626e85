"""The PettingZoo parallel view of any task: every agent decides for itself, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from ..base.config import resolve
from ..base.core import Core
from ..base.spaces import action_space, observation_space
from ..base.task import Task
from ..render import RENDER_MODES, Viewer


class ParallelView(ParallelEnv):
    """One environment of `task`, for PettingZoo; a subclass names the task.

    Args:
        config: settings of the environment: an instance of `task.Config`, a mapping of its keys, a YAML path, or the
            name of a shipped file.
        max_cycles: decision intervals per episode instead of `episode_s`.
        render_mode: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.
    """

    task: ClassVar[type[Task]]
    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": list(RENDER_MODES), "is_parallelizable": True, "render_fps": 10,
    }

    def __init__(self, config: Any = None, *, max_cycles: int | None = None, render_mode: str | None = None) -> None:
        self.config = resolve(self.task.Config, config)
        self.render_mode, self.max_cycles = render_mode, horizon(self.config, max_cycles, "max_cycles")
        task = self.task(self.config)
        self.core = Core(task)
        self._viewer = Viewer(self.core, render_mode)
        name = f"kvroam/{self.task.title}-v{self.task.version}"
        self.metadata = self.metadata | {"name": name, "render_fps": self._viewer.fps}
        self.possible_agents = list(task.agents)
        self.agents: list[str] = []
        self.observation_spaces = dict.fromkeys(self.possible_agents, observation_space(task.features))
        self.action_spaces = dict.fromkeys(self.possible_agents, action_space(task.parts))
        self.state_space = observation_space(task.features, task.num_agents)
        self._term_keys = tuple(f"reward_{term.name}" for term in task.terms)
        self._cycle = 0

    def observation_space(self, agent: str) -> spaces.Box:
        """The same object for all agents."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.MultiDiscrete:
        """The same object for all agents."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode; without a seed, the next one after the last seed."""
        self.core.reset([seed])
        self.agents = list(self.possible_agents)
        self._cycle = 0
        self._viewer.update()
        return self._observations(), self._infos()

    def step(self, actions: Mapping[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        """Advance by one decision interval.

        Raises:
            RuntimeError: before reset, or after the end.
            KeyError: an agent is missing or unknown.
            ValueError: an action outside the space.
        """
        if not self.agents:
            raise RuntimeError("the episode has not begun or is over: call reset() first")
        unknown = set(actions) ^ set(self.agents)
        if unknown:
            raise KeyError(f"{sorted(unknown)[0]!r} is missing or unknown: one action for each of "
                           f"{self.agents[0]} ... {self.agents[-1]} is needed")
        try:
            plans = self.core.decode(np.stack([np.asarray(actions[agent]) for agent in self.agents])[None])
        except ValueError:
            self._refuse_shapes(actions)
            raise
        self.core.step(plans)
        self._cycle += 1
        self._viewer.update()
        ended = bool(self.core.terminated[0])
        over = self._cycle >= self.max_cycles and not ended
        rewards = dict(zip(self.agents, self.core.reward[0].tolist(), strict=True))
        result = (self._observations(), rewards, dict.fromkeys(self.agents, ended),
                  dict.fromkeys(self.agents, over), self._infos())
        if over or ended:
            self.agents = []
        return result

    def state(self) -> np.ndarray:
        """The observations of all agents one after the other, float32 [A * F], for centralised critics."""
        return self.core.observe().reshape(-1)

    def render(self) -> np.ndarray | None:
        """A frame, uint8 [600, 800, 3], with render_mode "rgb_array"; otherwise None."""
        return self._viewer.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self._viewer.close()

    def _refuse_shapes(self, actions: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError that names the first agent whose action has another shape or type than its space."""
        shape = (len(self.core.task.parts),)
        for agent in self.agents:
            action = np.asarray(actions[agent])
            if action.shape != shape or not np.issubdtype(action.dtype, np.integer):
                raise ValueError(f"the action of {agent} is {action.dtype} {action.shape}: expected integers of shape "
                                 f"{shape}") from None

    def _observations(self) -> dict[str, np.ndarray]:
        # Every call makes a new array, whose rows nobody else has.
        return dict(zip(self.agents, self.core.observe()[0], strict=True))

    def _infos(self) -> dict[str, dict[str, Any]]:
        masks = self.core.masks()[0].astype(np.int8)
        further = self.core.task.info()
        names = (*self._term_keys, *further)
        columns = (*self.core.terms[0].T.tolist(), *(values[0].tolist() for values in further.values()))
        infos = {}
        for agent, mask, row in zip(self.agents, masks, zip(*columns, strict=True), strict=True):
            info: dict[str, Any] = {"action_mask": mask}
            info.update(zip(names, row, strict=True))
            infos[agent] = info
        return infos


def horizon(config: Any, steps: int | None, name: str) -> int:
    """Decision intervals of an episode: `steps`, or those of the settings.

    Raises:
        ValueError: `steps`, which the caller knows as `name`, is below 1.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"{name} is {steps}: it must be at least 1")
    return config.max_steps if steps is None else steps
