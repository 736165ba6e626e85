"""A cache that handovers have degraded: the rows that are left, and those that reading on has added."""

from typing import Any

import numpy as np
import torch

_SPARE_TOKENS = 64
Array = Any  # rows as a numpy array on the CPU, as a tensor elsewhere


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

    def grow(self, kv: Array, queries: Array, start: int) -> bool:
        """Add new tokens [t, ...], as `array_of` gives them, at script positions start.. ; True when memory grew."""
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
        self._kv_array[self.count : count] = kv
        self._positions[self.count : count].T[:] = np.arange(start, start + new)
        self._query_array[self.own : own] = queries
        self.count, self.own = count, own
        return enlarged

    def _address(self) -> None:
        self._kv_array, self._query_array = array_of(self._kv), array_of(self._queries)
        self._room = len(self._queries)

    def copy(self) -> "Rows":
        """An independent copy."""
        return Rows(self.kv, self.positions, self.own_start, self.queries)


def array_of(rows: torch.Tensor) -> Array:
    """The same memory as a numpy array on the CPU, where slices of those cost a third; half precision as int16."""
    if rows.device.type != "cpu":
        return rows
    return (rows.view(torch.int16) if rows.element_size() == 2 else rows).numpy()


def _enlarged(buffer: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    fresh = buffer.new_empty(needed + needed // 2 + _SPARE_TOKENS, *buffer.shape[1:])
    fresh[:used] = buffer[:used]
    return fresh
