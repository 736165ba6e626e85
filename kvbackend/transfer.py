"""The two halves of a handover: rank, select and encode at the source; decode and put together at the target."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import ConfigError, PayloadError
from . import codec
from .forward import LanguageModel
from .reference import Reference
from .saliency import SCORERS, View
from .selection import budget_tokens, select_rows
from .sessions import Session
from .settings import KVSettings, TransferPlan


@dataclass(frozen=True)
class Arrival:
    """A cache as the target has it, the prefix that it rebuilt in front."""

    kv: torch.Tensor  # [kept, L, 2, Hkv, D] at the cache dtype
    positions: np.ndarray  # int32 [kept], strictly increasing
    n_ctx: int  # position of the next token
    sent: int  # tokens that were in the payload
    whole: bool  # bitwise the whole cache


def send(llm: LanguageModel, tokenizer: str, settings: KVSettings, session: Session, plan: TransferPlan) -> bytes:
    """Encode what a plan sends of a session's cache as it is now; the session is not changed.

    Args:
        tokenizer: fingerprint that travels in the header.
    """
    length, snapshot = session.length, snapshot_of(session, plan)
    prefix = min(plan.prefix_tokens, length)
    kv, positions = session.kv, session.positions
    chosen = choose(llm, settings, session, prefix, snapshot, plan.keep)
    if len(chosen) != len(kv):
        kv, positions = kv[torch.from_numpy(chosen).to(kv.device)], positions[chosen]
    half = torch.bfloat16 if llm.cache_dtype == torch.bfloat16 else torch.float16
    header = codec.Header(
        model=llm.fingerprint,
        tokenizer=tokenizer,
        tokens=_digest(session.reference, length),
        n_ctx=length,
        prefix=prefix,
        count=len(chosen),
        bits=plan.bits,
        dtype=str(torch.float32 if plan.bits == 32 else half).removeprefix("torch."),
        layers=llm.geometry.layers,
        kv_heads=llm.geometry.kv_heads,
        head_dim=llm.geometry.head_dim,
        keep=float(plan.keep),
        snapshot=snapshot,
    )
    return codec.pack(header, positions, kv)


def receive(llm: LanguageModel, tokenizer: str, blob: bytes, reference: Reference) -> Arrival:
    """Decode a payload and put the prefix, which the target prefills from token ids, in front of it.

    Raises:
        PayloadError: the payload is damaged, or of another model, tokenizer or script.
    """
    shape = llm.geometry
    expected = codec.Expected(llm.fingerprint, tokenizer, shape.layers, shape.kv_heads, shape.head_dim)
    header, positions, kv = codec.unpack(blob, expected)
    n_ctx = header.n_ctx
    if n_ctx > len(reference) or header.tokens != _digest(reference, n_ctx):
        raise PayloadError(
            f"the payload's {n_ctx} tokens are not the first of this script of {len(reference)}; "
            "restore it with the script it was made from"
        )
    kv = kv.to(device=reference.kv.device, dtype=llm.cache_dtype)
    if header.prefix:
        kv = torch.cat([reference.kv[: header.prefix], kv])
        positions = np.concatenate([np.arange(header.prefix, dtype=np.int32), positions])
    # Positions are distinct, so as many rows as tokens means that none is missing.
    whole = len(kv) == n_ctx and torch.equal(kv, reference.kv[:n_ctx])
    return Arrival(kv, positions, n_ctx, header.count, whole)


def snapshot_of(session: Session, plan: TransferPlan) -> int:
    """Position up to which a plan prunes [tokens].

    Raises:
        ConfigError: it lies beyond the session.
    """
    if plan.snapshot_tokens is None:
        return session.length
    if plan.snapshot_tokens > session.length:
        raise ConfigError(
            f"snapshot_tokens = {plan.snapshot_tokens} exceeds the session's {session.length} tokens; lower it"
        )
    return plan.snapshot_tokens


def choose(
    llm: LanguageModel, settings: KVSettings, session: Session, prefix: int, snapshot: int, keep: float
) -> np.ndarray:
    """Rows of the session's cache that are sent, int64 [k], ascending."""
    positions = session.positions
    scores = np.zeros(len(positions))
    inside = np.count_nonzero((positions >= prefix) & (positions < snapshot))
    # Ranking is the costly part, and needless when the budget covers what there is.
    if prefix < snapshot and inside > budget_tokens(keep, snapshot - prefix):
        view = View(session, snapshot, llm.scaling, settings)
        scores[: len(view.positions)] = SCORERS[settings.scorer](view)
    return select_rows(scores, positions, prefix, snapshot, keep, settings.sinks, settings.recent)


def _digest(reference: Reference, length: int) -> str:
    return hashlib.blake2b(reference.tokens[:length].tobytes(), digest_size=16).hexdigest()
