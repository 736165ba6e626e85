"""Caches whose layers and KV heads hold different tokens.

The rows of such a cache are slots: slot j of layer l and head h holds the j-th token of that head's list. Keys are
stored rotated and attention does not ask where a row stands, so that slots of different tokens share a row; where a
head's list is shorter than the longest, its slots are empty, position -1, and masked.
"""

import numpy as np
import torch

from ..model.forward import LanguageModel
from ..sessions.session import Session
from ..settings import KVSettings
from .ranking import rank
from .selection import budget_tokens, select_slots


def heads_will_differ(settings: KVSettings, session: Session, prefix: int, snapshot: int, keep: float) -> bool:
    """Whether a plan leaves the heads of a session with different tokens: it prunes per head, or one did before."""
    positions = session.positions
    if positions.ndim == 3:
        return True
    inside = int(np.count_nonzero((positions >= prefix) & (positions < snapshot)))
    return settings.scope == "head" and prefix < snapshot and inside > budget_tokens(keep, snapshot - prefix)


def choose_slots(
    llm: LanguageModel, settings: KVSettings, session: Session, prefix: int, snapshot: int, keep: float
) -> tuple[torch.Tensor, np.ndarray]:
    """What each head sends of a session's cache.

    Returns:
        Slots [k, L, 2, Hkv, D], zero where a head sends fewer, and their lists int32 [k, L, Hkv].
    """
    kv, lists = session.kv, _lists(session)
    scores = np.zeros((*lists.shape[1:], len(kv)))
    inside = ((lists >= prefix) & (lists < snapshot)).sum(axis=0).max(initial=0)
    if prefix < snapshot and inside > budget_tokens(keep, snapshot - prefix):
        ranked = rank(llm, settings, session, snapshot)
        scores[..., : ranked.shape[-1]] = ranked
    slots = select_slots(scores, lists, prefix, snapshot, keep, settings.sinks, settings.recent)
    return _taken(kv, lists, slots)


def slots_left(session: Session, prefix: int, sent: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """What `choose_slots` left of a session's cache from `prefix` on, in the same form.

    Args:
        sent: lists int32 [k, L, Hkv] that it returned.
    """
    lists = _lists(session)
    columns = []
    for layer, head in np.ndindex(lists.shape[1:]):
        where = lists[:, layer, head]
        columns.append(np.flatnonzero((where >= prefix) & ~np.isin(where, sent[:, layer, head])))
    slots = np.full((max(map(len, columns)), len(columns)), -1, dtype=np.int64)
    for column, left in enumerate(columns):
        slots[: len(left), column] = left
    return _taken(session.kv, lists, slots.reshape(-1, *lists.shape[1:]))


def merged_slots(kv: torch.Tensor, lists: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Bring slots [n, L, 2, Hkv, D] of which no head holds a token twice into the order of their lists [n, L, Hkv].

    Returns:
        The slots and their lists; positions int32 [n] where all heads hold the same tokens after all.
    """
    slots = np.argsort(np.where(lists < 0, np.iinfo(np.int32).max, lists), axis=0, kind="stable")
    slots = slots[: (lists >= 0).sum(axis=0).max()]
    kv, lists = _taken(kv, lists, np.where(np.take_along_axis(lists, slots, axis=0) < 0, -1, slots))
    same = bool((lists == lists[:, :1, :1]).all())
    return kv, np.ascontiguousarray(lists[:, 0, 0]) if same else lists


def _lists(session: Session) -> np.ndarray:
    """The tokens of each head, int [n, L, Hkv], -1 for none."""
    kv, lists = session.kv, session.positions
    if lists.ndim == 1:
        return np.broadcast_to(lists[:, None, None], (len(kv), kv.shape[1], kv.shape[3]))
    return lists


def _taken(kv: torch.Tensor, lists: np.ndarray, slots: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Slots [k, L, Hkv] of a cache, -1 for none: their numbers [k, L, 2, Hkv, D], zero for none, and their tokens."""
    missing = slots < 0
    held = np.where(missing, 0, slots)
    index = torch.from_numpy(held).to(kv.device)[:, :, None, :, None].expand(len(slots), *kv.shape[1:])
    taken = kv.gather(0, index).masked_fill_(torch.from_numpy(missing).to(kv.device)[:, :, None, :, None], 0.0)
    return taken, np.where(missing, -1, np.take_along_axis(lists, held, axis=0)).astype(np.int32)


def with_prefix(prefix: int, positions: np.ndarray) -> np.ndarray:
    """Positions [n] or [n, L, Hkv] with tokens [0, prefix), which every head holds, in front."""
    front = np.arange(prefix, dtype=np.int32).reshape(-1, *(1,) * (positions.ndim - 1))
    return np.concatenate([np.broadcast_to(front, (prefix, *positions.shape[1:])), positions])
