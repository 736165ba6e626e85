"""The rest of a cache follows its first part: kept at the source, encoded later, merged at the target."""

from collections.abc import Callable

import numpy as np
import torch

from ...errors import ConfigError, PayloadError
from ..codecs import payload
from ..codecs.checksum import Buffer
from ..model.forward import LanguageModel
from ..sessions.ledger import Lease, Ledger
from ..sessions.parts import PENDING, FirstPart, digest_of
from ..sessions.reference import Reference
from ..sessions.rows import Rows
from ..sessions.session import Session, check_open
from . import per_head
from .transfer import Unsent, opened


class Rest:
    """Rows that a source keeps until they are sent or dropped; `KVBackend.encode_parts` and `migrate` make it.

    It outlives the session it is of, and costs memory only where that session's cache was not whole.

    Attributes:
        unsent: the rows, and the header of the payload that will bring them.
        reference: the script that the session read.
    """

    def __init__(self, unsent: Unsent, reference: Reference, ledger: Ledger) -> None:
        self.unsent, self.reference, self._ledger = unsent, reference, ledger
        kv = unsent.kv
        own = 0 if kv is None else kv.numel() * kv.element_size()
        ledger.require(own)
        self._lease: Lease | None = ledger.lease(reference)
        self._lease.own(own)

    @property
    def tokens(self) -> int:
        """Tokens that are kept; where heads differ, the most that one head keeps."""
        return self.unsent.header.count

    @property
    def released(self) -> bool:
        """Whether the rows are gone."""
        return self._lease is None

    def encode(self) -> bytearray:
        """The payload that completes the first one.

        Raises:
            ConfigError: the rest has been released.
            PayloadError: the cache held NaN or infinity.
        """
        if self.released:
            raise ConfigError("the rest was merged or dropped and its rows are gone; migrate the session again")
        header, where, kv = self.unsent.header, self.unsent.positions, self.unsent.kv
        if kv is not None:
            return payload.pack(header, where, kv)
        rows = torch.from_numpy(where.astype(np.int64)).to(self.reference.kv.device)
        return payload.pack(header, where, self.reference.kv, rows)

    def copy(self) -> "Rest":
        """Another handle of the same rows."""
        return Rest(self.unsent, self.reference, self._ledger)

    def release(self) -> None:
        """Give the memory back; doing so twice does nothing."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def pending(session: Session, what: str = "the session") -> FirstPart:
    """The first part of a session that waits for its rest.

    Raises:
        ConfigError: it does not wait for one; the message says why.
    """
    part = session.part
    if part is None:
        raise ConfigError(
            f"{what} has no first part that a rest could complete; move it with TransferPlan(rest=True) before"
        )
    if part.state != PENDING:
        raise ConfigError(f"the rest of {what} was {part.state} already; nothing follows until it moves again")
    return part


def refuse_pending(sessions: list[Session]) -> None:
    """Raise ConfigError where a session that is to move still waits for the rest of its cache."""
    for i, session in enumerate(sessions):
        if session.awaits_rest:
            raise ConfigError(
                f"session {i} of {len(sessions)} waits for the rest of its cache; backfill it or call drop_rest, then "
                "move it"
            )


def rest_of(sessions: list[Session]) -> list[Rest]:
    """What the sources of these sessions keep for them.

    Raises:
        ConfigError: a session is closed, given twice, waits for nothing, or has its rest on another machine.
    """
    check_open(sessions)
    rests = []
    for i, session in enumerate(sessions):
        what = f"session {i} of {len(sessions)}"
        pending(session, what)
        if not isinstance(session.rest, Rest):
            raise ConfigError(
                f"the rest of {what} is where its payload was made; encode it there, then complete the session with it"
            )
        rests.append(session.rest)
    return rests


def merged(
    llm: LanguageModel, tokenizer: str, blob: Buffer, session: Session, reserve: Callable[[int], None]
) -> tuple[Rows | None, int]:
    """Decode the rest of a session's cache and put it where it belongs; the session is not changed.

    Args:
        reserve: called with the number of tokens of the merged cache before it is allocated; may refuse.

    Returns:
        The merged cache, None where it is the whole one; and the tokens that the payload held.

    Raises:
        ConfigError: the session waits for no rest.
        PayloadError: damaged, of another model, tokenizer, script or session, or it does not complete the first part.
    """
    part = pending(session)
    decoder, header = opened(llm, tokenizer, blob, session.reference)
    _check_fits(header, decoder.positions, part)
    reserve(session.stored + header.count)
    kv = torch.cat([session.kv, payload.feed_layers(decoder, blob)])
    positions = np.concatenate([session.positions, decoder.positions])
    if positions.ndim == 1:
        order = np.argsort(positions, kind="stable")
        kv, positions = kv.index_select(0, torch.from_numpy(order).to(kv.device)), positions[order]
    else:
        kv, positions = per_head.merged_slots(kv, positions)
    # What was read on the first part alone is no part of a whole cache, even where rounding hides the difference.
    if session.length == part.n_ctx == len(kv) and torch.equal(kv, session.reference.kv[: part.n_ctx]):
        return None, header.count
    old = session.rows
    assert old is not None
    return Rows(kv, positions, old.own_start, old.queries), header.count


def _check_fits(header: payload.Header, positions: np.ndarray, part: FirstPart) -> None:
    """Raise PayloadError unless a payload brings exactly what the first part left."""
    again = "send the rest that belongs to it"
    if not header.completes:
        raise PayloadError("the payload is a cache of its own and completes no other; restore it, or " + again)
    if (header.n_ctx, header.prefix) != (part.n_ctx, part.prefix):
        raise PayloadError(
            f"the payload completes a session of {header.n_ctx} tokens with a prefix of {header.prefix}, this one had "
            f"{part.n_ctx} and {part.prefix} when it moved; {again}"
        )
    if header.completes != part.name:
        raise PayloadError(f"the payload completes payload {header.completes}, not {part.name}; {again}")
    if positions.ndim != part.positions.ndim:
        raise PayloadError(f"the payload's scope is {header.scope!r}, that of the first part is not; {again}")
    if _overlap(positions, part.positions):
        raise PayloadError(f"the payload brings tokens that the first part has brought; {again}")
    if digest_of(positions) != part.rest:
        raise PayloadError(f"the {header.count} tokens of the payload are not those that are missing; {again}")


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a list of positions [k], or the same column of [k, L, Hkv], holds a token in both."""
    one, other = (where.reshape(len(where), -1) for where in (one, other))
    return any(bool((np.isin(one[:, i], other[:, i]) & (one[:, i] >= 0)).any()) for i in range(one.shape[1]))
