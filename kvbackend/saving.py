"""Sessions as plain data, so that whoever follows them can be pickled and go on elsewhere."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from .codecs.header import Header
from .handover.backfill import Rest
from .handover.transfer import Unsent
from .sessions.ledger import Ledger
from .sessions.parts import FirstPart
from .sessions.rows import Rows, array_of
from .sessions.session import Session


def saved(session: Session) -> dict[str, Any]:
    """All of a session but its script and monitor: numbers, texts and numpy arrays of their own memory."""
    rows, part, rest = session.rows, session.part, session.rest
    data: dict[str, Any] = {
        "length": session.length, "failed": sorted(session.failed), "lost_at": session.lost_at, "rows": None,
        "part": None, "rest": None,
    }  # fmt: skip
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
        kv = None if kept["kv"] is None else _tensor(kept["kv"], like.kv)
        rest = Rest(Unsent(Header(**kept["header"]), kept["positions"], kv), like, ledger)
    session.expect(part, rest)


def _plain(rows: torch.Tensor) -> np.ndarray:
    """A copy of rows as numpy knows them: half precision as int16."""
    return np.array(array_of(rows.detach().cpu()))


def _tensor(rows: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(rows))
    return (tensor.view(like.dtype) if tensor.dtype == torch.int16 else tensor).to(like.device)
