"""Handovers of sessions: at once, in two phases, in two parts; and repair in place."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import ConfigError, KvroamError
from .codecs.checksum import Buffer
from .codecs.table import codec
from .handover.backfill import Rest, merged, pending, refuse_pending, rest_of
from .handover.budget import encode_within_bytes, within_tokens
from .handover.ticket import Ticket, keeps_all
from .handover.transfer import Arrival, Migration, Unsent, receive, send, snapshot_of
from .model.forward import LanguageModel
from .sessions.ledger import Ledger, allocating
from .sessions.parts import DROPPED, MERGED
from .sessions.reference import Reference
from .sessions.rows import Rows
from .sessions.session import Session, check_open
from .settings import KVSettings, TransferPlan


class Handovers:
    """The part of `KVBackend` that moves sessions."""

    llm: LanguageModel
    settings: KVSettings
    tokenizer_fingerprint: str
    _ledger: Ledger

    def bytes_per_token(self, bits: int) -> float:
        """Payload bytes per token at the width of a codec, scales and positions included, header not."""
        TransferPlan(bits=bits)
        shape = self.llm.geometry
        lists = shape.layers * shape.kv_heads if self.settings.scope == "head" else 1
        return codec(bits).wire_bits_per_token(shape.layers, shape.kv_heads, shape.head_dim) / 8 + 4 * lists

    @torch.inference_mode()
    def migrate(self, sessions: Sequence[Session], plans: Sequence[TransferPlan]) -> list[Migration]:
        """Move each session by its plan: score, select, encode to bytes, decode, restore; sessions are changed.

        A session is whole afterwards if and only if the restored cache equals the whole one bit by bit; in particular
        a prefix that covers the session heals it. With `plan.rest` the source keeps what was not sent, for `backfill`.

        Raises:
            ConfigError: a snapshot beyond the session, a closed or repeated session, one that waits for a rest, or no
                memory left.
        """
        check_open(list(sessions))
        refuse_pending(list(sessions))
        if len(plans) != len(sessions):
            raise ConfigError(f"{len(plans)} plans for {len(sessions)} sessions; give one each")
        payloads: list[tuple[bytearray, Unsent | None] | None] = []
        for session, plan in zip(sessions, plans, strict=True):  # refuse before the first session has changed
            within_tokens(session, plan, snapshot_of(session, plan))
            payloads.append(None if plan.budget_bytes is None else self._send(session, plan))
        migrations = [self._migrate(*move) for move in zip(sessions, plans, payloads, strict=True)]
        self._refresh(sessions)
        return migrations

    def _migrate(
        self, session: Session, plan: TransferPlan, sent: tuple[bytearray, Unsent | None] | None
    ) -> Migration:
        old = session.rows
        blob, unsent = self._send(session, plan) if sent is None else sent
        arrival = self._receive(blob, session.reference, old)
        rows = rest = None
        if not arrival.whole:
            start = session.length if old is None else old.own_start
            own = session.reference.queries[:0] if old is None else old.queries
            rows = Rows(arrival.kv, arrival.positions, start, own)
            left = 0 if unsent is None or unsent.kv is None else unsent.kv.numel() * unsent.kv.element_size()
            self._ledger.require(left + rows.nbytes - (0 if old is None else old.nbytes))
        lossless = old is not None and keeps_all(session, arrival.kv, arrival.positions)
        session.degrade(rows, None if lossless else session.length)
        if unsent is not None:
            rest = Rest(unsent, session.reference, self._ledger)
        session.expect(arrival.part, rest)
        return Migration(len(blob), arrival.sent, len(arrival.kv), arrival.n_ctx, arrival.whole)

    def _receive(self, payload: Buffer, reference: Reference, old: Rows | None = None) -> Arrival:
        """`transfer.receive` within the memory bound; the rows `old` make room."""

        def reserve(tokens: int) -> None:
            size = tokens * math.prod(self.llm.geometry.row) * self.llm.cache_dtype.itemsize
            self._ledger.require(size - (0 if old is None else old.nbytes))

        with allocating(f"a payload of {len(payload)} bytes"):
            return receive(self.llm, self.tokenizer_fingerprint, payload, reference, reserve)

    @torch.inference_mode()
    def encode(self, session: Session, plan: TransferPlan) -> bytearray:
        """The source's half of a handover: rank, select and encode; the session is not changed.

        Raises:
            PayloadError: the cache holds NaN or infinity.
            ConfigError: a snapshot beyond the session, a closed session, one that waits for a rest, or a budget that
                holds no token.
        """
        if plan.rest:
            raise ConfigError("encode makes one payload and plan.rest asks for two; use encode_parts, or rest = False")
        return self._checked_send(session, plan)[0]

    @torch.inference_mode()
    def encode_parts(self, session: Session, plan: TransferPlan) -> tuple[bytearray, Rest | None]:
        """As `encode`, and a handle of what the payload leaves behind, which can follow by `Rest.encode`.

        The handle outlives the session; release it when the rest is not wanted any more.

        Returns:
            The payload of the first part, and the rest; None where nothing is left.
        """
        blob, unsent = self._checked_send(session, replace(plan, rest=True))
        return blob, None if unsent is None else Rest(unsent, session.reference, self._ledger)

    def _checked_send(self, session: Session, plan: TransferPlan) -> tuple[bytearray, Unsent | None]:
        check_open([session])
        refuse_pending([session])
        return self._send(session, plan)

    def _send(self, session: Session, plan: TransferPlan) -> tuple[bytearray, Unsent | None]:
        snapshot = snapshot_of(session, plan)
        unsent: Unsent | None = None

        def fixed(chosen: TransferPlan) -> bytearray:
            nonlocal unsent
            chosen = within_tokens(session, chosen, snapshot)
            blob, unsent = send(self.llm, self.tokenizer_fingerprint, self.settings, session, chosen)
            return blob

        if plan.budget_bytes is None:
            return fixed(plan), unsent
        blob = encode_within_bytes(session, plan, snapshot, self.bytes_per_token(plan.bits), fixed)
        return blob, unsent  # of the last payload that was tried, which is the one that fits

    @torch.inference_mode()
    def restore(self, payload: Buffer, reference: Reference) -> Session:
        """The target's half of a handover: a new session from a payload; the prefix is rebuilt from the script.

        Raises:
            PayloadError: the payload is damaged, or of another model, tokenizer or script.
            ConfigError: no memory left.
        """
        lease = self._ledger.lease(reference)  # first, so that room for the reference is counted before the rest
        try:
            arrival = self._receive(payload, reference)
            rows = None
            if not arrival.whole:
                rows = Rows(arrival.kv, arrival.positions, arrival.n_ctx, reference.queries[:0])
                self._ledger.require(rows.nbytes)
        except KvroamError:
            lease.release()
            raise
        session = Session(reference, arrival.n_ctx, lease, rows)
        session.expect(arrival.part)
        return session

    @torch.inference_mode()
    def backfill(self, sessions: Sequence[Session]) -> list[Migration]:
        """Send the rest of caches whose first part `migrate` has moved with `plan.rest`, and merge it in.

        The rest is encoded as the first part was, and its rows take their places by position. What a session has read
        in between keeps the keys and values that it computed on the first part alone: a scar. So a session is whole
        afterwards if and only if it has read nothing in between, was whole at its source, and travelled in a lossless
        format; the merged cache then equals the whole one bit by bit.

        Raises:
            ConfigError: a closed or repeated session, one that waits for no rest, or no memory left; no session has
                changed then.
            PayloadError: the cache at the source held NaN or infinity; no session has changed then.
        """
        sessions = list(sessions)
        return self._complete(sessions, [rest.encode() for rest in rest_of(sessions)])

    @torch.inference_mode()
    def complete(self, session: Session, payload: Buffer) -> Migration:
        """`backfill` with a payload that came from the source, made there by `Rest.encode`.

        Raises:
            ConfigError: the session is closed or waits for no rest, or no memory is left.
            PayloadError: the payload is damaged, of another model, tokenizer, script or session, completes another
                first part, or brings other tokens than those that are missing. The session is as it was.
        """
        check_open([session])
        return self._complete([session], [payload])[0]

    def drop_rest(self, sessions: Sequence[Session]) -> None:
        """Give up what is still to come of these sessions' caches; they go on as they are.

        Raises:
            ConfigError: a closed or repeated session, or one that waits for no rest; nothing has changed then.
        """
        sessions = list(sessions)
        check_open(sessions)
        parts = [pending(session, f"session {i} of {len(sessions)}") for i, session in enumerate(sessions)]
        for session, part in zip(sessions, parts, strict=True):
            session.expect(replace(part, state=DROPPED))

    @torch.inference_mode()
    def repair(self, sessions: Sequence[Session]) -> list[int]:
        """Rebuild degraded caches in place from the token ids that the sessions have read; they are whole afterwards.

        A rest that was still to come is not needed any more and is dropped.

        Returns:
            Tokens that each server has to prefill.

        Raises:
            ConfigError: a closed or repeated session, or one that is whole; nothing has changed then.
        """
        sessions = list(sessions)
        check_open(sessions)
        for i, session in enumerate(sessions):
            if session.whole:
                raise ConfigError(
                    f"session {i} of {len(sessions)} has a whole cache, which a repair cannot change; repair degraded "
                    "sessions only"
                )
        for session in sessions:
            session.degrade(None)
            session.expect(None)
        self._refresh(sessions)
        return [session.length for session in sessions]

    def _complete(self, sessions: list[Session], payloads: Sequence[Buffer]) -> list[Migration]:
        """Merge one payload into each session; all of them are merged before the first session is changed."""
        done: list[tuple[Rows | None, int]] = []
        extra = 0  # [bytes] that the merged caches take beyond those that they replace
        for session, blob in zip(sessions, payloads, strict=True):
            old = 0 if session.rows is None else session.rows.nbytes

            def reserve(tokens: int, before: int = extra - old) -> None:
                self._ledger.require(before + tokens * math.prod(self.llm.geometry.row) * self.llm.cache_dtype.itemsize)

            with allocating(f"a payload of {len(blob)} bytes"):
                rows, sent = merged(self.llm, self.tokenizer_fingerprint, blob, session, reserve)
            extra += 0 if rows is None else rows.nbytes - old
            done.append((rows, sent))
        self._ledger.require(extra)
        moves = []
        for session, blob, (rows, sent) in zip(sessions, payloads, done, strict=True):
            part = pending(session)
            session.degrade(rows)
            session.expect(replace(part, state=MERGED))
            scar = session.length - part.n_ctx
            moves.append(Migration(len(blob), sent, session.stored, session.length, rows is None, scar))
        self._refresh(sessions)
        return moves

    def stage(self, payload: Buffer, origin: Session | Reference) -> Ticket:
        """First phase of a handover: the payload is checked and restored here, while its source goes on.

        Args:
            origin: the session that sent the payload, which `commit` closes; or the reference of its script, where
                the source is on another machine.

        Raises:
            PayloadError, ConfigError: as `restore`; the source is as it was.
        """
        source = origin if isinstance(origin, Session) else None
        if source is not None:
            check_open([source])
        return Ticket(self.restore(payload, origin if isinstance(origin, Reference) else origin.reference), source)

    def commit(self, ticket: Ticket) -> Session:
        """Second phase: close the source and hand out the session here; see `Ticket.commit`."""
        return ticket.commit()

    def abort(self, ticket: Ticket) -> None:
        """Give up on a staged payload; see `Ticket.abort`."""
        ticket.abort()

    def _refresh(self, sessions: Sequence[Session]) -> None:
        """Let monitors take in what their sessions have read, and the caches that handovers have replaced."""
        for session in sessions:
            if session.monitor is not None:
                session.monitor.update()
                session.account()

