"""A file of results that grows: one row per environment, scenario, policy and configuration.

    python evaluate.py --config grid --policies ctho runs/ppo --leaderboard docs/leaderboard.json
    python -m kvroam.evaluation.leaderboard docs/leaderboard.json --readme README.md

The first command writes rows, and nothing else does; the second makes a page of them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import commands
from ..errors import KvroamError
from ..files import make_folder, write_whole
from .leaderboard_page import MARKERS, block, page

FORMAT = 1
IDENTITY = ("environment", "scenario", "policy", "config")
_KEYS = (*IDENTITY, "kind", "episodes", "seed", "metrics", "command")
_ESTIMATES = ("mean", "iqm", "ci_low", "ci_high", "n")

Row = dict[str, Any]


def rows_of(results: Mapping[str, Any]) -> list[Row]:
    """The rows of an evaluation.

    Args:
        results: as in `report`; one scenario has its name in "scenario".

    Returns:
        Per scenario and policy: `environment` (its id), `policy`, `kind` (learned, heuristic, constant or upper_bound),
        `scenario`, `episodes`, `seed` (of the first), `config` (the fingerprint of the scenario's settings),
        `metrics.METRIC` (`mean`, `iqm`, the interval `ci_low` to `ci_high` of the mean, None where it is unknown, and
        `n`, the episodes that count), and the `command` that they come from.
    """
    parts = results.get("by_scenario") or {results.get("scenario", ""): results}
    return [{"environment": part["environment"], "scenario": scenario, "policy": name, "kind": policy["kind"],
             "config": part["fingerprint"], "episodes": len(part["seeds"]), "seed": part["seeds"][0],
             "command": results.get("command", ""),
             "metrics": {metric: {key: _plain(entry[key]) for key in _ESTIMATES}
                         for metric, entry in policy["summary"].items()}}
            for scenario, part in parts.items() for name, policy in part["policies"].items()]


def read(path: Path) -> list[Row]:
    """The rows of a leaderboard file; none where there is no file.

    Raises:
        KvroamError: it cannot be read, or is none.
    """
    if not path.exists():
        return []
    remedy = "name a file that evaluate.py --leaderboard wrote, or a new one"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KvroamError(f"{path}: no leaderboard ({error}): {remedy}") from error
    made = found.get("format") if isinstance(found, dict) else None
    if made != FORMAT:
        raise KvroamError(f"{path}: has format {made!r}, this version reads {FORMAT}: {remedy}")
    for row in found.get("rows", ()):
        absent = [key for key in _KEYS if key not in row]
        if absent:
            raise KvroamError(f"{path}: a row has no {', '.join(absent)}: {remedy}")
    return list(found["rows"])


def merged(there: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Rows in a fixed order; a new one replaces the one of the same environment, scenario, policy and settings."""
    found = {tuple(row[key] for key in IDENTITY): row for row in (*there, *new)}
    return [found[key] for key in sorted(found)]


def add(path: Path, results: Mapping[str, Any]) -> None:
    """Merge the rows of an evaluation into a leaderboard file, which is there whole or not at all.

    Raises:
        KvroamError: the file is no leaderboard, or cannot be written.
    """
    rows = merged(read(path), rows_of(results))
    lines = ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    text = f'{{"format": {FORMAT}, "rows": [\n{lines}\n]}}\n'
    make_folder(path.parent)
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def rewritten(text: str, new: str, where: str) -> str:
    """The text with `new` between its two marker lines.

    Raises:
        KvroamError: the markers are not there, once each and in their order.
    """
    begin, end = MARKERS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise KvroamError(f"{where}: needs one line {begin!r} and below it one line {end!r}: put them where the "
                          "leaderboard shall stand")
    return text[:text.index(begin) + len(begin)] + "\n" + new + text[text.index(end):]


def _plain(value: float) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.json", help="written by evaluate.py --leaderboard")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="page to write (default: FILE.md beside it)")
    parser.add_argument("--readme", type=Path, metavar="FILE.md",
                        help=f"also put a short table between {MARKERS[0]} and {MARKERS[1]} in this file")


def _execute(args: argparse.Namespace) -> None:
    if not args.file.exists():
        raise KvroamError(f"{args.file} does not exist: make it with evaluate.py --leaderboard {args.file}")
    rows, out = read(args.file), args.page or args.file.with_suffix(".md")
    if not rows:
        raise KvroamError(f"{args.file} has no rows: add some with evaluate.py --leaderboard {args.file}")
    written = [out]
    if args.readme is not None:
        try:
            text = args.readme.read_text(encoding="utf-8")
        except OSError as error:
            raise KvroamError(f"{args.readme} cannot be read ({error.strerror}): name a Markdown file") from error
        changed = rewritten(text, block(rows), str(args.readme))
        write_whole(args.readme, lambda draft: draft.write_text(changed, encoding="utf-8"))
        written.append(args.readme)
    write_whole(out, lambda draft: draft.write_text(page(rows, args.file.name), encoding="utf-8"))
    print("written:", ", ".join(map(str, written)))


command = commands.Command("python -m kvroam.evaluation.leaderboard", __doc__, _options, _execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
