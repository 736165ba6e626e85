"""Arguments of a policy as text: `key=value,key=value`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import PolicyError

_TYPES: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str)}
_NEAR = 0.4  # least likeness of a key that is suggested: the keys are few, and all of them are listed behind it
_WANTED = {bool: "true or false", int: "a whole number", float: "a number"}


def types_of(parameters: Mapping[str, inspect.Parameter]) -> dict[str, type | None]:
    """The type of each parameter, by its default or else its annotation; None where neither says one of _TYPES."""
    found: dict[str, type | None] = {}
    for name, parameter in parameters.items():
        hint = parameter.annotation
        kind = type(parameter.default) if parameter.default is not parameter.empty else hint
        found[name] = _TYPES.get(kind if isinstance(kind, str) else getattr(kind, "__name__", ""))
    return found


def parsed(policy: str, owner: str, text: str | None, types: Mapping[str, type | None],
           any_key: bool = False) -> dict[str, Any]:
    """The arguments that `text` gives, each of the type that `types` asks for.

    Args:
        policy: as the user wrote it, for messages.
        owner: what takes the arguments, `owner:key=value`.
        text: after the colon; None where there is no colon.
        types: of the arguments; None reads a number, true, false or text.
        any_key: whether other arguments are taken as well.

    Raises:
        PolicyError: an argument that does not exist, is given twice, or is of another type.
    """
    found: dict[str, Any] = {}
    for part in () if text is None else text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise PolicyError(f"policy {policy!r}: {part!r} is not an argument: write {owner}:key=value,key=value")
        if key not in types and not any_key:
            near = difflib.get_close_matches(key, types, 1, _NEAR)
            hint = f"did you mean {near[0]}? " if near else ""
            takes = f"it takes {', '.join(types)}" if types else "it takes none"
            raise PolicyError(f"policy {policy!r}: {owner} has no argument {key!r}: {hint}{takes}")
        if key in found:
            raise PolicyError(f"policy {policy!r}: {key} is given twice: give it once")
        kind = types.get(key)
        try:
            found[key] = _guessed(value) if kind is None else _truth(value) if kind is bool else kind(value)
        except ValueError:
            wanted = _WANTED[kind] if kind else ""
            raise PolicyError(f"policy {policy!r}: {key} is {value!r}: it must be {wanted}") from None
    return found


def _truth(text: str) -> bool:
    """true or false."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _guessed(text: str) -> Any:
    """A number, true or false where it reads as one; else the text."""
    readers: tuple[Callable[[str], Any], ...] = (int, float, _truth)
    for read in readers:
        try:
            return read(text)
        except ValueError:
            continue
    return text
