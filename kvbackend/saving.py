"""Sessions as plain data, so that whoever follows them can be pickled and go on elsewhere."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError
from .codecs.header import Header
from .handover.backfill import Rest
from .handover.transfer import Unsent
from .sessions.ledger import Ledger
from .sessions.parts import FirstPart
from .sessions.reference import Reference
from .sessions.rows import Rows, array_of
from .sessions.session import Session


def saved(session: Session, script: Reference) -> dict[str, Any]:
    """All of a session but its script and monitor: numbers, texts and numpy arrays of their own memory.

    Args:
        script: what the session has begun with; what it has read instead is saved too.

    Raises:
        ConfigError: the session is of another script.
    """
    rows, part, rest = session.rows, session.part, session.rest
    data: dict[str, Any] = {
        "length": session.length, "failed": sorted(session.failed), "lost_at": session.lost_at, "rows": None,
        "part": None, "rest": None,
        "text": None,
    }  # fmt: skip
    text = session.reference
    if text is not script:
        if text.marks is not script.marks:
            raise ConfigError("the session was continued by append, or is of another script; save it on its own")
        first = int(np.flatnonzero(text.tokens != script.tokens)[0])
        data["text"] = {"tokens": text.tokens.copy(), "correct": list(text.correct), "first": first,
                        **{name: _plain(getattr(text, name)[first:]) for name in _TEXT}}  # fmt: skip
    if rows is not None:
        data["rows"] = {"kv": _plain(rows.kv), "positions": rows.positions.copy(), "own_start": rows.own_start,
                        "queries": _plain(rows.queries)}  # fmt: skip
    if part is not None:
        data["part"] = asdict(part)
    if isinstance(rest, Rest) and not rest.released:
        unsent = rest.unsent
        data["rest"] = {"header": asdict(unsent.header), "positions": unsent.positions.copy(),
                        "kv": None if unsent.kv is None else _plain(unsent.kv)}  # fmt: skip
    return data


def own_text(script: Reference, data: dict[str, Any]) -> Reference:
    """The reference that a saved session stood on: `script`, or one that goes on from it in another way."""
    text = data["text"]
    if text is None:
        return script
    first = text["first"]
    kv, queries, hidden = (
        torch.cat([own[:first], _tensor(text[name], own)]) for name in _TEXT for own in (getattr(script, name),)
    )
    correct = list(text["correct"])
    return Reference(text["tokens"].copy(), script.marks, kv, queries, hidden, correct, script.says, script.answered)


_TEXT = ("kv", "queries", "hidden")


def resume(session: Session, data: dict[str, Any], ledger: Ledger) -> None:
    """Bring a fresh session of the same script and length to what `saved` has noted of another."""
    session.failed = set(data["failed"])
    like = session.reference
    if data["rows"] is not None:
        rows = data["rows"]
        kv, queries = _tensor(rows["kv"], like.kv), _tensor(rows["queries"], like.queries)
        session.degrade(Rows(kv, rows["positions"], rows["own_start"], queries), data["lost_at"])
    part = None if data["part"] is None else FirstPart(**data["part"])
    rest = None
    if data["rest"] is not None:
        kept = data["rest"]
        own = None if kept["kv"] is None else _tensor(kept["kv"], like.kv)
        rest = Rest(Unsent(Header(**kept["header"]), kept["positions"], own), like, ledger)
    session.expect(part, rest)


def _plain(rows: torch.Tensor) -> np.ndarray:
    """A copy of rows as numpy knows them: half precision as int16."""
    return np.array(array_of(rows.detach().cpu()))


def _tensor(rows: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(rows))
    return (tensor.view(like.dtype) if tensor.dtype == torch.int16 else tensor).to(like.device)
