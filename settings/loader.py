"""Fill frozen dataclasses from YAML files, shipped or the user's own, with overrides from the command line.

The dataclasses are the only definition of the settings; a YAML file may set any of them and can add none.
"""

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from .fields import build, describe, nearest, show
from .yaml12 import parse

__all__ = ["build", "describe", "fingerprint", "load", "missing_keys", "overridden", "read", "shipped", "to_dict"]

T = TypeVar("T")

# The package whose YAML files can be named without a path.
_SHIPPED = "kvroam.configs"
_OVERRIDE_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")


def load(cls: type[T], path_or_name: str | Path, overrides: Iterable[str] = ()) -> T:
    """Build `cls` from a YAML file, or from a file shipped in `kvroam.configs`.

    Args:
        cls: a dataclass.
        path_or_name: path of a YAML file, or the name of a shipped one ("handover").
        overrides: "key.sub=value" strings, the value read as YAML; later ones win, all win over the file.

    Raises:
        ConfigError: the file is missing or is not YAML, an override has no such form, or `build` refuses.
    """
    return build(cls, read(path_or_name, overrides), where=str(path_or_name))


def read(path_or_name: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the mapping in a YAML file, or in a shipped file of that name, with overrides, unchecked.

    A file that says `base: NAME` starts from that file (shipped, or relative to itself) and states what differs.

    Raises:
        ConfigError: there is no such file, it cannot be read, it does not hold one YAML mapping, or files are
            based on each other in a circle.
    """
    return overridden(_read(path_or_name, ()), overrides)


def overridden(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of the mapping with the values that "key.sub=value" strings name.

    Raises:
        ConfigError: an override has no such form, or names a key in something that is not a section.
    """
    changed = dict(mapping)
    for override in overrides:
        _apply(changed, override)
    return changed


def _read(path_or_name: str | Path, seen: tuple[str, ...]) -> dict[str, Any]:
    mapping = _parse_file(path_or_name)
    base = mapping.pop("base", None)
    if base is None:
        return mapping
    if not isinstance(base, str):
        raise ConfigError(f"{path_or_name}: base is {show(base)}; it must be the name or path of another file")
    if str(path_or_name) in seen:
        raise ConfigError(f"{path_or_name}: based on itself ({' -> '.join([*seen, str(path_or_name)])}); "
                          "remove one base")
    beside = Path(path_or_name).parent / base
    origin = base if base in shipped() or not beside.exists() else beside
    return _merged(_read(origin, (*seen, str(path_or_name))), mapping)


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with the values of `over`, section by section."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _parse_file(path_or_name: str | Path) -> dict[str, Any]:
    name, path = " ".join(str(path_or_name).split()), Path(path_or_name)
    try:
        if name in shipped():
            text = resources.files(_SHIPPED).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        elif path.exists():
            text = path.read_text(encoding="utf-8")
        else:
            near = nearest(path.stem, shipped())
            raise ConfigError(f"{name}: no such file; shipped names: {', '.join(shipped()) or 'none'}{near}")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror}); give a YAML file") from None
    value = parse(text, name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: holds {show(value)}; the file must be a mapping of keys to values")
    return value


def shipped() -> tuple[str, ...]:
    """Return the names of the YAML files that ship in `kvroam.configs`, sorted."""
    names = (entry.name for entry in resources.files(_SHIPPED).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def to_dict(obj: Any) -> Any:
    """Return a dataclass (or a container of them) as dicts, lists and scalars that JSON can hold.

    Fields that only `__post_init__` sets are left out, so `build(cls, to_dict(obj))` equals `obj`.
    """
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: to_dict(getattr(obj, f.name)) for f in dataclasses.fields(obj) if f.init}
    if isinstance(obj, Mapping):
        return {str(key): to_dict(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [to_dict(value) for value in obj]
    if isinstance(obj, enum.Enum):
        return to_dict(obj.value)
    if isinstance(obj, Path):
        return str(obj)
    # numpy scalars and arrays, without importing numpy.
    return obj.tolist() if hasattr(obj, "tolist") else obj


def fingerprint(obj: Any) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of the canonical JSON of `to_dict(obj)`.

    Equal settings have equal fingerprints: 1 and 1.0 count as the same number.
    """
    text = json.dumps(_whole_numbers(to_dict(obj)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def missing_keys(cls: type, mapping: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys of `describe(cls)` that the mapping does not set."""

    def is_set(dotted: str) -> bool:
        value: Any = mapping
        for part in dotted.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return False
            value = value[part]
        return True

    return [key for key, _, _ in describe(cls) if not is_set(key)]


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _apply(mapping: dict[str, Any], override: str) -> None:
    """Set the value that "key.sub=value" names, creating sections on the way."""
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    if not equals or not _OVERRIDE_KEY.fullmatch(dotted):
        raise ConfigError(f"override {show(override)}: expected key=value or section.key=value")
    *sections, last = dotted.split(".")
    value = parse(text, f"override {show(override)}")
    node = mapping
    for depth, name in enumerate(sections):
        if node.get(name) is None:
            node[name] = {}
        if not isinstance(node[name], dict):
            section = ".".join(sections[: depth + 1])
            raise ConfigError(f"override {show(override)}: {section} is {show(node[name])}, not a section")
        # A copy, because YAML aliases let two sections be one object.
        node[name] = dict(node[name])
        node = node[name]
    node[last] = value
