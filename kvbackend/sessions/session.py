"""One session: a position in a script, and either the whole cache or the degraded one that handovers left."""

from typing import Any, Protocol

import numpy as np
import torch

from ...errors import ConfigError
from .ledger import Lease
from .parts import PENDING, FirstPart, Held
from .reference import Reference
from .rows import Array, Rows


class Watcher(Protocol):
    """What keeps a session's attention up to date, as `scorers.monitor.Monitor` does."""

    @property
    def nbytes(self) -> int:
        """Memory taken."""

    def update(self) -> None:
        """Take in what the session has read since."""

    def attention(self, view: Any, start: int) -> np.ndarray | None:
        """Attention that queries from `start` on pay to the rows of a view; None where it is not known."""


class Session:
    """An LLM session; `KVBackend.open` makes it, and only the backend changes it.

    Attributes:
        reference: the script and its whole cache.
        length: tokens fed so far, the position of the next one.
        failed: ids of answers in progress that already have a wrong token.
        lost_at: tokens that had been read at the last handover that lost something; None while the cache is whole.
        monitor: keeps the attention of the newest queries, where it has been asked for.
        part: the first part of a cache that arrives in two, until the next handover.
        rest: what the source of that cache keeps for it, where source and target are one backend.
    """

    def __init__(self, reference: Reference, length: int, lease: Lease, rows: Rows | None = None) -> None:
        self.reference, self.length, self._lease = reference, length, lease
        self.failed: set[int] = set()
        self.monitor: Watcher | None = None
        self.part: FirstPart | None = None
        self.rest: Held | None = None
        self.closed = False
        self._rows: Rows | None = None
        self.lost_at: int | None = None
        self.degrade(rows, length)

    @property
    def whole(self) -> bool:
        """Whether the cache is exactly what a session that never moved would have."""
        return self._rows is None

    @property
    def rows(self) -> Rows | None:
        """The degraded cache, None while it is whole."""
        return self._rows

    @property
    def kv(self) -> torch.Tensor:
        """The cache [kept, L, 2, Hkv, D] at the cache dtype; do not write to it."""
        return self.reference.kv[: self.length] if self._rows is None else self._rows.kv

    @property
    def stored(self) -> int:
        """Rows in the cache."""
        return self.length if self._rows is None else self._rows.count

    @property
    def positions(self) -> np.ndarray:
        """Script positions int32 [kept] of the cached tokens.

        Where heads hold different tokens, [kept, L, Hkv]: in each head's column ascending, -1 where it holds none.
        """
        return np.arange(self.length, dtype=np.int32) if self._rows is None else self._rows.positions

    @property
    def empty(self) -> np.ndarray | None:
        """Rows that a head does not hold, bool [kept, L, Hkv]; None where every head holds every row."""
        if self._rows is None or self._rows.positions.ndim == 1:
            return None
        where = self.positions
        return where < 0 if where.min(initial=0) < 0 else None

    @property
    def awaits_rest(self) -> bool:
        """Whether the rest of the cache may still arrive."""
        return self.part is not None and self.part.state == PENDING

    @property
    def remaining(self) -> int:
        """Script tokens that have not been fed yet."""
        return len(self.reference) - self.length

    def queries(self, start: int, stop: int) -> torch.Tensor:
        """Rotated queries [stop - start, L, H, D]; those computed before the cache was degraded are the reference's."""
        if self._rows is None or self._rows.own_start >= stop:
            return self.reference.queries[start:stop]
        first = self._rows.own_start
        own = self._rows.queries[max(start - first, 0) : stop - first]
        return own if start >= first else torch.cat([self.reference.queries[start:first], own])

    def expect(self, part: FirstPart | None, rest: Held | None = None) -> None:
        """Say what else of the cache may arrive, and let go of what was kept before."""
        if self.rest is not None:
            self.rest.release()
        self.part, self.rest = part, rest

    def degrade(self, rows: Rows | None, lost_at: int | None = None) -> None:
        """Put a degraded cache in place; None makes the session whole.

        Args:
            lost_at: tokens that had been read when something was lost; None where nothing was this time.
        """
        self._rows = rows
        if rows is None or lost_at is not None:
            self.lost_at = None if rows is None else lost_at
        self.account()

    def account(self) -> None:
        """Tell the ledger what the session holds beside its reference."""
        rows = 0 if self._rows is None else self._rows.nbytes
        self._lease.own(rows + (0 if self.monitor is None else self.monitor.nbytes))

    def grow(self, kv: Array, queries: Array) -> None:
        """Add the next tokens' rows and queries, see `Rows.grow`, to a degraded cache and move past them."""
        assert self._rows is not None
        if self._rows.grow(kv, queries, self.length):
            self.account()
        self.length += kv.shape[0]

    def rebase(self, reference: Reference) -> None:
        """Stand on another reference that agrees with this one up to `length`."""
        self._lease.move(reference)
        self.reference = reference

    def close(self) -> None:
        """Give the memory back; the session cannot be used any more."""
        self.closed = True
        self._rows = self.monitor = None
        self.expect(None)
        self._lease.release()


def check_open(sessions: list[Session]) -> None:
    """Raise ConfigError unless all sessions are open and distinct."""
    if len({id(session) for session in sessions}) != len(sessions):
        raise ConfigError(f"{len(sessions)} sessions were given, some of them twice; give each once per call")
    for i, session in enumerate(sessions):
        if session.closed:
            raise ConfigError(f"session {i} of {len(sessions)} is closed; open or fork another")
