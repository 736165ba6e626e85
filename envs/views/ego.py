"""One agent learns, a policy acts for the others: a Gymnasium view of any task, alone and vectorised."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode

from ..base import policies
from ..base.config import resolve
from ..base.core import Core
from ..base.spaces import action_space, observation_space
from ..base.task import Task
from .controller import ControllerEnv, ControllerVectorEnv


class Ego:
    """Sees the row of one agent, acts for it, earns its reward; a policy acts for the others.

    Args:
        task: the task.
        ego: name of the agent that learns; None: the first.
        others: a policy by name or checkpoint, a policy object (kvroam.agents.Policy), or a function from the task's
            view to plans [E, A]; None: the task's `companion`.

    Raises:
        ValueError: no such agent, or `others` is nothing of the kind.
        PolicyError: no such policy.
    """

    def __init__(self, task: Task, ego: str | None = None, others: Any = None) -> None:
        ego = task.agents[0] if ego is None else ego
        if ego not in task.agents:
            raise ValueError(f"ego is {ego!r}: choose among {task.agents[0]} ... {task.agents[-1]}")
        self.ego = task.agents.index(ego)
        self.observation_space, self.action_space = observation_space(task.features), action_space(task.parts)
        self._others = policies.make(task.companion if others is None else others, task.config)

    def reset(self, core: Core) -> None:
        """Tell the others' policy."""
        self._others.reset(core.view)

    def plans(self, core: Core, action: np.ndarray) -> np.ndarray:
        """The others' plans with that of int [E, parts] among them, [E, A].

        Raises:
            ValueError: the action is outside the space, or the others' policy returned no plans.
        """
        actions = np.zeros((core.num_envs, core.num_agents, action.shape[-1]), action.dtype)
        actions[:, self.ego] = action
        own = core.decode(actions)
        try:
            plans = core.task.check_plans(self._others.act(core.view))
        except ValueError as error:
            raise ValueError(f"the others' policy: {error}") from error
        plans[:, self.ego] = own[:, self.ego]
        return plans

    def observe(self, core: Core) -> np.ndarray:
        """The row of the agent, float32 [E, F]."""
        return core.observe()[:, self.ego].copy()

    def masks(self, core: Core) -> np.ndarray:
        """Of the agent, bool [E, sum of the action sizes]."""
        return core.masks()[:, self.ego]

    def of_agents(self, values: np.ndarray) -> np.ndarray:
        """Those of the agent [E, ...]."""
        return values[:, self.ego]


class EgoView(ControllerEnv):
    """One agent of one environment learns; a subclass names the task.

    Args:
        config: an instance of `task.Config`, a mapping of its keys, a YAML path, or the name of a shipped file.
        ego: the agent that learns; None: the first.
        others: who acts for the other agents: a policy's name or checkpoint, a policy, or a function from the task's
            view to plans; None: the task's `companion`.
        max_cycles: decision intervals per episode instead of `episode_s`.
        render_mode: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.
    """

    task: ClassVar[type[Task]]

    def __init__(self, config: Any = None, *, ego: str | None = None, others: Any = None,
                 max_cycles: int | None = None, render_mode: str | None = None) -> None:
        task = self.task(resolve(self.task.Config, config))
        super().__init__(task, Ego(task, ego, others), max_cycles, render_mode)


class EgoVectorView(ControllerVectorEnv):
    """The same, `num_envs` times on one batched core; what `gymnasium.make_vec` makes by default."""

    task: ClassVar[type[Task]]

    def __init__(self, num_envs: int = 1, config: Any = None, *, ego: str | None = None, others: Any = None,
                 max_cycles: int | None = None, max_episode_steps: int | None = None, render_mode: str | None = None,
                 autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, threads: int = 1) -> None:
        task = self.task(resolve(self.task.Config, config), num_envs, threads)
        super().__init__(task, Ego(task, ego, others), max_cycles, max_episode_steps, render_mode, autoreset_mode)
