"""A workload trace in BurstGPT's CSV format: the gaps between requests and the lengths of their answers.

Source: https://github.com/HPMLL/BurstGPT (arXiv 2401.17644): columns Timestamp, Model, Request tokens, Response tokens,
Total tokens, Log Type; a failed request has 0 response tokens.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import ConfigError

COLUMNS = ("Timestamp", "Response tokens")  # that are read; a file may have any others


class Trace(NamedTuple):
    """The answered requests of a trace, in order; a failed request only lengthens the gap before the next one."""

    gap_s: np.ndarray  # float64 [N], since the answered request before; the first has the mean of the others [s]
    response_tokens: np.ndarray  # float64 [N]


def read_trace(path: str | Path) -> Trace:
    """Read a trace file.

    Args:
        path: a CSV file with a header and the columns COLUMNS, in any order; further columns are ignored.

    Raises:
        ConfigError: the file cannot be read; a column of COLUMNS is missing or there twice; a value in one is absent,
            not a number, not finite or negative; time runs backwards; fewer than two answered requests, or all at one
            instant. The message names file, line and column.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            return _parse(str(path), csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {str(path)!r} cannot be read as a CSV file: {error}") from error


def _parse(path: str, rows) -> Trace:
    header = [name.strip() for name in next(rows, [])]
    for name in COLUMNS:
        if header.count(name) != 1:
            raise ConfigError(f"{path}, line 1: column {name!r} occurs {header.count(name)} times; it is needed once "
                              f"(the columns are {', '.join(header) or 'none'})")
    place = {name: header.index(name) for name in COLUMNS}
    times: list[float] = []
    tokens: list[float] = []
    before = 0.0
    for row in rows:
        at = f"{path}, line {rows.line_num}"
        if not row:
            raise ConfigError(f"{at}: the line is empty; remove it, a trace has no gaps")
        if len(row) != len(header):
            raise ConfigError(f"{at}: {len(row)} values for {len(header)} columns; give one value per column")
        numbers = {name: _number(at, name, row[place[name]]) for name in COLUMNS}
        if numbers["Timestamp"] < before:
            raise ConfigError(f"{at}, column 'Timestamp': {row[place['Timestamp']]} comes after {before:g}; "
                              "sort the file by time")
        before = numbers["Timestamp"]
        if numbers["Response tokens"] > 0:
            times.append(before)
            tokens.append(numbers["Response tokens"])
    if len(times) < 2 or times[-1] == times[0]:
        raise ConfigError(f"{path}: {len(times)} answered requests over {times[-1] - times[0] if times else 0:g} s; "
                          "at least 2 at different times are needed")
    gap = np.diff(np.array(times))
    return Trace(np.r_[gap.mean(), gap], np.array(tokens))


def _number(at: str, name: str, text: str) -> float:
    """The value of one cell, finite and not negative."""
    if not text.strip():
        raise ConfigError(f"{at}, column {name!r}: the value is missing; fill it in or remove the line")
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{at}, column {name!r}: {text!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise ConfigError(f"{at}, column {name!r}: {text} must be finite and not negative")
    return value
