"""The folder of an evaluation: what may be written into it, asked before an hour is spent on its content."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..agents.learned import BEST, LAST
from ..errors import ConfigError

RESULTS = "results.json"


def check_writable(folder: Path) -> None:
    """Refuse a folder that could not be written to or listed, and the run folder of a training.

    Raises:
        ConfigError: it is one of those.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--out {str(folder)!r} cannot be written: {str(there)!r} is not a folder that can be "
                          "written to")
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"--out {str(folder)!r} cannot be read: give another folder")
    if (folder / BEST).exists() or (folder / LAST).exists():
        raise ConfigError(f"--out {str(folder)!r} is the run folder of a training: give a folder of its own, such as "
                          f"{str(folder / 'evaluation')!r}")


def check_same(folder: Path, scenarios: Iterable[str], policies: Iterable[str]) -> None:
    """Refuse a folder whose results are of another evaluation: one with no policy in no scenario in common.

    An evaluation may go on in its folder with more policies, scenarios or episodes, or with changed ones.

    Args:
        folder: of the evaluation.
        scenarios: names of those that will be played.
        policies: names of those that will play.

    Raises:
        ConfigError: it is one.
    """
    try:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        before = _scenarios(found), list(found["policies"])
    except (OSError, ValueError, KeyError, TypeError):
        # Nothing there that could be lost.
        return
    if not (set(before[0]) & set(scenarios) and set(before[1]) & set(policies)):
        raise ConfigError(f"--out {str(folder)!r} holds another evaluation ({_few(before[1])} in {_few(before[0])}): "
                          "give another folder, or --fresh to replace it")


def _scenarios(results: Mapping[str, Any]) -> list[str]:
    return list(results["by_scenario"]) if "by_scenario" in results else [results["scenario"]]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
