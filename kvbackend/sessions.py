"""One session: a position in a script, and either the whole cache or the degraded one that handovers left."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ConfigError
from .memory import Lease
from .reference import Reference

if TYPE_CHECKING:
    from .monitor import Monitor

_SPARE_TOKENS = 64
Numbers = Any  # rows as a numpy array on the CPU, as a tensor elsewhere


class Rows:
    """A degraded cache that grows in place: rows with their script positions, and the queries computed on it.

    Args:
        kv: [n, L, 2, Hkv, D], copied.
        positions: int [n], strictly increasing; or [n, L, Hkv], -1 for none, where heads hold different tokens.
        own_start: script position from which queries were computed on this degraded cache.
        queries: [m, L, H, D] of positions own_start.. own_start + m - 1.
    """

    def __init__(self, kv: torch.Tensor, positions: np.ndarray, own_start: int, queries: torch.Tensor) -> None:
        self.count, self.own_start, self.own = 0, own_start, 0
        self._kv = kv.new_empty(len(kv) + _SPARE_TOKENS, *kv.shape[1:])
        self._positions = np.empty((len(self._kv), *positions.shape[1:]), dtype=np.int32)
        self._queries = queries.new_empty(len(queries) + _SPARE_TOKENS, *queries.shape[1:])
        self._kv[: len(kv)], self._positions[: len(kv)], self._queries[: len(queries)] = kv, positions, queries
        self.count, self.own = len(kv), len(queries)
        self._address()

    @property
    def kv(self) -> torch.Tensor:
        """Rows in use [count, L, 2, Hkv, D]."""
        return self._kv[: self.count]

    @property
    def positions(self) -> np.ndarray:
        """Their script positions int32 [count], or [count, L, Hkv] with -1 for none."""
        return self._positions[: self.count]

    @property
    def queries(self) -> torch.Tensor:
        """Queries computed on this cache [own, L, H, D]."""
        return self._queries[: self.own]

    @property
    def nbytes(self) -> int:
        """Memory taken, spare room included."""
        return sum(x.numel() * x.element_size() for x in (self._kv, self._queries))

    def grow(self, kv: Numbers, queries: Numbers, start: int) -> bool:
        """Add new tokens [t, ...], as `numbers` gives them, at script positions start.. ; True when memory grew."""
        new = kv.shape[0]
        count, own = self.count + new, self.own + new
        room = self._positions.shape[0]
        enlarged = count > room or own > self._room
        if count > room:
            self._kv = _enlarged(self._kv, self.count, count)
            fresh = np.empty((len(self._kv), *self._positions.shape[1:]), dtype=np.int32)
            fresh[: self.count] = self.positions
            self._positions = fresh
        if own > self._room:
            self._queries = _enlarged(self._queries, self.own, own)
        if enlarged:
            self._address()
        self._kv_numbers[self.count : count] = kv
        self._positions[self.count : count].T[:] = np.arange(start, start + new)
        self._query_numbers[self.own : own] = queries
        self.count, self.own = count, own
        return enlarged

    def _address(self) -> None:
        self._kv_numbers, self._query_numbers = numbers(self._kv), numbers(self._queries)
        self._room = len(self._queries)

    def copy(self) -> "Rows":
        """An independent copy."""
        return Rows(self.kv, self.positions, self.own_start, self.queries)


def numbers(rows: torch.Tensor) -> Numbers:
    """The same memory as a numpy array on the CPU, where slices of those cost a third; half precision as int16."""
    if rows.device.type != "cpu":
        return rows
    return (rows.view(torch.int16) if rows.element_size() == 2 else rows).numpy()


def _enlarged(buffer: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    fresh = buffer.new_empty(needed + needed // 2 + _SPARE_TOKENS, *buffer.shape[1:])
    fresh[:used] = buffer[:used]
    return fresh


class Session:
    """An LLM session; `KVBackend.open` makes it, and only the backend changes it.

    Attributes:
        reference: the script and its whole cache.
        length: tokens fed so far, the position of the next one.
        failed: ids of answers in progress that already have a wrong token.
        monitor: keeps the attention of the newest queries, where it has been asked for.
    """

    def __init__(self, reference: Reference, length: int, lease: Lease, rows: Rows | None = None) -> None:
        self.reference, self.length, self._lease = reference, length, lease
        self.failed: set[int] = set()
        self.monitor: Monitor | None = None
        self.closed = False
        self._rows: Rows | None = None
        self.degrade(rows)

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

    def degrade(self, rows: Rows | None) -> None:
        """Put a degraded cache in place; None makes the session whole."""
        self._rows = rows
        self.account()

    def account(self) -> None:
        """Tell the ledger what the session holds beside its reference."""
        rows = 0 if self._rows is None else self._rows.nbytes
        self._lease.own(rows + (0 if self.monitor is None else self.monitor.nbytes))

    def grow(self, kv: Numbers, queries: Numbers) -> None:
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
        self._lease.release()


@dataclass(frozen=True)
class Migration:
    """What one handover of a session did."""

    payload_bytes: int  # length of the encoded payload; token ids of the prefix are not in it
    sent_tokens: int  # tokens whose keys and values are in it
    kept_tokens: int  # tokens in the restored cache, the rebuilt prefix included
    total_tokens: int  # tokens of the session
    whole: bool  # whether the restored cache is bitwise the whole one


def check_open(sessions: list[Session]) -> None:
    """Raise ConfigError unless all sessions are open and distinct."""
    if len({id(session) for session in sessions}) != len(sessions):
        raise ConfigError(f"{len(sessions)} sessions were given, some of them twice; give each once per call")
    for i, session in enumerate(sessions):
        if session.closed:
            raise ConfigError(f"session {i} of {len(sessions)} is closed; open or fork another")
