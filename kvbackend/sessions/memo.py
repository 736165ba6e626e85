"""Measurements of identical caches, remembered by content."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import fields

import torch

from ..codecs.checksum import xxh3
from ..drift import Drift
from .session import Session

_ENTRIES = 1 << 16  # of about 300 bytes each


class Memo:
    """What `KVBackend.measure` found, by script, position, horizon and the very numbers in the degraded cache.

    What is remembered was computed in another batch, so that it may differ from a new computation by rounding, as two
    batches of different shape do (1e-6 nats).

    Attributes:
        hits: measurements that were not computed again.
    """

    def __init__(self) -> None:
        self.hits = 0
        self._rows: OrderedDict[Hashable, tuple[float, ...]] = OrderedDict()

    def key(self, session: Session, steps: int) -> Hashable:
        """What a measurement of a degraded session depends on, beside the model."""
        kv = session.kv.contiguous().view(torch.uint8).cpu().numpy()
        state = (session.reference.key, session.length, session.lost_at, steps, frozenset(session.failed))
        return (*state, session.positions.tobytes(), xxh3(kv))

    def recall(self, keys: Sequence[Hashable | None], drift: Drift) -> list[int]:
        """Fill in what is remembered.

        Args:
            keys: one per session, None where there is nothing to look up.
            drift: entries found are written here.

        Returns:
            Indices of the sessions that have to be computed.
        """
        missing = []
        for i, key in enumerate(keys):
            row = None if key is None else self._rows.get(key)
            if row is None:
                missing.append(i)
                continue
            self.hits += 1
            for field, value in zip(fields(Drift), row, strict=True):
                getattr(drift, field.name)[i] = value
        return missing

    def remember(self, keys: Sequence[Hashable | None], drift: Drift) -> None:
        """Keep the entries that have a key; the oldest ones are forgotten when there are too many."""
        columns = [getattr(drift, field.name).tolist() for field in fields(Drift)]
        for key, row in zip(keys, zip(*columns, strict=True), strict=True):
            if key is not None:
                self._rows[key] = row
        while len(self._rows) > _ENTRIES:
            self._rows.popitem(last=False)
