"""What it costs a language model when its KV cache travels: sessions, pruning, wire codec, restore, measured drift.

`backend.py` is the door, `handing.py` its half that moves sessions. Behind it: `model/` computes, `sessions/` keep
state, `scorers/` rank, `codecs/` make bytes, and `handover/` is one move. `settings.py` is what a user chooses,
`drift.py` what is measured. Beside it, `sweep/` measures combinations, and `embedded/` is the model that ships. Torch
is imported when a name is first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "KVSettings": "settings",
    "TransferPlan": "settings",
    "KVBackend": "backend",
    "Drift": "drift",
    "Migration": "handover.transfer",
    "Monitor": "scorers.monitor",
    "Reference": "sessions.reference",
    "Rest": "handover.backfill",
    "Session": "sessions.session",
    "Ticket": "handover.ticket",
    "SCORERS": "scorers.table",
    "Scorer": "scorers.base",
    "extract_top_k_kv_cache": "handover.selection",
}
__all__ = [
    "SCORERS",
    "Drift",
    "KVBackend",
    "KVSettings",
    "Migration",
    "Monitor",
    "Reference",
    "Rest",
    "Scorer",
    "Session",
    "Ticket",
    "TransferPlan",
    "extract_top_k_kv_cache",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import kvroam.kvbackend` does not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
