"""Actions: one canonical decode from MultiDiscrete indices to Plans, and the masks.

| # | part      | index                                                                                  |
|---|-----------|----------------------------------------------------------------------------------------|
| 0 | target    | 0 go on (no new preparation); 1 own cell, for a session that was left behind;          |
|   |           | 2.. the strongest neighbours; last: cancel the preparation                             |
| 1 | medium    | 0 token, 1 kv, 2 split (balanced), 3 detour (stay)                                     |
| 2 | keep      | index into actions.keep                                                                |
| 3 | precision | index into actions.bits                                                                |
| 4 | share     | index into actions.weight                                                              |
| 5 | handover  | only with actions.trigger policy: 0 stay, 1 change to the target (a neighbour) now       |

A target starts a preparation now (proactive); without one, the plan is what happens if the UE changes cell in this
interval (reactive); with a handover the plan applies to it at once. Medium, keep and precision of a migration are
fixed when it starts; the share can change each step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from .config import ActionConfig
from .view import NetworkView
from .world.simulator import idle_plans
from .world.state import CANCEL, CONTINUE, INTERRUPTED, MEDIA, PREPARING, STAY

TARGET, MEDIUM, KEEP, PRECISION, SHARE, HANDOVER = range(6)


class Choices(spaces.MultiDiscrete):
    """A MultiDiscrete whose `sample` also takes a flat mask, such as `info["action_mask"]`."""

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        """As MultiDiscrete.sample; `mask` may be its tuple of arrays or these one after the other, int8 or bool."""
        if isinstance(mask, np.ndarray):
            parts = np.split(mask.astype(np.int8), np.cumsum(self.nvec)[:-1])
            mask = tuple(np.ascontiguousarray(part) for part in parts)
        return super().sample(mask, probability)


def action_space(config: ActionConfig, ues: int = 1) -> Choices:
    """MultiDiscrete [target, medium, keep, precision, share] of `ues` UEs one after the other.

    With actions.trigger policy there is a sixth part, handover.
    """
    return Choices(sizes(config) * ues)


def sizes(config: ActionConfig) -> list[int]:
    """Number of choices of each part: target has go on, own cell, the candidates, cancel."""
    size = [config.candidates + 3, len(MEDIA), len(config.keep), len(config.bits), len(config.weight)]
    return [*size, 2] if config.trigger == "policy" else size


def decode(actions: np.ndarray, view: NetworkView, config: ActionConfig) -> np.ndarray:
    """Plans, PLAN [E, U], from actions, int [E, U, parts].

    Raises:
        ValueError: shape or values outside the action space.
    """
    actions = np.asarray(actions)
    limits = np.array(sizes(config))
    shape = (view.num_envs, view.num_ues, len(limits))
    if actions.shape != shape or not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(f"actions are {actions.dtype} {actions.shape}: expected integers of shape {shape}")
    bad = (actions < 0) | (actions >= limits)
    if bad.any():
        e, u, part = np.argwhere(bad)[0]
        raise ValueError(f"action {actions[e, u].tolist()} of ue_{u} is outside MultiDiscrete({limits.tolist()}): "
                         f"part {part} must lie in [0, {limits[part] - 1}]")
    plans = idle_plans(view.num_envs, view.num_ues)
    target = actions[..., TARGET]
    slot = np.clip(target - 1, 0, config.candidates)
    cell = np.take_along_axis(view.candidates, slot[..., None], axis=2)[..., 0]
    plans["target"] = np.where(target == 0, CONTINUE, np.where(target == limits[0] - 1, CANCEL,
                                                               np.where(cell < 0, CONTINUE, cell)))
    plans["medium"] = actions[..., MEDIUM]
    plans["keep"] = np.array(config.keep)[actions[..., KEEP]]
    plans["bits"] = np.array(config.bits)[actions[..., PRECISION]]
    plans["weight"] = np.array(config.weight)[actions[..., SHARE]]
    if config.trigger == "policy":
        neighbour = (target > 1) & (target < limits[0] - 1)
        plans["handover"] = np.where((actions[..., HANDOVER] == 1) & neighbour, cell, STAY)
    return plans


def masks(view: NetworkView, config: ActionConfig) -> np.ndarray:
    """Which choices can have an effect, bool [E, U, sum of sizes]; the parts one after the other, at least one each.

    A session under migration keeps its medium, keep and precision; a cell that holds the session already is no target,
    nor is one whose server has no memory for it. Two UEs may still aim at the same last room: the first one gets it.
    """
    size = sizes(config)
    mask = np.ones((view.num_envs, view.num_ues, sum(size)), bool)
    phase, server = view.phase, view.server_cell
    moving = phase == INTERRUPTED
    present = (view.candidates >= 0) & (view.candidates != server[..., None]) & ~moving[..., None]
    here = np.maximum(view.candidates, 0)
    free = view.free_memory_bytes[np.arange(view.num_envs)[:, None, None], here]
    reserved = (phase == PREPARING)[..., None] & (view.candidates == view.migration_target[..., None])
    mask[..., 1:1 + config.candidates + 1] = present & (reserved | (free >= view.session_bytes))
    mask[..., size[0] - 1] = phase == PREPARING
    start = size[0]
    for part in (MEDIUM, KEEP, PRECISION):
        mask[..., start + 1:start + size[part]] &= ~moving[..., None]
        start += size[part]
    if config.trigger == "policy":
        # A neighbour that is no target of a preparation is still one of a handover.
        neighbours = view.candidates[..., 1:] >= 0
        mask[..., 2:1 + config.candidates + 1] = neighbours
        mask[..., -1] = neighbours.any(axis=-1)
        # Whoever changes cell chooses anew how its session follows.
        mask[..., size[0]:sum(size[:SHARE])] = True
    return mask
