"""A handover in two phases: the cache is staged at the target, and the source keeps its session until the commit."""

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
