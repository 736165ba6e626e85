"""Finished units on disk, so that an evaluation that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, KvroamWarning
from ..files import make_folder, write_whole
from ..settings.loader import fingerprint
from .units import Played, Unit

FOLDER = "episodes"
FORMAT = 1
_CHECK = "sha256"


class Store:
    """The folder FOLDER in the folder of an evaluation: one small JSON file per unit.

    A file is named after the fingerprint of all that its numbers depend on (`identity.made_by`), so what was made in
    another way is not found and is never mixed in. It holds the hash of its own content.

    Args:
        folder: of the evaluation.
        fresh: what is there is not used, and is replaced.
        say: told in a line how much was there.

    Raises:
        ConfigError: the folder cannot be read.
    """

    def __init__(self, folder: Path, fresh: bool = False, say: Callable[[str], Any] | None = None) -> None:
        self.folder, self.fresh, self._say = folder / FOLDER, fresh, say
        try:
            there = list(self.folder.iterdir()) if self.folder.exists() else []
        except OSError as error:
            raise ConfigError(f"{str(self.folder)!r} cannot be read ({error.strerror}): give another --out") from error
        self._names = {path.name for path in there}

    def tell(self, found: int, wanted: int) -> None:
        """Say how many of the episodes that are wanted were there, if any were."""
        if found and self._say is not None:
            self._say(f"{found} of {wanted} episodes are in {self.folder} already")

    def get(self, unit: Unit, made_by: Mapping[str, Any]) -> Played | None:
        """What was stored of a unit; None, with a warning where there is a file, if it has to be played.

        Raises:
            ConfigError: the system refuses to read it.
        """
        path = self._path(unit, made_by)
        if self.fresh or path.name not in self._names:
            return None
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror}): give another --out, or --fresh"
                              ) from error
        except UnicodeDecodeError:
            text = ""
        found = _unpacked(text)
        if found is None or found["made_by"] != _plain(made_by) or found["seeds"] != list(unit.seeds):
            warnings.warn(f"{path} is damaged: its {len(unit.seeds)} episodes of {unit.policy!r} are played again",
                          KvroamWarning, stacklevel=2)
            return None
        return Played(_rows(found["metrics"], len(unit.seeds)), _rows(found["parts"], len(unit.seeds)),
                      found["wall_s"])

    def put(self, unit: Unit, made_by: Mapping[str, Any], played: Played) -> None:
        """Keep a unit; the file is there whole or not at all.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        content = {"format": FORMAT, "scenario": unit.scenario, "policy": unit.policy, "made_by": _plain(made_by),
                   "seeds": list(unit.seeds), "wall_s": played.wall_s,
                   "metrics": _columns(played.metrics), "parts": _columns(played.parts)}
        text = json.dumps(content | {_CHECK: _hash(content)}, indent=1)
        make_folder(self.folder)
        write_whole(self._path(unit, made_by), lambda draft: draft.write_text(text + "\n", encoding="utf-8"))

    def _path(self, unit: Unit, made_by: Mapping[str, Any]) -> Path:
        return self.folder / f"{fingerprint(made_by)}.{unit.seeds[0]}-{unit.seeds[-1]}.json"


def _plain(value: Any) -> Any:
    """What JSON makes of it."""
    return json.loads(json.dumps(value))


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _unpacked(text: str) -> dict[str, Any] | None:
    """The content of a file; None if it is not as it was written."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return found if found.pop(_CHECK, None) == _hash(found) else None


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[Any]]:
    """{NAME: [value per episode]}; NaN is null, infinity text: strict JSON has neither."""
    return {name: [_written(row[name]) for row in rows] for name in rows[0]}


def _rows(columns: Mapping[str, Sequence[Any]], count: int) -> tuple[dict[str, float], ...]:
    """One {NAME: value} per episode."""
    return tuple({name: math.nan if values[k] is None else float(values[k]) for name, values in columns.items()}
                 for k in range(count))


def _written(value: float) -> float | str | None:
    return value if math.isfinite(value) else None if math.isnan(value) else str(value)
