"""The two halves of a handover: rank, select and encode at the source; decode and put together at the target."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...errors import ConfigError, PayloadError
from ..codecs import payload
from ..codecs.checksum import Buffer
from ..codecs.table import codec
from ..model.forward import LanguageModel
from ..sessions.parts import FirstPart, digest_of
from ..sessions.reference import Reference
from ..sessions.session import Session
from ..settings import KVSettings, TransferPlan
from . import per_head
from .ranking import rank
from .selection import budget_tokens, select_rows


@dataclass(frozen=True)
class Arrival:
    """A cache as the target has it, the prefix that it rebuilt in front."""

    kv: torch.Tensor  # [kept, L, 2, Hkv, D] at the cache dtype
    positions: np.ndarray  # int32 [kept], strictly increasing; or [kept, L, Hkv], see `Session.positions`
    n_ctx: int  # position of the next token
    sent: int  # tokens that were in the payload
    whole: bool  # bitwise the whole cache
    part: FirstPart | None = None  # where a rest may follow


@dataclass(frozen=True)
class Unsent:
    """The rows of a cache that a payload left at its source, and the header under which they can follow."""

    header: payload.Header
    positions: np.ndarray  # int32 [count], or [count, L, Hkv]
    kv: torch.Tensor | None  # [count, L, 2, Hkv, D]; None where they are `positions` of the whole cache


@dataclass(frozen=True)
class Migration:
    """What one handover of a session did."""

    payload_bytes: int  # length of the encoded payload; token ids of the prefix are not in it
    sent_tokens: int  # tokens whose keys and values are in it
    kept_tokens: int  # tokens in the restored cache, the rebuilt prefix included
    total_tokens: int  # tokens of the session
    whole: bool  # whether the restored cache is bitwise the whole one
    scar_tokens: int = 0  # of a backfill: tokens that were read on the first part alone, and keep what it made of them


def send(
    llm: LanguageModel, tokenizer: str, settings: KVSettings, session: Session, plan: TransferPlan
) -> tuple[bytearray, Unsent | None]:
    """Encode what a plan sends of a session's cache as it is now; the session is not changed.

    Args:
        tokenizer: fingerprint that travels in the header.

    Returns:
        The payload; and with `plan.rest` the rows from the prefix on that are not in it, None where there are none.
    """
    length, snapshot = session.length, snapshot_of(session, plan)
    prefix = min(plan.prefix_tokens, length)
    kv, positions, rows = session.kv, session.positions, None
    left: tuple[torch.Tensor | None, np.ndarray] = None, positions[:0]
    if per_head.heads_will_differ(settings, session, prefix, snapshot, plan.keep):
        kv, positions = per_head.choose_slots(llm, settings, session, prefix, snapshot, plan.keep)
        if plan.rest:
            left = per_head.slots_left(session, prefix, positions)
    else:
        chosen = choose(llm, settings, session, prefix, snapshot, plan.keep)
        if len(chosen) != len(kv):
            behind = np.setdiff1d(np.flatnonzero(positions >= prefix), chosen)
            if plan.rest and len(behind):
                index = torch.from_numpy(behind).to(kv.device)
                left = None if session.whole else kv.index_select(0, index), positions[behind]
            rows, positions = torch.from_numpy(chosen).to(kv.device), positions[chosen]
    header = payload.Header(
        model=llm.fingerprint,
        tokenizer=tokenizer,
        tokens=_digest(session.reference, length),
        n_ctx=length,
        prefix=prefix,
        count=len(positions),
        bits=plan.bits,
        dtype=_wire_dtype(llm, plan),
        layers=llm.geometry.layers,
        kv_heads=llm.geometry.kv_heads,
        head_dim=llm.geometry.head_dim,
        keep=float(plan.keep),
        snapshot=snapshot,
        scope="sequence" if positions.ndim == 1 else "head",
        rest=digest_of(left[1]) if len(left[1]) else "",
    )
    blob = payload.pack(header, positions, kv, rows)
    if not header.rest:
        return blob, None
    follows = replace(header, count=len(left[1]), rest="", completes=payload.name_of(blob))
    return blob, Unsent(follows, left[1], left[0])


def receive(
    llm: LanguageModel, tokenizer: str, blob: Buffer, reference: Reference, reserve: Callable[[int], None]
) -> Arrival:
    """Decode a payload and put the prefix, which the target prefills from token ids, in front of it.

    Args:
        reserve: called with the number of tokens of the restored cache before it is allocated; may refuse.

    Raises:
        PayloadError: the payload is damaged, of another model, tokenizer or script, or completes another.
    """
    decoder, header = opened(llm, tokenizer, blob, reference)
    if header.completes:
        raise PayloadError(
            f"the payload completes payload {header.completes} and is no cache on its own; restore that one, then "
            "complete its session with this"
        )
    n_ctx = header.n_ctx
    if header.prefix + header.count < n_ctx or not codec(header.bits).lossless:  # else it may be whole and need none
        reserve(header.prefix + header.count)
    kv, positions = payload.feed_layers(decoder, blob), decoder.positions
    part = None
    if header.rest:
        part = FirstPart(payload.name_of(blob), n_ctx, header.prefix, positions, header.rest)
    if header.prefix:
        kv = torch.cat([reference.kv[: header.prefix], kv])
        positions = per_head.with_prefix(header.prefix, positions)
    # Positions are distinct, so as many rows as tokens means that none is missing.
    whole = len(kv) == n_ctx and torch.equal(kv, reference.kv[:n_ctx])
    return Arrival(kv, positions, n_ctx, header.count, whole, part)


def opened(
    llm: LanguageModel, tokenizer: str, blob: Buffer, reference: Reference
) -> tuple[payload.Decoder, payload.Header]:
    """A decoder that has read the header of a payload in one piece, and found it to be of this model and script.

    Raises:
        PayloadError: damaged, or of another model, tokenizer or script.
    """
    shape = llm.geometry
    expected = payload.Expected(llm.fingerprint, tokenizer, shape.layers, shape.kv_heads, shape.head_dim)
    decoder = payload.Decoder(expected, llm.cache_dtype, reference.kv.device)
    header = payload.feed_header(decoder, blob)
    n_ctx = header.n_ctx
    if n_ctx > len(reference) or header.tokens != _digest(reference, n_ctx):
        raise PayloadError(
            f"the payload's {n_ctx} tokens are not the first of this script of {len(reference)}; "
            "restore it with the script it was made from"
        )
    return decoder, header


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
        ranked = rank(llm, settings, session, snapshot)
        scores[: len(ranked)] = ranked
    return select_rows(scores, positions, prefix, snapshot, keep, settings.sinks, settings.recent)


def _wire_dtype(llm: LanguageModel, plan: TransferPlan) -> str:
    """What the header names: the type of the numbers, or of the scales."""
    dtypes = codec(plan.bits).dtypes
    chosen = str(llm.cache_dtype).removeprefix("torch.") if plan.half == "served" else plan.half
    return chosen if chosen in dtypes else dtypes[0]


def _digest(reference: Reference, length: int) -> str:
    return hashlib.blake2b(reference.tokens[:length].tobytes(), digest_size=16).hexdigest()
