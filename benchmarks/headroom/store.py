"""Rows that outlive a killed run: one line of JSON each, behind a first line that says how they were made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvroam import commands
from kvroam.errors import ConfigError

PROGRAM = "python -m kvroam.benchmarks.headroom"


class Store:
    """A file of rows that only grows.

    Args:
        path: the file; its folder is there.
        made_by: settings that rows depend on, as plain data.

    Raises:
        ConfigError: the file has rows of other settings.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any]) -> None:
        self.path, self.rows = path, []
        head = json.dumps(made_by, sort_keys=True)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A run that was killed may have left half a line.
        whole = [line for line in lines if line.endswith("\n")]
        if whole and json.loads(whole[0]) != json.loads(head):
            raise ConfigError(f"{str(path)!r} has results of other settings ({whole[0].strip()}): give another --out, "
                              "or delete it")
        self.rows = [json.loads(line) for line in whole[1:]]
        if whole != lines or not whole:
            path.write_text("".join(whole) or head + "\n", encoding="utf-8")

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep rows, all or none of a call."""
        new = list(rows)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in new))
        self.rows += new


@dataclass(frozen=True)
class Source:
    """Rows, and the settings that they were made by."""

    made_by: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    def command(self) -> str:
        """The command that makes these rows again."""
        seeds = [row["seed"] for row in self.rows]
        names = dict.fromkeys(row["scenario"] for row in self.rows)
        budgets = [f"--{key.replace('_', '-')} {self.made_by[key]:g}" for key in ("budget", "lever_budget")
                   if key in self.made_by]
        return " ".join([PROGRAM, "--scenarios", *names, f"--episodes {max(seeds) - min(seeds) + 1}",
                         f"--seed {min(seeds)}", *budgets]) + commands.settings_of(self.made_by.get("set", []))


def read(paths: Sequence[Path]) -> list[Source]:
    """The rows of runs that were made apart.

    Raises:
        ConfigError: a file cannot be read, has no rows, or has rows that another one has too.
    """
    sources: list[Source] = []
    seen: dict[tuple[Any, ...], Path] = {}
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror}): give the rows.jsonl of a run"
                              ) from error
        head, *rows = [json.loads(line) for line in lines if line.endswith("\n")] or [{}]
        if not rows:
            raise ConfigError(f"{str(path)!r} has no rows: give the rows.jsonl of a run that has begun")
        for row in rows:
            key = (row["scenario"], row["kind"], row["name"], row["seed"])
            if key in seen:
                raise ConfigError(f"{str(path)!r} and {str(seen[key])!r} both have episode {row['seed']} of "
                                  f"{row['name']!r} in {row['scenario']!r}: give one of them")
            seen[key] = path
        sources.append(Source(head, rows))
    return sources
