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
    kv = session.kv
    lists = session.positions
    if lists.ndim == 1:
        lists = np.broadcast_to(lists[:, None, None], (len(kv), kv.shape[1], kv.shape[3]))
    scores = np.zeros((*lists.shape[1:], len(kv)))
    inside = ((lists >= prefix) & (lists < snapshot)).sum(axis=0).max(initial=0)
    if prefix < snapshot and inside > budget_tokens(keep, snapshot - prefix):
        ranked = rank(llm, settings, session, snapshot)
        scores[..., : ranked.shape[-1]] = ranked
    slots = select_slots(scores, lists, prefix, snapshot, keep, settings.sinks, settings.recent)
    missing = slots < 0
    held = np.where(missing, 0, slots)
    index = torch.from_numpy(held).to(kv.device)[:, :, None, :, None].expand(len(slots), *kv.shape[1:])
    sent = kv.gather(0, index).masked_fill_(torch.from_numpy(missing).to(kv.device)[:, :, None, :, None], 0.0)
    return sent, np.where(missing, -1, np.take_along_axis(lists, held, axis=0)).astype(np.int32)


def with_prefix(prefix: int, positions: np.ndarray) -> np.ndarray:
    """Positions [n] or [n, L, Hkv] with tokens [0, prefix), which every head holds, in front."""
    front = np.arange(prefix, dtype=np.int32).reshape(-1, *(1,) * (positions.ndim - 1))
    return np.concatenate([np.broadcast_to(front, (prefix, *positions.shape[1:])), positions])
