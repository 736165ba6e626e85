"""What a dataclass of settings accepts: `build` fills it from a mapping, `describe` lists its keys.

Values are converted only where nothing is lost (1 may become 1.0; "3" never becomes 3), and every refusal
is one line that names the dotted key, the value and what was expected.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError

T = TypeVar("T")

# YAML 1.1 readers return 1e6 and 1.0e6 as text: their exponent needs both a dot and a sign.
_EXPONENT_TEXT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+")


def build(cls: type[T], mapping: Mapping[str, Any] | None, *, where: str = "config") -> T:
    """Build the dataclass `cls` from a mapping; keys that are absent keep their defaults.

    Nested dataclasses, `tuple[X, ...]`, `tuple[X, Y]`, `list[X]`, `dict[K, V]`, `Literal`, unions and the
    scalars are understood. A partly given section keeps the rest of its owner's default for that section.

    Args:
        cls: a dataclass.
        mapping: key to value, nested; None is an empty mapping.
        where: what the messages start with, such as the file name.

    Raises:
        ConfigError: an unknown or missing key, a value of another type, or a value that `__post_init__`
            refuses with a ValueError.
    """
    return _section(cls, {} if mapping is None else mapping, where, "", None)


def describe(cls: type) -> list[tuple[str, str, Any]]:
    """Return (dotted key, type, default) of every setting of a dataclass, in order of declaration.

    A section is walked into; a section that is None by default is one entry. A setting without a default
    has `dataclasses.MISSING`.
    """
    return _walk(cls, None, "")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the known name closest to `name`, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def show(value: Any) -> str:
    """Return a value as an error message quotes it: its repr, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _section(cls: Any, mapping: Any, where: str, key: str, base: Any) -> Any:
    """Build one dataclass; `base` is its owner's default for it, or None."""
    if isinstance(mapping, cls):
        return mapping
    at = f"{where}: {key}" if key else where
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{at} = {show(mapping)}; expected a section (mapping) of {cls.__name__} settings")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    for name in mapping:
        if name not in fields:
            raise ConfigError(f"{where}: unknown key {_join(key, name)!r}{_suggest(cls, name, key)}")
    values = _departures(cls, base)
    for name, field in fields.items():
        if name in mapping:
            default = values[name] if name in values else _default(field)
            values[name] = _convert(hints[name], mapping[name], where, _join(key, name), default)
        elif name not in values and _default(field) is dataclasses.MISSING:
            raise ConfigError(f"{where}: {_join(key, name)} is missing; set it to {_name(hints[name])}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{at}: {' '.join(str(error).split())}") from error


def _convert(hint: Any, value: Any, where: str, key: str, default: Any) -> Any:
    """Return `value` as `hint`, losing nothing, or raise ConfigError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        # A section whose keys are all commented out is read as None and means the default.
        return _section(hint, {} if value is None else value, where, key, default)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where, key, default, _name(hint))
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        open_ended = origin is list or args[-1] is Ellipsis
        hints = [args[0]] * len(value) if open_ended else args
        if len(hints) == len(value):
            items = (
                _convert(h, v, where, f"{key}[{i}]", None)
                for i, (h, v) in enumerate(zip(hints, value, strict=True))
            )
            return origin(items)
    elif origin is dict and isinstance(value, Mapping):
        keys = (_convert(args[0], k, where, f"key of {key}", None) for k in value)
        values = (_convert(args[1], v, where, _join(key, k), None) for k, v in value.items())
        return dict(zip(keys, values, strict=True))
    elif origin is typing.Literal:
        for choice in args:
            if type(choice) is type(value) and choice == value:
                return choice
        near = nearest(str(value), [str(choice) for choice in args])
        raise ConfigError(f"{where}: {key} = {show(value)}; expected {_name(hint)}{near}")
    elif hint in (Any, object, type(value)):
        return value
    elif isinstance(value, bool):
        pass  # a bool is an int to Python, and a mistake to a reader
    elif hint is float:
        if isinstance(value, str) and _EXPONENT_TEXT.fullmatch(value):
            return float(value)
        if isinstance(value, int) and _as_float(value) == value:
            return float(value)
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif hint is tuple and isinstance(value, list):
        return tuple(value)
    elif hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    raise ConfigError(f"{where}: {key} = {show(value)}; expected {_name(hint)}")


def _convert_union(args: tuple, value: Any, where: str, key: str, default: Any, name: str) -> Any:
    """Return `value` as the member of the union that it fits best: its own type first."""
    if value is None and type(None) in args:
        return None
    members = sorted((a for a in args if a is not type(None)), key=lambda a: type(value) is not a)
    for member in members:
        try:
            return _convert(member, value, where, key, default)
        except ConfigError:
            # With one candidate its own message is the precise one, unless it only repeats the type.
            container = isinstance(value, (Mapping, Sequence)) and not isinstance(value, str)
            if len(members) == 1 and container:
                raise
    raise ConfigError(f"{where}: {key} = {show(value)}; expected {name}")


def _departures(cls: Any, base: Any) -> dict[str, Any]:
    """Return what an owner's default for a section sets differently from the section's own defaults.

    Copying every value of `base` would also copy those that `__post_init__` derived from other settings.
    """
    if type(base) is not cls:
        return {}
    defaults = {f.name: _default(f) for f in dataclasses.fields(cls) if f.init}
    plain = None if dataclasses.MISSING in defaults.values() else cls()
    if plain is not None:
        defaults = {name: getattr(plain, name) for name in defaults}
    return {name: getattr(base, name) for name, value in defaults.items() if getattr(base, name) != value}


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _walk(cls: Any, base: Any, prefix: str) -> list[tuple[str, str, Any]]:
    hints = typing.get_type_hints(cls)
    rows: list[tuple[str, str, Any]] = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        hint, key = hints[field.name], _join(prefix, field.name)
        default = _default(field) if base is None else getattr(base, field.name)
        if dataclasses.is_dataclass(default):
            rows += _walk(type(default), default, key)
        elif dataclasses.is_dataclass(hint):
            rows += _walk(hint, None, key)
        else:
            rows.append((key, _name(hint), default))
    return rows


def _name(hint: Any) -> str:
    """Return a type as a reader writes it: `tuple[float, ...]`, `int | None`, `'a' or 'b'`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join("None" if a is type(None) else _name(a) for a in args)
    if origin is typing.Literal:
        return " or ".join(repr(a) for a in args)
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else _name(a) for a in args)
        return f"{origin.__name__}[{inner}]"
    return getattr(hint, "__name__", str(hint))


def _suggest(cls: Any, name: Any, key: str) -> str:
    """Return the nearest setting, the same name in a deeper section, or else all the names."""
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    deeper = {dotted.rpartition(".")[2]: dotted for dotted, _, _ in describe(cls)}
    near = difflib.get_close_matches(str(name), names, n=1) or [n for n in names if n.startswith(str(name))]
    far = [deeper[n] for n in difflib.get_close_matches(str(name), deeper, n=1)]
    for candidate in [deeper[name]] if name in deeper else near + far:
        return f"; did you mean {_join(key, candidate)!r}?"
    return f"; known keys: {', '.join(_join(key, n) for n in names)}"


def _join(prefix: str, name: Any) -> str:
    name = " ".join(str(name).split())  # a message is one line, whatever the keys of a dict are
    return f"{prefix}.{name}" if prefix else name


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.nan
