"""Spaces made from declarations: actions from parts, observations from features; and what is outside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from .declare import Feature, Part


class Choices(spaces.MultiDiscrete):
    """A MultiDiscrete whose `sample` also takes a flat mask, such as `info["action_mask"]`."""

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        """As MultiDiscrete.sample; `mask` may be its tuple of arrays or these one after the other, int8 or bool."""
        if isinstance(mask, np.ndarray):
            parts = np.split(mask.astype(np.int8), np.cumsum(self.nvec)[:-1])
            mask = tuple(np.ascontiguousarray(part) for part in parts)
        return super().sample(mask, probability)


def sizes(parts: Sequence[Part]) -> list[int]:
    """Number of choices of each part."""
    return [part.size for part in parts]


def action_space(parts: Sequence[Part], agents: int = 1) -> Choices:
    """MultiDiscrete of the parts of `agents` agents, one after the other."""
    return Choices(sizes(parts) * agents)


def observation_space(features: Sequence[Feature], agents: int = 1) -> spaces.Box[np.float32]:
    """Box float32 [agents * len(features)]: the rows of `agents` agents, one after the other."""
    low, high = (np.array([getattr(f, side) for f in features], np.float32) for side in ("low", "high"))
    return spaces.Box(np.tile(low, agents), np.tile(high, agents), dtype=np.float32)


def check_actions(actions: Any, parts: Sequence[Part], agents: Sequence[str], num_envs: int) -> np.ndarray:
    """Actions as an array int [E, A, parts].

    Raises:
        ValueError: another shape, no integers, or a value outside the action space.
    """
    actions, limits = np.asarray(actions), np.array(sizes(parts))
    shape = (num_envs, len(agents), len(limits))
    if actions.shape != shape or not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(f"actions are {actions.dtype} {actions.shape}: expected integers of shape {shape}")
    bad = (actions < 0) | (actions >= limits)
    if bad.any():
        e, a, part = np.argwhere(bad)[0]
        raise ValueError(f"action {actions[e, a].tolist()} of {agents[a]} is outside MultiDiscrete({limits.tolist()}): "
                         f"part {part} ({parts[part].name}) must lie in [0, {limits[part] - 1}]")
    return actions
