"""Other action formats, and masks inside observations: wrappers for Gymnasium and for PettingZoo's parallel API.

Every Box or Dict action stands for one MultiDiscrete action of the task's parts; a task knows no other.

| format | parts without values (kinds)           | parts with values (levels)                                   |
|--------|----------------------------------------|--------------------------------------------------------------|
| Box    | one score in [-1, 1] per choice, the   | one number in [-1, 1]: the values in ascending order share   |
|        | highest wins (of two: one, >= 0)       | that interval equally                                        |
| Dict   | Discrete                               | Box: the value itself (ratio, bit, weight); nearest level    |

For a controller of all agents (the Central view) every entry has one row per agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from pettingzoo.utils.wrappers import BaseParallelWrapper

from ..base.declare import Part


class BoxFormat:
    """MultiDiscrete actions of `agents` agents from scores and numbers in [-1, 1], for agents that know only Box.

    Args:
        parts: of one agent's action.
        agents: how many one action is for, one after the other.
    """

    def __init__(self, parts: Sequence[Part], agents: int = 1) -> None:
        self.agents, self._parts = agents, parts
        # Number of entries of each part: a score per choice, or one number.
        self._width = [part.size if part.values is None and part.size > 2 else 1 for part in parts]
        self._ascending = [np.argsort(range(part.size) if part.values is None else part.values, kind="stable")
                           for part in parts]
        self.space = spaces.Box(-1.0, 1.0, (sum(self._width) * agents,), np.float32)

    def decode(self, action: np.ndarray) -> np.ndarray:
        """MultiDiscrete action int64 [agents * parts] from float [agents * entries].

        Raises:
            ValueError: another shape, or a number outside [-1, 1].
        """
        action = np.asarray(action, np.float64)
        if action.shape != self.space.shape or not (np.abs(action) <= 1.0).all():
            raise ValueError(f"the action is {np.array2string(action, threshold=8)}: expected {self.space.shape} "
                             "numbers in [-1, 1]")
        entries = np.split(action.reshape(self.agents, -1), np.cumsum(self._width)[:-1], axis=1)
        out = np.empty((self.agents, len(self._parts)), np.int64)
        for i, (entry, part) in enumerate(zip(entries, self._parts, strict=True)):
            if self._width[i] > 1:
                out[:, i] = entry.argmax(axis=1)
            else:
                nth = np.minimum(((entry[:, 0] + 1.0) / 2.0 * part.size).astype(np.int64), part.size - 1)
                out[:, i] = self._ascending[i][nth]
        return out.reshape(-1)


class DictFormat:
    """MultiDiscrete actions of `agents` agents from named parts, with ratios, bits and weights as they are.

    Args:
        parts: of one agent's action; a value stands for the nearest one, the first of two that are equally near.
        agents: how many one action is for; above 1 each entry has one row per agent.
    """

    def __init__(self, parts: Sequence[Part], agents: int = 1) -> None:
        self.rows = agents if agents > 1 else None
        self._levels = {part.name: np.array(part.values, np.float64) for part in parts if part.values is not None}
        self._place = {part.name: i for i, part in enumerate(parts)}
        entries: dict[str, spaces.Space] = {}
        for part in parts:
            if part.name in self._levels:
                low, high = self._levels[part.name].min(), self._levels[part.name].max()
                entries[part.name] = spaces.Box(low, high, () if self.rows is None else (agents,), np.float32)
            else:
                entries[part.name] = (spaces.Discrete(part.size) if self.rows is None
                                      else spaces.MultiDiscrete([part.size] * agents))
        self.space = spaces.Dict(entries)

    def decode(self, action: dict[str, Any]) -> np.ndarray:
        """MultiDiscrete action int64 [agents * parts] from a dictionary.

        Raises:
            ValueError: a part is missing, unknown or outside its space.
        """
        wrong = set(action) ^ set(self.space.spaces)
        if wrong:
            raise ValueError(f"{sorted(wrong)[0]!r} is missing or unknown: the parts are "
                             f"{', '.join(self.space.spaces)}")
        out = np.empty((self.rows or 1, len(action)), np.int64)
        for name, space in self.space.spaces.items():
            value = np.asarray(action[name])
            if isinstance(space, spaces.Box):
                value = value.astype(np.float32)
            if not space.contains(value if value.ndim or isinstance(space, spaces.Box) else value[()]):
                raise ValueError(f"{name} is {action[name]!r}: outside {space}")
            if name in self._levels:
                distance = np.abs(self._levels[name] - np.atleast_1d(value)[:, None].astype(np.float64))
                value = distance.argmin(axis=1)
            out[:, self._place[name]] = value
        return out.reshape(-1)


class _Actions(gym.ActionWrapper, gym.utils.RecordConstructorArgs):
    _format: type[BoxFormat] | type[DictFormat]

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        parts = env.get_wrapper_attr("core").task.parts
        self.format = self._format(parts, env.action_space.shape[0] // len(parts))  # type: ignore[index]
        self.action_space = self.format.space

    def action(self, action: Any) -> np.ndarray:
        """The MultiDiscrete action that this one stands for."""
        return self.format.decode(action)


class BoxActions(_Actions):
    """Box actions for the Central and Ego views; see the table above."""

    _format = BoxFormat


class DictActions(_Actions):
    """Dict actions for the Central and Ego views; see the table above."""

    _format = DictFormat


class _ParallelActions(BaseParallelWrapper):
    _format: type[BoxFormat] | type[DictFormat]

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.format = self._format(env.unwrapped.core.task.parts)
        self.action_spaces = dict.fromkeys(env.possible_agents, self.format.space)

    def action_space(self, agent: str) -> spaces.Space:
        """The same object for all agents."""
        return self.action_spaces[agent]

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Advance by one decision interval, with actions of this format."""
        return super().step({agent: self.format.decode(action) for agent, action in actions.items()})


