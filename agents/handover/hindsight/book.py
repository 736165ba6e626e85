"""Plan books: one option for every change of cell of every UE, as a level of each lever.

A book is int8 [U, K, LEVERS]: for the k-th change of cell of UE u, which level of each lever. The levels are few, so
that a search can try them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ....envs.handover.config import HandoverConfig
from ....envs.handover.world.state import FORWARD, KV, MEDIA, RESUME, SPLIT, TOKEN, WAIT

# Columns of a book, and rows of LEVELS.
WHEN, MEDIUM, KEEP, BITS, WEIGHT, BACKFILL, ARRIVAL, REPAIR = range(8)
LEVERS = ("when", "medium", "keep", "bits", "weight", "backfill", "arrival", "repair")

# Values of the lever `when` besides seconds before the handover (0: with it).
FETCH, STAY = -1.0, -2.0

_VALUES: tuple[tuple[float, ...], ...] = (
    (8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.0, FETCH, STAY),  # the preparation begins so long before the handover [s]
    (SPLIT, KV, TOKEN),
    (1.0, 0.5, 0.25, 0.1),  # share of the transferred tokens that is kept
    (16, 8, 4),  # precision [bit]
    (1.0, 4.0, 0.25),  # bandwidth weight
    (0.0, 0.25, 1.0),  # bandwidth weight of the rest that follows; 0: none does
    (WAIT, RESUME, FORWARD),  # at the handover, when the preparation is not finished
    (0, 1),  # rebuild the cache in place afterwards, when it is not whole
)
# float64 [LEVERS, most levels]; NaN where a lever has fewer.
LEVELS = np.full((len(_VALUES), max(map(len, _VALUES))), np.nan)
for _row, _values in zip(LEVELS, _VALUES, strict=True):
    _row[:len(_values)] = _values


class Option(NamedTuple):
    """What a row of a book says, in its own units."""

    when: float
    medium: int
    keep: float
    bits: int
    weight: float
    backfill: float
    arrival: int
    repair: int


def level(lever: int, value: float) -> int:
    """The number of a level.

    Raises:
        ValueError: the lever has no such level.
    """
    if value not in _VALUES[lever]:
        raise ValueError(f"{LEVERS[lever]} is {value}: choose among {', '.join(map(str, _VALUES[lever]))}")
    return _VALUES[lever].index(value)


def row(when: float = 0.0, medium: int = SPLIT, keep: float = 1.0, bits: int = 16, weight: float = 1.0,
        backfill: float = 0.0, arrival: int = WAIT, repair: int = 0) -> np.ndarray:
    """A row of a book, int8 [LEVERS]; arguments as Option's."""
    values = (when, medium, keep, bits, weight, backfill, arrival, repair)
    return np.array([level(lever, value) for lever, value in enumerate(values)], np.int8)


def option(levels: np.ndarray) -> Option:
    """What a row of a book says."""
    values = [_VALUES[lever][number] for lever, number in enumerate(levels)]
    return Option(values[WHEN], int(values[MEDIUM]), values[KEEP], int(values[BITS]), values[WEIGHT], values[BACKFILL],
                  int(values[ARRIVAL]), int(values[REPAIR]))


@dataclass(frozen=True)
class Limits:
    """Which levels a book may use; bool per level of each lever.

    Args:
        allowed: one tuple of levels' numbers per lever.
    """

    allowed: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if any(not levels for levels in self.allowed) or len(self.allowed) != len(LEVERS):
            raise ValueError(f"allowed is {self.allowed}: every one of {', '.join(LEVERS)} needs at least one level")

    def to(self, lever: int, *values: float) -> Limits:
        """The same, with `lever` held to those of `values` that were allowed."""
        kept = tuple(number for number in self.allowed[lever] if _VALUES[lever][number] in values)
        return Limits(tuple(kept if i == lever else levels for i, levels in enumerate(self.allowed)))

    def project(self, book: np.ndarray) -> np.ndarray:
        """The book with every level that is not allowed replaced by the first level that is; no lead time by 0."""
        result = book.copy()
        for lever, levels in enumerate(self.allowed):
            default = level(WHEN, 0.0) if lever == WHEN and level(WHEN, 0.0) in levels else levels[0]
            result[..., lever] = np.where(np.isin(book[..., lever], levels), book[..., lever], default)
        return result

    def allows(self, levels: np.ndarray) -> bool:
        """Whether every level of a row is allowed."""
        return all(number in allowed for number, allowed in zip(levels.tolist(), self.allowed, strict=True))


def everything(config: HandoverConfig) -> Limits:
    """Every level that this world knows: without forwarding no session stays behind."""
    full = Limits(tuple(tuple(range(len(values))) for values in _VALUES))
    if config.backhaul.hops > 0:
        return full
    return full.to(WHEN, *(when for when in _VALUES[WHEN] if when >= 0.0)).to(ARRIVAL, WAIT, RESUME)


def without(config: HandoverConfig) -> dict[str, dict[str, Limits]]:
    """The limits of a world in which a lever is missing: {what is missing: {level that it is held to: limits}}.

    Several levels where one must be chosen: the best of them counts.
    """
    full = everything(config)
    return {
        "no lead time": {"": full.to(WHEN, 0.0, FETCH, STAY)},
        "one medium": {MEDIA[int(value)]: full.to(MEDIUM, value) for value in _VALUES[MEDIUM]},
        "keep all": {"": full.to(KEEP, 1.0)},
        "one precision": {f"{value:g} bit": full.to(BITS, value) for value in _VALUES[BITS]},
        "equal shares": {"": full.to(WEIGHT, 1.0).to(BACKFILL, 0.0, 1.0)},
        "no backfill": {"": full.to(BACKFILL, 0.0).to(ARRIVAL, WAIT, FORWARD)},
    }
