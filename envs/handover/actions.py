"""Actions: one canonical decode from MultiDiscrete indices to Plans, and the masks.

| # | part      | index                                                                                  |
|---|-----------|----------------------------------------------------------------------------------------|
| 0 | target    | 0 go on (no new preparation); 1 own cell, for a session that was left behind;          |
|   |           | 2.. the strongest neighbours; last: cancel the preparation                             |
| 1 | medium    | 0 token, 1 kv, 2 split (balanced), 3 detour (stay)                                     |
| 2 | keep      | index into actions.keep                                                                |
| 3 | precision | index into actions.bits                                                                |
| 4 | share     | index into actions.weight                                                              |
| 5 | backfill  | index into actions.backfill                                                            |
| 6 | arrival   | 0 wait, 1 resume on what is there, 2 be forwarded until the preparation is finished    |
| 7 | repair    | 0 no, 1 rebuild a cache that is not whole from token ids, where it is                   |
| 8 | prefix    | of a split: balanced, or index into actions.prefix                                     |
| 9 | handover  | only with actions.trigger policy: 0 stay, 1 change to the target (a neighbour) now       |

A target starts a preparation now (proactive), a neighbour only with actions.prepare; without one, the plan is what
happens if the UE changes cell in this interval (reactive); with a handover the plan applies to it at once. Medium, keep
and precision of a migration are fixed when it starts; the shares of the transfer, and of the rest that follows it, can
change each step. The arrival says what happens at a handover whose preparation is not finished.
"""

from __future__ import annotations

import functools

import numpy as np

from ..base.declare import Part
from .config import ActionConfig
from .view import NetworkView
from .world.simulator import idle_plans
from .world.state import (
    ARRIVALS,
    BALANCED,
    CANCEL,
    CONTINUE,
    DETOUR,
    FOLLOWING,
    FORWARD,
    IDLE,
    INTERRUPTED,
    MEDIA,
    PREPARING,
    REPAIRING,
    SPLIT,
    STAY,
)

TARGET, MEDIUM, KEEP, PRECISION, SHARE, BACKFILL, ARRIVAL, REPAIR, PREFIX, HANDOVER = range(10)


def parts(config: ActionConfig) -> tuple[Part, ...]:
    """The parts of a UE's action."""
    neighbours = tuple(f"neighbour {k}" for k in range(1, config.candidates + 1))
    declared = [
        Part("target", ("go on", "own cell", *neighbours, "cancel"), neutral=0,
             meaning="the cell to prepare; own cell: of a session that was left behind"),
        Part("medium", MEDIA, meaning="what is sent or rebuilt; detour: the session stays, its tokens follow"),
        Part("keep", tuple(map(str, config.keep)), config.keep, neutral=0,
             meaning="share of the transferred tokens that is kept"),
        Part("precision", tuple(f"{bits} bit" for bits in config.bits), config.bits, neutral=0,
             meaning="of the transferred KV"),
        Part("share", tuple(map(str, config.weight)), config.weight, neutral=0,
             meaning="bandwidth weight of the transfer; 0 waits"),
        Part("backfill", tuple(map(str, config.backfill)), config.backfill, neutral=0,
             meaning="bandwidth weight of the rows that keep leaves out, which follow; 0: they do not, or wait"),
        Part("arrival", ARRIVALS, neutral=0,
             meaning="at a handover whose preparation is not finished: wait, resume on what is there, or be forwarded"),
        Part("repair", ("no", "rebuild in place"), neutral=0,
             meaning="of a cache that is not whole, from token ids, while it streams"),
        Part("prefix", ("balanced", *map(str, config.prefix)), neutral=0,
             meaning="share of the context that a split rebuilds from token ids; balanced: as long as the rest takes"),
    ]
    if config.trigger == "policy":
        declared.append(Part("handover", ("stay", "change to the target"), neutral=0,
                             meaning="change to a neighbour now; only with `actions.trigger: policy`"))
    return tuple(declared)


def sizes(config: ActionConfig) -> list[int]:
    """Number of choices of each part."""
    return list(_sizes(config))


@functools.cache
def _sizes(config: ActionConfig) -> tuple[int, ...]:
    return tuple(part.size for part in parts(config))  # the same at every step


def decode(actions: np.ndarray, view: NetworkView, config: ActionConfig) -> np.ndarray:
    """Plans, PLAN [E, U], from actions inside the action space, int [E, U, parts]."""
    plans = idle_plans(view.num_envs, view.num_ues)
    target, cancel = actions[..., TARGET], config.candidates + 2
    slot = np.clip(target - 1, 0, config.candidates)
    cell = np.take_along_axis(view.candidates, slot[..., None], axis=2)[..., 0]
    plans["target"] = np.where(target == 0, CONTINUE, np.where(target == cancel, CANCEL,
                                                               np.where(cell < 0, CONTINUE, cell)))
    if not config.prepare:
        plans["target"][(target > 1) & (target < cancel)] = CONTINUE
    plans["medium"] = actions[..., MEDIUM]
    plans["keep"] = np.array(config.keep)[actions[..., KEEP]]
    plans["bits"] = np.array(config.bits)[actions[..., PRECISION]]
    plans["weight"] = np.array(config.weight)[actions[..., SHARE]]
    plans["backfill"] = np.array(config.backfill)[actions[..., BACKFILL]]
    plans["arrival"] = actions[..., ARRIVAL]
    plans["repair"] = actions[..., REPAIR] * can_repair(view)
    share = np.array((np.nan, *config.prefix))[actions[..., PREFIX]]
    tokens = np.nan_to_num(share) * view.context_tokens
    plans["prefix"] = np.where(np.isnan(share) | (plans["medium"] != SPLIT), BALANCED, tokens)
    if config.trigger == "policy":
        neighbour = (target > 1) & (target < cancel)
        plans["handover"] = np.where((actions[..., HANDOVER] == 1) & neighbour, cell, STAY)
    return plans


