"""A cache that arrives in two parts: what its session knows of the first, and so of the rest that may follow."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

PENDING, MERGED, DROPPED = "pending", "merged", "dropped"


@dataclass(frozen=True, eq=False)
class FirstPart:
    """The first payload of a session's cache; the rest must fit it.

    Attributes:
        name: of the payload, see `payload.name_of`.
        n_ctx: tokens of the session when it moved; what it has read since stands on the first part alone.
        prefix: tokens [0, prefix) were rebuilt from token ids.
        positions: int32 [k] of the tokens that it brought, or [k, L, Hkv] with -1 for none.
        rest: digest of the positions that are missing, see `digest_of`.
        state: PENDING, MERGED or DROPPED.
    """

    name: str
    n_ctx: int
    prefix: int
    positions: np.ndarray
    rest: str
    state: str = PENDING


class Held(Protocol):
    """What a source keeps of a cache until it is sent, as `handover.backfill.Rest` does."""

    def copy(self) -> "Held":
        """Another handle of the same rows."""

    def release(self) -> None:
        """Give the memory back; doing so twice does nothing."""


def digest_of(positions: np.ndarray) -> str:
    """Digest of positions [k] or [k, L, Hkv], 32 hex digits."""
    where = np.ascontiguousarray(positions, dtype="<i4")
    return hashlib.blake2b(where.tobytes(), digest_size=16).hexdigest()
