"""Motion from a trace file: CSV with the columns time, id, x, y (seconds and metres in the scene's coordinates).

UE i follows the i-th id, sorted as numbers when all ids are whole numbers, else as text. Positions in between are
linear. The ids in use must be there together for at least one episode; when they are for longer, each episode starts
at a moment that its seed draws, the same for all UEs.
"""

from __future__ import annotations

import csv
import difflib
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from ...errors import ConfigError
from .params import MobilityConfig

COLUMNS = ("time", "id", "x", "y")


class Tracks(NamedTuple):
    """Where the UEs of a trace are at every decision instant."""

    positions_m: np.ndarray  # float64 [U, T, 2] [m]
    starts: int  # an episode may begin at sample 0 ... starts - 1


class _Samples(NamedTuple):
    """The rows of one id."""

    line: np.ndarray  # [N], of the file, from 1
    time_s: np.ndarray  # [N]
    xy_m: np.ndarray  # [N, 2]


def tracks_of(mobility: MobilityConfig, scene, *, num_ues: int, interval_s: float,
              episode_s: float) -> Tracks | None:
    """The tracks that `mobility.trace` names, or None when UEs walk by themselves.

    Args:
        mobility: with `trace`, `max_gap_s` and `off_street_m`.
        scene: anything with street [H, W], origin_m and cell_size_m.
        num_ues: ids that are needed.
        interval_s: decision interval [s].
        episode_s: length of an episode [s].

    Raises:
        ConfigError: the file cannot be read or followed; names the line and the column.
    """
    if mobility.trace is None:
        return None
    path = Path(mobility.trace)
    samples = _read(path)
    names = sorted(samples, key=int if all(name.isdecimal() for name in samples) else str)[:num_ues]
    if len(names) < num_ues:
        raise ConfigError(f"{path}: column id: {len(names)} different ids for {num_ues} UEs: set num_ues to "
                          f"{len(names)} or less, or give a trace with more")
    for name in names:
        _check_gaps(path, name, samples[name], mobility.max_gap_s)
        _check_street(path, name, samples[name], scene, mobility.off_street_m)
    last_in = max(names, key=lambda name: samples[name].time_s[0])
    first_out = min(names, key=lambda name: samples[name].time_s[-1])
    begin_s, end_s = samples[last_in].time_s[0], samples[first_out].time_s[-1]
    count = int(np.floor((end_s - begin_s) / interval_s + 1e-6)) + 1
    starts = count - round(episode_s / interval_s)
    if starts < 1:
        raise ConfigError(f"{path}: column time: the first {num_ues} ids are there together for "
                          f"{max(0.0, end_s - begin_s):g} s only (id {last_in!r} begins at {begin_s:g} s, id "
                          f"{first_out!r} ends at {end_s:g} s): set episode_s, now {episode_s:g}, to that or less")
    at_s = begin_s + interval_s * np.arange(count)
    positions = np.empty((num_ues, count, 2))
    for u, name in enumerate(names):
        for axis in (0, 1):
            positions[u, :, axis] = np.interp(at_s, samples[name].time_s, samples[name].xy_m[:, axis])
    return Tracks(positions, starts)


def _read(path: Path) -> dict[str, _Samples]:
    """Parse and check the file row by row; the rows of each id."""
    rows: dict[str, list[tuple[int, float, float, float]]] = {}
    latest = -np.inf
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            place = _columns(path, next(reader, []))
            for row in reader:
                if not row:
                    continue
                line = reader.line_num
                if len(row) != len(COLUMNS):
                    _refuse(path, line, "", f"{len(row)} values, needs {len(COLUMNS)}")
                time_s, x, y = (_number(path, line, name, row[place[name]]) for name in ("time", "x", "y"))
                if time_s < latest:
                    _refuse(path, line, "time", f"{time_s:g} s comes after {latest:g} s: sort the rows by time")
                latest = time_s
                mine = rows.setdefault(row[place["id"]].strip(), [])
                if mine and time_s == mine[-1][1]:
                    _refuse(path, line, "id", f"{row[place['id']]!r} was at {time_s:g} s already, in line "
                                              f"{mine[-1][0]}: give one row per id and time")
                mine.append((line, time_s, x, y))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"mobility.trace {str(path)!r} cannot be read ({reason}): give a CSV file with the columns "
                          f"{', '.join(COLUMNS)}") from error
    if not rows:
        _refuse(path, 2, "", "no rows: a trace needs at least one")
    found = {}
    for name, mine in rows.items():
        table = np.array(mine)
        found[name] = _Samples(table[:, 0].astype(np.int64), table[:, 1], table[:, 2:])
    return found


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """The place of each column in a row."""
    names = [name.strip() for name in header]
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name.lower(), COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(COLUMNS)}"
            _refuse(path, 1, name, f"unknown column; {hint}")
    for name in COLUMNS:
        if names.count(name) != 1:
            _refuse(path, 1, name, f"stands {names.count(name)} times in the header, needs 1")
    return {name: names.index(name) for name in COLUMNS}


def _number(path: Path, line: int, name: str, text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        _refuse(path, line, name, f"{text!r} is not a number")
    if not np.isfinite(value):
        _refuse(path, line, name, f"{text} is not finite")
    return value


def _check_gaps(path: Path, name: str, mine: _Samples, max_gap_s: float) -> None:
    """Refuse an id that is not there for longer than `max_gap_s`: nobody knows which street it took."""
    gaps = np.diff(mine.time_s)
    wide = np.flatnonzero(gaps > max_gap_s + 1e-9)
    if wide.size:
        _refuse(path, int(mine.line[wide[0] + 1]), "time", f"id {name!r} was last seen {gaps[wide[0]]:g} s before: "
                f"fill the gap, or raise mobility.max_gap_s ({max_gap_s:g} s)")


def _check_street(path: Path, name: str, mine: _Samples, scene, tolerance_m: float) -> None:
    """Refuse a point farther than `tolerance_m` from every street cell (a square of cell_size_m)."""
    pitch = scene.cell_size_m
    height, width = scene.street.shape
    at = (mine.xy_m - np.asarray(scene.origin_m)) / pitch  # column, row; a cell reaches half a unit around its centre
    reach = int(np.ceil(tolerance_m / pitch + 0.5))
    nearest = np.rint(np.clip(at, -1e6, 1e6)).astype(np.int64)
    on_street = np.zeros(len(at), bool)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            column, row = nearest[:, 0] + right, nearest[:, 1] + down
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            street = inside & scene.street[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            away = np.maximum(np.abs(at - np.stack([column, row], -1)) - 0.5, 0.0) * pitch
            on_street |= street & (np.hypot(away[:, 0], away[:, 1]) <= tolerance_m + 1e-9)
    if not on_street.all():
        k = int(np.flatnonzero(~on_street)[0])
        _refuse(path, int(mine.line[k]), "x, y", f"id {name!r} is at ({mine.xy_m[k, 0]:g}, {mine.xy_m[k, 1]:g}), more "
                f"than {tolerance_m:g} m from any street of the scene: correct it, or raise mobility.off_street_m")


def _refuse(path: Path, line: int, column: str, message: str) -> NoReturn:
    at = f"{path}:{line}: column {column}: " if column else f"{path}:{line}: "
    raise ConfigError(at + message)