def encode(plans: np.ndarray, view: NetworkView, config: ActionConfig) -> np.ndarray:
    """Actions, int64 [E, U, parts], nearest to plans, PLAN [E, U]; the reverse of `decode`, where there is one.

    Numbers become the nearest level. A target that is no candidate becomes "go on".
    """
    out = np.zeros((*plans.shape, len(parts(config))), np.int64)
    cell = np.where(plans["handover"] != STAY, plans["handover"], plans["target"])
    same = (view.candidates == cell[..., None]) & (view.candidates >= 0)
    out[..., TARGET] = np.where(cell == CANCEL, config.candidates + 2,
                                np.where(same.any(axis=-1), same.argmax(axis=-1) + 1, 0))
    out[..., MEDIUM], out[..., ARRIVAL], out[..., REPAIR] = plans["medium"], plans["arrival"], plans["repair"]
    for part, name, levels in ((KEEP, "keep", config.keep), (PRECISION, "bits", config.bits),
                               (SHARE, "weight", config.weight), (BACKFILL, "backfill", config.backfill)):
        out[..., part] = np.abs(plans[name][..., None] - np.array(levels, float)).argmin(axis=-1)
    share = plans["prefix"] / np.maximum(view.context_tokens, 1.0)
    nearest = np.abs(share[..., None] - np.array(config.prefix or (np.inf,))).argmin(axis=-1) + 1
    out[..., PREFIX] = np.where((plans["prefix"] < 0) | (plans["medium"] != SPLIT) | (not config.prefix), 0, nearest)
    if config.trigger == "policy":
        out[..., HANDOVER] = (plans["handover"] != STAY) & (out[..., TARGET] > 1)
    return out


def masks(view: NetworkView, config: ActionConfig) -> np.ndarray:
    """Which choices can have an effect, bool [E, U, sum of sizes]; the parts one after the other, at least one each.

    A session under migration keeps its medium, keep and precision. A cell that holds the session already is not a
    target, nor is one whose server has no memory for it. Two UEs may still aim at the same last room: the first one
    gets it.
    """
    size = sizes(config)
    mask = np.ones((view.num_envs, view.num_ues, sum(size)), bool)
    first = np.concatenate([[0], np.cumsum(size)])
    phase, server = view.phase, view.server_cell
    moving = phase == INTERRUPTED
    present = (view.candidates >= 0) & (view.candidates != server[..., None]) & ~moving[..., None]
    here = np.maximum(view.candidates, 0)
    free = view.free_memory_bytes[np.arange(view.num_envs)[:, None, None], here]
    reserved = (phase == PREPARING)[..., None] & (view.candidates == view.migration_target[..., None])
    mask[..., 1:1 + config.candidates + 1] = present & (reserved | (free >= view.session_bytes))
    mask[..., 2:1 + config.candidates + 1] &= config.prepare
    mask[..., size[0] - 1] = (phase == PREPARING) | (phase == FOLLOWING) | (phase == REPAIRING)
    for part in (MEDIUM, KEEP, PRECISION, PREFIX):
        mask[..., first[part] + 1:first[part + 1]] &= ~moving[..., None]
    forwarded = view.forwarding_hops > 0
    mask[..., first[MEDIUM] + DETOUR] &= forwarded
    mask[..., first[ARRIVAL] + FORWARD] = forwarded
    mask[..., first[REPAIR] + 1] = can_repair(view)
    if config.trigger == "policy":
        # A neighbour that cannot be prepared can still be handed over to.
        neighbours = view.candidates[..., 1:] >= 0
        mask[..., 2:1 + config.candidates + 1] = neighbours
        mask[..., -1] = neighbours.any(axis=-1)
        # A UE that changes cell chooses again how its session follows.
        mask[..., first[MEDIUM]:first[SHARE]] = True
        mask[..., first[MEDIUM] + DETOUR] = forwarded
        mask[..., first[PREFIX]:first[HANDOVER]] = True
    return mask


def can_repair(view: NetworkView) -> np.ndarray:
    """Whose cache is not whole, at rest, and could be rebuilt where it is, bool [E, U]."""
    room = np.take_along_axis(view.free_memory_bytes, view.server_cell, axis=1) >= view.session_bytes
    return (view.phase == IDLE) & ~view.healthy & ~view.opening & room