class ParallelBoxActions(_ParallelActions):
    """Box actions for the PettingZoo parallel environment; see the table above."""

    _format = BoxFormat


class ParallelDictActions(_ParallelActions):
    """Dict actions for the PettingZoo parallel environment; see the table above."""

    _format = DictFormat


def _with_mask(row: spaces.Space, action: spaces.MultiDiscrete) -> spaces.Dict:
    mask = spaces.Box(0, 1, (int(action.nvec.sum()),), np.int8)
    return spaces.Dict({"observation": row, "action_mask": mask})


class MaskInObservation(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Observations {observation, action_mask} instead of a mask in info, for libraries that look for it there."""

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.observation_space = _with_mask(env.observation_space, env.action_space)  # type: ignore[arg-type]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode."""
        row, info = self.env.reset(seed=seed, options=options)
        return {"observation": row, "action_mask": info["action_mask"].copy()}, info

    def step(self, action: np.ndarray) -> tuple[dict, Any, bool, bool, dict]:
        """Advance by one decision interval."""
        row, reward, terminated, truncated, info = self.env.step(action)
        return {"observation": row, "action_mask": info["action_mask"].copy()}, reward, terminated, truncated, info


class ParallelMaskInObservation(BaseParallelWrapper):
    """The same for the PettingZoo parallel environment."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        first = env.possible_agents[0]
        space = _with_mask(env.observation_space(first), env.action_space(first))
        self.observation_spaces = dict.fromkeys(env.possible_agents, space)

    def observation_space(self, agent: str) -> spaces.Space:
        """The same object for all agents."""
        return self.observation_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode."""
        rows, infos = super().reset(seed=seed, options=options)
        return _masked(rows, infos), infos

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        """Advance by one decision interval."""
        rows, rewards, terminations, truncations, infos = super().step(actions)
        return _masked(rows, infos), rewards, terminations, truncations, infos


def _masked(rows: dict, infos: dict) -> dict:
    return {agent: {"observation": row, "action_mask": infos[agent]["action_mask"].copy()}
            for agent, row in rows.items()}
