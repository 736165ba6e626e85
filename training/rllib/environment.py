"""The environment as RLlib wants one: a MultiAgentEnv whose agents are the agents of all environments of a runner.

A runner's worlds are batched cores that step together, and one RLlib episode is one episode of each: it ends when the
last of them ends. Nobody is due in a world that has ended before.

An agent appears in the observations only when it decides: with `decisions` at its decision points
(envs/base/decisions.py), otherwise in every interval. RLlib discounts by steps of an agent, of whatever length. The
reward of a decision is the discounted sum over its intervals, and `infos` says how many they were, from which
training/rllib/advantages.py makes the discount of what comes after: so no return is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from ...envs.base.core import Core
from ...envs.base.decisions import DecisionView, Holder
from ...envs.base.meter import Meter
from ...envs.base.spaces import action_space, observation_space
from ...envs.base.task import Task

OBSERVATIONS, MASK, ELAPSED = "observations", "action_mask", "elapsed"


class EveryInterval(Holder):
    """Everybody decides in every interval."""

    def due(self) -> np.ndarray:
        """All, bool [E, A]."""
        return np.ones((self.task.num_envs, self.task.num_agents), bool)


class RoamEnv(MultiAgentEnv):
    """Agents of several batched cores; agent `w.e.name` is `name` in environment e of core w.

    Args:
        cores: of tasks with the same spaces.
        seeds: of the first environment of each core; its environment i gets seed + i.
        gamma: discount per interval.
        decisions: agents decide at their decision points only.
        scale: rewards are multiplied by this.
        objectives: of `metrics`.
        masked: choices that can have no effect are closed; False: the masks leave all open.
        credited: at decision points rewards are dealt out for learning (Task.credit), as the other engine does.

    Attributes:
        metrics: of the episodes that have ended since they were last taken.
        terms: reward terms of those intervals, mean over the agents: the sum, and how many intervals.
    """

    def __init__(self, cores: Sequence[Core], seeds: Sequence[int], gamma: float, decisions: bool, scale: float = 1.0,
                 objectives: dict[str, float] | None = None, masked: bool = True, credited: bool = True) -> None:
        self._worlds = [_World(w, core, seed, gamma, decisions, objectives or {}, masked,
                               decisions and credited)
                        for w, (core, seed) in enumerate(zip(cores, seeds, strict=True))]
        task: Task = cores[0].task
        self.task, self.scale = task, np.float32(scale)
        self.possible_agents = [agent for world in self._worlds for agent in world.names]
        self.agents = list(self.possible_agents)
        observation, action = agent_spaces(task)
        self.observation_spaces = dict.fromkeys(self.possible_agents, observation)
        self.action_spaces = dict.fromkeys(self.possible_agents, action)
        self.metrics: list[dict[str, float]] = []
        self.terms, self.intervals = np.zeros(len(task.terms)), 0
        super().__init__()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode everywhere; RLlib's seed is not used, since every environment has one of its own."""
        observations: dict[str, Any] = {}
        for world in self._worlds:
            world.begin()
            observations |= world.seen(world.view.due)
        return observations, {}

    def step(self, action_dict: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        """Let one interval pass in every world that has not ended."""
        observations: dict[str, Any] = {}
        rewards: dict[str, float] = {}
        infos: dict[str, dict[str, int]] = {}
        done: dict[str, bool] = {}  # who ends here, and whether the environment went on without the horizon
        for world in self._worlds:
            if not world.over.all():
                world.step(action_dict, observations, rewards, infos, done)
                self.metrics += world.ended
                self.terms += world.terms
                self.intervals += 1
        last = all(world.over.all() for world in self._worlds)
        # RLlib takes an episode whose agents are all truncated by name for a terminated one, and then counts nothing of
        # what would have come: so the last ones are truncated by "__all__" alone.
        cut = any(done.values())
        terminated = {agent: True for agent, truncated in done.items() if not truncated}
        truncated = {} if last else {agent: True for agent, cut_off in done.items() if cut_off}
        terminated["__all__"], truncated["__all__"] = last and not cut, last and cut
        for agent in rewards:
            rewards[agent] *= float(self.scale)
        return observations, rewards, terminated, truncated, infos

    def take(self) -> tuple[list[dict[str, float]], np.ndarray]:
        """Metrics of the episodes that have ended, and mean reward terms, since this was called last."""
        found = self.metrics, self.terms / max(self.intervals, 1)
        self.metrics, self.terms, self.intervals = [], np.zeros(len(self.terms)), 0
        return found


class _World:
    """One batched core: who is due in it, what they see, and which of its environments have ended."""

    def __init__(self, number: int, core: Core, seed: int, gamma: float, decisions: bool,
                 objectives: dict[str, float], masked: bool, credited: bool) -> None:
        self.core, self.view = core, DecisionView(core, gamma, credited)
        self._objectives, self._masked = objectives, masked
        if not decisions:
            self.view.holder = EveryInterval(core.task)
        self.names = [f"{number}.{e}.{agent}" for e in range(core.num_envs) for agent in core.task.agents]
        self._seeds: list[int] | None = [seed + e for e in range(core.num_envs)]
        self.over = np.zeros(core.num_envs, bool)
        self.meter: Meter = core.task.meter(**objectives)
        self.ended: list[dict[str, float]] = []
        self.terms = np.zeros(len(core.task.terms))  # of the last interval, mean over the agents

    def begin(self) -> None:
        """New episodes; those that DecisionView has begun by itself are gone on with, if all stand at their start."""
        if self._seeds is not None or not self.over.all() or not self._fresh:
            self.view.reset(self._seeds)
            self._seeds = None
            self.meter = self.core.task.meter(**self._objectives)
        self.over[:], self._fresh = False, False

    def seen(self, rows: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """What these rows see, and may do."""
        masks = self.view.masks()[rows].astype(np.float32) if self._masked else np.ones((len(rows), self._choices),
                                                                                         np.float32)
        return {self.names[row]: {OBSERVATIONS: observation, MASK: mask}
                for row, observation, mask in zip(rows, self.view.observe(rows), masks, strict=True)}

    def step(self, actions: dict[str, np.ndarray], observations: dict, rewards: dict, infos: dict,
             done: dict[str, bool]) -> None:
        """Let one interval pass, and add what agents get to the dictionaries."""
        view, agents = self.view, self.core.num_agents
        nothing = np.zeros(len(self.core.task.parts), np.int64)
        # Agents of an environment that has ended before the others do anything: nobody learns from it.
        alive = ~np.repeat(self.over, agents)
        chosen = [np.asarray(actions[self.names[row]]) if alive[row] else nothing for row in view.due]
        ended, last, envs = view.step(np.array(chosen, np.int64).reshape(-1, len(nothing)), self._count)
        self.ended = [self.meter.result(int(e)) for e in envs if not self.over[e]]
        if len(envs):
            self.meter.forget(envs)
        mine = alive[ended.rows]
        observations |= self.seen(ended.rows[mine & ~ended.over])
        for i in np.flatnonzero(mine):
            row, name = int(ended.rows[i]), self.names[ended.rows[i]]
            rewards[name], infos[name] = float(ended.reward[i]), {ELAPSED: int(ended.elapsed[i])}
            if ended.over[i]:
                assert last is not None
                place = np.searchsorted(envs, row // agents) * agents + row % agents
                done[name] = bool(ended.truncated[i])
                observations[name] = {OBSERVATIONS: last[place], MASK: np.ones(self._choices, np.float32)}
        self.over[envs] = True
        self._fresh = len(envs) == len(self.over)

    def _count(self) -> None:
        """Add the interval that has passed to what is reported, before episodes that end with it begin anew."""
        self.meter.add(self.core)
        self.terms = self.core.terms.mean(axis=(0, 1))

    _fresh = False

    @property
    def _choices(self) -> int:
        return sum(part.size for part in self.core.task.parts)


def agent_spaces(task: Any) -> tuple[spaces.Dict, spaces.MultiDiscrete]:
    """What one agent sees, with the mask of its choices, and what it may do.

    Args:
        task: a task, or anything else with its `parts` and `features`.
    """
    action = action_space(task.parts)
    mask = spaces.Box(0.0, 1.0, (int(action.nvec.sum()),), np.float32)
    return spaces.Dict({OBSERVATIONS: observation_space(task.features), MASK: mask}), action
