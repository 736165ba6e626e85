"""Decision points: agents decide when their situation changes, and follow what they decided until then.

A semi-Markov view of any task. Between two decisions of an agent its plan stays in force; what it earns meanwhile is
discounted by the time that has passed, so that a return is the same number as in the view by intervals.
Source: Sutton, Precup and Singh, "Between MDPs and semi-MDPs", Artificial Intelligence 112 (1999).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .core import Core
from .task import Task


class Holder:
    """The plans that agents hold, and whose turn it is to decide.

    Args:
        task: whose agents decide.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._seen: np.ndarray | None = None
        self._plans: np.ndarray | None = None

    def reset(self) -> None:
        """Everybody decides at the next `due`."""
        self._seen = self._plans = None

    def forget(self, envs: np.ndarray) -> None:
        """Everybody decides in the environments `envs`, whose episodes begin anew."""
        if self._seen is not None:
            self._seen[envs] = -1

    def due(self) -> np.ndarray:
        """Who decides now, bool [E, A]; to be asked once per interval."""
        now = self.task.occasions()
        if now is None or self._seen is None:
            due = np.ones((self.task.num_envs, self.task.num_agents), bool)
        else:
            due = now != self._seen
        self._seen = now
        return due

    def decide(self, due: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The plans of the coming interval [E, A].

        Args:
            due: who decides, bool [E, A].
            actions: int [E, A, parts]; rows of the others do not matter.
        """
        decoded = self.task.decode(actions)
        if self._plans is None:
            self._plans = decoded.copy()
        self._plans[due] = decoded[due]
        return self._plans.copy()

    def save(self) -> Any:
        """What the next interval depends on, as plain data."""
        return self._seen, self._plans

    def restore(self, saved: Any) -> None:
        """Take over what `save` returned."""
        self._seen, self._plans = saved


class Ended:
    """Decisions whose reward is complete, N of them, in the order in which they were taken by each agent."""

    def __init__(self, rows: np.ndarray, reward: np.ndarray, discount: np.ndarray, elapsed: np.ndarray,
                 over: np.ndarray, truncated: np.ndarray) -> None:
        self.rows = rows  # int64 [N], environment * agents + agent
        self.reward = reward  # float64 [N], discounted to the decision
        self.discount = discount  # float64 [N], of what comes after
        self.elapsed = elapsed  # int64 [N] [intervals]
        self.over = over  # bool [N], the episode has ended with it
        self.truncated = truncated  # bool [N], at its horizon: what would have come after counts


class Sight:
    """What rows of a core see: their observations, and what a critic may know besides.

    Args:
        core: of the rows.
        central: append the mean observation of the environment's agents, and the agent's outlook (Task.outlook).
    """

    def __init__(self, core: Core, central: bool = False) -> None:
        self.core, self.central = core, central
        self.seen = len(core.task.features)  # numbers of an observation; what follows is for critics
        self.width = 2 * self.seen + core.task.foresee() if central else self.seen

    def __call__(self, which: np.ndarray) -> np.ndarray:
        """Float32 [N, width] for the rows `which`, int64 [N]."""
        rows = self.core.observe()
        found = rows.reshape(-1, self.seen)[which]
        if not self.central:
            return found
        return np.concatenate([found, rows.mean(axis=1)[which // self.core.num_agents],
                               self.core.task.outlook(which)], axis=1)


class DecisionView:
    """E environments of A agents that are asked at their decision points only; row e * A + a is an agent.

    Args:
        core: the batched core; it is stepped here only.
        gamma: discount per interval.
        credited: whether rewards are dealt out for learning (Task.credit), or as they are.
        sight: called as sight(rows) for what some rows see, float32 [N, F]; default: their observations.

    Attributes:
        due: rows that decide now, int64 [N].
    """

    def __init__(self, core: Core, gamma: float, credited: bool = False,
                 sight: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.sight = sight or Sight(core)
        self.core, self.gamma, self.credited = core, gamma, credited
        shape = (core.num_envs, core.num_agents)
        self.holder = Holder(core.task)
        self.due = np.empty(0, np.int64)
        self._open = np.zeros(shape, bool)
        self._reward, self._discount = np.zeros(shape), np.ones(shape)
        self._elapsed, self._length = np.zeros(shape, np.int64), np.zeros(shape[0], np.int64)
        self._actions = np.zeros((*shape, len(core.task.parts)), np.int64)

    def reset(self, seeds: Any = None) -> None:
        """Begin new episodes everywhere; everybody is due."""
        self.core.reset(seeds)
        self.holder.reset()
        self._open[:], self._length[:] = False, 0
        self.due = np.flatnonzero(self.holder.due())

    def __getstate__(self) -> dict[str, Any]:
        """Everything that the next step depends on; the holder's task is that of the core."""
        return {**vars(self), "holder": self.holder.save()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.holder = Holder(self.core.task)
        self.holder.restore(state["holder"])

    def observe(self, rows: np.ndarray) -> np.ndarray:
        """What some rows see, float32 [N, F]."""
        return self.sight(rows)

    def masks(self) -> np.ndarray:
        """Masks of all rows, bool [E * A, sum of the action sizes]."""
        return self.core.masks().reshape(self._open.size, -1)

    def step(self, actions: np.ndarray, look: Callable[[], Any] | None = None,
             ) -> tuple[Ended, np.ndarray | None, np.ndarray]:
        """Let one interval pass.

        Args:
            actions: of the rows that are due, int [N, parts].
            look: called when the interval has passed, before the environments that have ended begin anew.

        Returns:
            the decisions that are complete now; observations at the end of the episodes that have ended, float32
            [K * A, F], environment after environment, or None; and the environments that they ended in, int64 [K].
        """
        shape, core = self._open.shape, self.core
        chosen = np.zeros(self._open.size, bool)
        chosen[self.due] = True
        chosen = chosen.reshape(shape)
        self._actions[chosen] = actions
        self._reward[chosen], self._discount[chosen], self._elapsed[chosen] = 0.0, 1.0, 0
        self._open |= chosen
        core.step(self.holder.decide(chosen, self._actions))
        if look is not None:
            look()
        self._reward += self._discount * (core.task.credit(core.reward) if self.credited else core.reward)
        self._discount *= self.gamma
        self._elapsed += 1
        self._length += 1
        truncated = (self._length >= core.config.max_steps) & ~core.terminated
        ended = np.flatnonzero(truncated | core.terminated)
        last = None
        over = np.zeros(shape, bool)
        if len(ended):
            over[ended] = True
            last = self.sight(np.flatnonzero(over))
            core.reset(None, ended)
            self.holder.forget(ended)
            self._length[ended] = 0
        due = self.holder.due()
        done = np.flatnonzero(due & self._open)
        result = Ended(done, self._reward.ravel()[done], self._discount.ravel()[done], self._elapsed.ravel()[done],
                       over.ravel()[done], np.repeat(truncated, shape[1])[done])
        self.due = np.flatnonzero(due)
        return result, last, ended
