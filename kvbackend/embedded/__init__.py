"""The language model that ships with kvroam: weights and tokenizer, and the scripts that its sessions follow.

What runs is here; `training/` holds what trains the model, examines it and reports on it.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "MAX_TOKENS": "model",
    "Script": "scripts",
    "load_model": "model",
    "load_texts": "texts",
    "load_tokenizer": "tokenizer",
    "make_script": "scripts",
    "script_bank": "scripts",
}
__all__ = ["MAX_TOKENS", "Script", "load_model", "load_texts", "load_tokenizer", "make_script", "script_bank"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `python -m` of a module here loads that module once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
