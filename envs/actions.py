"""Actions: one canonical decode from MultiDiscrete indices to Plans, and the masks.

| # | part      | index                                                                                  |
|---|-----------|----------------------------------------------------------------------------------------|
| 0 | target    | 0 go on (no new preparation); 1 own cell, for a session that was left behind;          |
|   |           | 2.. the strongest neighbours; last: cancel the preparation                             |
| 1 | medium    | 0 token, 1 kv, 2 split (balanced), 3 detour (stay)                                     |
| 2 | keep      | index into actions.keep                                                                |
| 3 | precision | index into actions.bits                                                                |
| 4 | share     | index into actions.weight                                                              |

A target starts a preparation now (proactive); without one, the plan is what happens if the UE changes cell in this
interval (reactive). Medium, keep and precision of a migration are fixed when it starts; the share can change each step.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from .config import ActionConfig
from .sim.simulator import idle_plans
from .sim.state import CANCEL, CONTINUE, INTERRUPTED, MEDIA, PREPARING
from .view import NetworkView

TARGET, MEDIUM, KEEP, PRECISION, SHARE = range(5)


def action_space(config: ActionConfig) -> spaces.MultiDiscrete:
    """MultiDiscrete [target, medium, keep, precision, share] of one UE."""
    return spaces.MultiDiscrete(sizes(config))


def sizes(config: ActionConfig) -> list[int]:
    """Number of choices of each part: target has go on, own cell, the candidates, cancel."""
    return [config.candidates + 3, len(MEDIA), len(config.keep), len(config.bits), len(config.weight)]


def decode(actions: np.ndarray, view: NetworkView, config: ActionConfig) -> np.ndarray:
    """Plans, PLAN [E, U], from actions, int [E, U, 5].

    Raises:
        ValueError: shape or values outside the action space.
    """
    actions = np.asarray(actions)
    shape = (view.num_envs, view.num_ues, 5)
    if actions.shape != shape or not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(f"actions are {actions.dtype} {actions.shape}: expected integers of shape {shape}")
    limits = np.array(sizes(config))
    bad = (actions < 0) | (actions >= limits)
    if bad.any():
        e, u, part = np.argwhere(bad)[0]
        raise ValueError(f"action {actions[e, u].tolist()} of ue_{u} is outside MultiDiscrete({limits.tolist()}): "
                         f"part {part} must be below {limits[part]}")
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
    return mask
