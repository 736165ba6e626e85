"""A handover in two phases: the cache is staged at the target, and the source keeps its session until the commit."""

import numpy as np
import torch

from ...errors import ConfigError
from ..sessions.session import Session


class Ticket:
    """A session that waits at the target; `KVBackend.stage` makes it, `commit` or `abort` settles it, once.

    Attributes:
        session: the restored session; nobody else may use it before the commit.
        source: the session that sent the payload, None where it is on another machine.
        state: "staged", "committed" or "aborted".
    """

    def __init__(self, session: Session, source: Session | None) -> None:
        self.session, self.source, self.state = session, source, "staged"

    def commit(self) -> Session:
        """Close the source and hand out the session at the target.

        Raises:
            ConfigError: the ticket is settled already, or its source has gone on since; nothing changes then.
        """
        self._require_staged()
        source, session = self.source, self.session
        if source is not None:
            if source.closed:
                raise ConfigError("the source session was closed after the payload was made; abort the ticket")
            if source.length != session.length:
                raise ConfigError(
                    f"the source has read {source.length} tokens and its payload holds {session.length}; abort the "
                    "ticket and stage a new payload"
                )
            session.failed = set(source.failed)
            if keeps_all(source, session.kv, session.positions):
                session.lost_at = source.lost_at
            source.close()
        self.state = "committed"
        return session

    def abort(self) -> None:
        """Give the target's memory back; the source goes on as if nothing had happened.

        Raises:
            ConfigError: the ticket is settled already.
        """
        self._require_staged()
        self.session.close()
        self.state = "aborted"

    def _require_staged(self) -> None:
        if self.state != "staged":
            raise ConfigError(f"the ticket has been {self.state}; settle a ticket once, stage a payload for another")


def keeps_all(source: Session, kv: torch.Tensor, positions: np.ndarray) -> bool:
    """Whether a cache has every row of a session's cache, as it was there or rebuilt from token ids.

    Args:
        kv, positions: of the cache; where heads hold different tokens, a rebuilt row counts as lost.
    """
    held = source.positions
    if held.ndim != 1 or positions.ndim != 1:
        return np.array_equal(held, positions) and torch.equal(source.kv, kv.to(source.kv.device))
    if not np.isin(held, positions).all():
        return False
    index = torch.from_numpy(np.searchsorted(positions, held))
    rows = kv.index_select(0, index.to(kv.device)).to(source.kv.device).flatten(1)
    rebuilt = source.reference.kv[torch.from_numpy(held.astype(np.int64)).to(source.kv.device)].flatten(1)
    return bool(((rows == source.kv.flatten(1)).all(1) | (rows == rebuilt).all(1)).all())
