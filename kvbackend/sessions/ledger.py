"""A bound on the memory of references and sessions: unused references go first, open sessions are never dropped."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...errors import ConfigError
from .reference import Reference


class Ledger:
    """Remembers references by content, least recently used first out, and counts what open sessions hold.

    Args:
        limit: bytes that references and degraded caches may take together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0  # [bytes]
        self._references: OrderedDict[bytes, Reference] = OrderedDict()
        self._holders: dict[int, int] = {}  # id(reference) -> open sessions on it

    def get(self, key: bytes) -> Reference | None:
        """The remembered reference of this content, now the most recently used; None when there is none."""
        found = self._references.get(key)
        if found is not None:
            self._references.move_to_end(key)
        return found

    def remember(self, reference: Reference) -> None:
        """Keep a reference for the next session with the same script.

        Raises:
            ConfigError: open sessions leave no room for it.
        """
        self.require(reference.nbytes)
        self._references[reference.key] = reference
        if id(reference) not in self._holders:
            self.used += reference.nbytes

    def require(self, extra: int) -> None:
        """Forget unused references until `extra` bytes fit.

        Raises:
            ConfigError: they do not fit beside what open sessions hold.
        """
        if self.used + extra <= self.limit:
            return
        for key, reference in list(self._references.items()):
            if id(reference) not in self._holders:
                del self._references[key]
                self.used -= reference.nbytes
                if self.used + extra <= self.limit:
                    return
        raise ConfigError(
            f"open sessions hold {self.used / 2**20:.1f} MiB and {extra / 2**20:.1f} MiB more exceed memory_bytes = "
            f"{self.limit / 2**20:.1f} MiB; close sessions or raise memory_bytes"
        )

    def lease(self, reference: Reference) -> "Lease":
        """Account for one more session on a reference."""
        return Lease(self, reference)

    def hold(self, reference: Reference) -> None:
        """Count one more holder."""
        name = id(reference)
        if name not in self._holders and self._references.get(reference.key) is not reference:
            self.require(reference.nbytes)
            self.used += reference.nbytes
        self._holders[name] = self._holders.get(name, 0) + 1

    def drop(self, reference: Reference) -> None:
        """Count one holder less."""
        name = id(reference)
        self._holders[name] -= 1
        if not self._holders[name]:
            del self._holders[name]
            if self._references.get(reference.key) is not reference:
                self.used -= reference.nbytes


@contextmanager
def allocating(what: str) -> Iterator[None]:
    """Turn a machine that has no memory left into an error that says what to do.

    Raises:
        ConfigError: there was not enough memory for `what`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise ConfigError(f"no memory for {what}; close sessions or lower memory_bytes, then try again") from error


class Lease:
    """What one session holds; given back by `release`, at the latest when the session is garbage collected."""

    def __init__(self, ledger: Ledger, reference: Reference) -> None:
        self._ledger, self._own = ledger, 0
        self._reference: Reference | None = None  # stays None if the ledger refuses
        ledger.hold(reference)
        self._reference = reference

    def move(self, reference: Reference) -> None:
        """The session now stands on another reference."""
        self._ledger.hold(reference)
        if self._reference is not None:
            self._ledger.drop(self._reference)
        self._reference = reference

    def own(self, nbytes: int) -> None:
        """The session's own degraded cache takes `nbytes`."""
        self._ledger.used += nbytes - self._own
        self._own = nbytes

    def release(self) -> None:
        """Give everything back; doing so twice does nothing."""
        if self._reference is not None:
            self.own(0)
            self._ledger.drop(self._reference)
            self._reference = None

    def __del__(self) -> None:
        self.release()
