"""Policies by name and arguments, and learned ones by the path of their checkpoint."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from ..envs.handover.config import HandoverConfig
from ..errors import PolicyError
from .base import Policy
from .handover.catalogue import ALIASES, CATALOGUE
from .handover.following import in_charge


def names() -> tuple[str, ...]:
    """The named policies."""
    return tuple(CATALOGUE)


def make(name: str, config: HandoverConfig, seed: int = 0) -> Policy:
    """The policy of that name, or the learned one at that path.

    Args:
        name: one of `names()`, alone or with arguments (`token-aware:keep=0.1,bits=8`); an alias such as `cho-int8`; a
            checkpoint written by train.py, or the run folder that holds it.
        config: the environment it will act in.
        seed: of policies that draw random numbers.

    Raises:
        PolicyError: no such name and no such file, an argument that does not exist or cannot be, or a checkpoint made
            for other spaces.
    """
    base, _, given = ALIASES.get(name, name).partition(":")
    if base in CATALOGUE:
        entry = CATALOGUE[base]
        arguments = _arguments(name, base, given, entry.arguments(config))
        try:
            return in_charge(entry.kind(**entry.given(config, seed), **arguments), config.actions)
        except ValueError as error:
            raise PolicyError(f"policy {name!r}: {error}") from error
    path = Path(name)
    if path.exists():
        from .learned import LearnedPolicy

        return LearnedPolicy(path, config)
    if path.suffix[1:].isalpha() or len(path.parts) > 1:
        raise PolicyError(f"checkpoint {name!r} does not exist: train one with train.py, or give one of "
                          f"{', '.join(CATALOGUE)}")
    near = difflib.get_close_matches(base, [*CATALOGUE, *ALIASES], 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise PolicyError(f"policy {name!r} is unknown: {hint}choose among {', '.join(CATALOGUE)}, "
                      "or give the path of a checkpoint")


def _arguments(name: str, base: str, text: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `key=value,key=value`, each of the type of its default."""
    found: dict[str, Any] = {}
    for part in text.split(",") if text or ":" in name else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise PolicyError(f"policy {name!r}: {part!r} is no argument: write {base}:key=value,key=value")
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            takes = f"it takes {', '.join(defaults)}" if defaults else "it takes none"
            raise PolicyError(f"policy {name!r}: {base} has no argument {key!r}: {hint}{takes}")
        if key in found:
            raise PolicyError(f"policy {name!r}: {key} is given twice: give it once")
        kind = type(defaults[key])
        try:
            found[key] = kind(value)
        except ValueError:
            wants = {int: "a whole number", float: "a number"}[kind]
            raise PolicyError(f"policy {name!r}: {key} is {value!r}: it must be {wants}") from None
    return found
