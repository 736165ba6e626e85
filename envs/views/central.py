"""One controller for all agents: a Gymnasium view of any task, alone and vectorised."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode

from ..base.config import resolve
from ..base.core import Core
from ..base.spaces import action_space, observation_space
from ..base.task import Task
from .controller import ControllerEnv, ControllerVectorEnv


class Central:
    """Sees the rows of all agents, acts for all, earns their mean reward."""

    def __init__(self, task: Task) -> None:
        self.observation_space = observation_space(task.features, task.num_agents)
        self.action_space = action_space(task.parts, task.num_agents)

    def reset(self, core: Core) -> None:
        """Nothing to remember."""

    def plans(self, core: Core, action: np.ndarray) -> np.ndarray:
        """Plans [E, A] from int [E, A * parts]."""
        return core.decode(action.reshape(core.num_envs, core.num_agents, -1))

    def observe(self, core: Core) -> np.ndarray:
        """The rows of all agents one after the other, float32 [E, A * F]."""
        return core.observe().reshape(core.num_envs, -1)

    def masks(self, core: Core) -> np.ndarray:
        """The masks of all agents one after the other, bool [E, A * sum of sizes]."""
        return core.masks().reshape(core.num_envs, -1)

    def of_agents(self, values: np.ndarray) -> np.ndarray:
        """The mean over the agents [E, ...]; whole numbers that all agents share stay whole."""
        first = values[:, 0]
        shared = np.issubdtype(values.dtype, np.integer) and (values == first[:, None]).all()
        return first if shared else values.mean(axis=1)


class CentralView(ControllerEnv):
    """One controller decides for all agents of one environment; a subclass names the task.

    Args:
        config: an instance of `task.Config`, a mapping of its keys, a YAML path, or the name of a shipped file.
        max_cycles: decision intervals per episode instead of `episode_s`.
        render_mode: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.
    """

    task: ClassVar[type[Task]]

    def __init__(self, config: Any = None, *, max_cycles: int | None = None, render_mode: str | None = None) -> None:
        task = self.task(resolve(self.task.Config, config))
        super().__init__(task, Central(task), max_cycles, render_mode)


class CentralVectorView(ControllerVectorEnv):
    """The same, `num_envs` times on one batched core; what `gymnasium.make_vec` makes by default."""

    task: ClassVar[type[Task]]

    def __init__(self, num_envs: int = 1, config: Any = None, *, max_cycles: int | None = None,
                 max_episode_steps: int | None = None, render_mode: str | None = None,
                 autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, threads: int = 1) -> None:
        task = self.task(resolve(self.task.Config, config), num_envs, threads)
        super().__init__(task, Central(task), max_cycles, max_episode_steps, render_mode, autoreset_mode)
