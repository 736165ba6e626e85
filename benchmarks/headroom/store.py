"""Rows that outlive a killed run: one line of JSON each, behind a first line that says how they were made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kvroam.errors import ConfigError


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
        if whole and whole[0].rstrip("\n") != head:
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
