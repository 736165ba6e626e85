"""Results of an evaluation as files: JSON, tables, figures and a page.

A results dictionary is {"format": FORMAT, "kvroam": version, "environment", "config", "fingerprint", "versions",
"machine", "seeds": [...], "policies": {NAME: {"kind", "episodes": {METRIC: [one value per seed]}, "parts": {TERM: [the
same, what that term of the reward cost]}, "summary": {METRIC: {...}}, "wall_s": s}}, "paired": {REFERENCE: {NAME:
{METRIC: difference}}}}; over several scenarios also "scenarios" and "by_scenario" (evaluate.py).
NaN in an episode means that it has nothing to measure, and as an end of an interval that it is unknown; JSON has it
as null.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import KvroamError
from . import figures
from .estimates import iqm, iqm_interval, mean, mean_interval
from .metrics import number
from .page import page
from .provenance import machine, versions
from .tables import (
    FEW,
    all_tables,
    difference,
    markdown_table,
    paired_scenario_table,
    paired_table,
    scenario_table,
    terminal_table,
)

__all__ = [
    "FEW",
    "FORMAT",
    "difference",
    "machine",
    "markdown_table",
    "paired_scenario_table",
    "paired_table",
    "read_results",
    "scenario_table",
    "summarise",
    "terminal_table",
    "versions",
    "write_results",
]

# Of results.json. 1, which did not say so, had percentile bootstrap intervals and no ratios; 2 had no parts of the
# cost, no kinds of policies and no fingerprints.
FORMAT = 3


def summarise(
    episodes: Mapping[str, Sequence[float]], strata: Sequence[Any] | None = None
) -> dict[str, dict[str, float]]:
    """Summarise each metric over the episodes of one policy.

    Args:
        episodes: metric name to one value per episode; NaN (or None) does not count.
        strata: one label per episode, such as the scene; only the spread within each counts.

    Returns:
        Per metric: `mean` with its 95 % interval `ci_low` to `ci_high`, the interquartile mean `iqm` with
        `iqm_low` to `iqm_high`, and `n`, the episodes that count. Unknown ends are NaN (see estimates.py).
    """
    summary = {}
    for name, values in episodes.items():
        numbers = [number(value) for value in values]
        kept = [value for value in numbers if not math.isnan(value)]
        of_mean = mean_interval(numbers, strata=strata)
        of_iqm = iqm_interval(numbers, strata=strata)
        summary[name] = {
            "mean": float(mean(kept)),
            "ci_low": of_mean.low,
            "ci_high": of_mean.high,
            "iqm": float(iqm(kept)),
            "iqm_low": of_iqm.low,
            "iqm_high": of_iqm.high,
            "n": len(kept),
        }
    return summary


def write_results(out_dir: str | Path, results: Mapping[str, Any], runs: Mapping[str, Path] | None = None,
                  ) -> dict[str, Path]:
    """Write results.json, table.md, the figures that apply, and report.html into a folder.

    The folder is created if absent. Each file is written beside its destination and then moved over it, after all
    have been made: a crash leaves the earlier results whole. Figures of earlier results that do not apply any more are
    removed.

    Args:
        out_dir: the folder.
        results: see the module.
        runs: run folders of the learned policies, whose learning curves are drawn.

    Returns:
        File name to path.

    Raises:
        KvroamError: the folder cannot be created or written to.
    """
    folder, drawn = Path(out_dir), figures.figures(results, runs)
    finals = {name: folder / name for name in ("results.json", "table.md", *drawn, "report.html")}
    # Named after the process, so that two evaluations into one folder do not share a temporary file.
    drafts = {name: folder / f".{os.getpid()}.tmp.{name}" for name in finals}
    text = _dump(_plain(results)) + "\n"
    tables = all_tables(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drafts["results.json"].write_text(text, encoding="utf-8")
        drafts["table.md"].write_text(tables, encoding="utf-8")
        for name, draw in drawn.items():
            draw(drafts[name])
        pictures = {name: drafts[name].read_bytes() for name in drawn}
        drafts["report.html"].write_text(page(results, tables, pictures), encoding="utf-8")
        for name, final in finals.items():
            drafts[name].replace(final)
        for name in figures.TITLES:
            if name not in drawn:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise KvroamError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
    finally:
        for draft in drafts.values():
            _discard(draft)
    return finals


def read_results(path: str | Path) -> dict[str, Any]:
    """Return what `write_results` wrote to results.json; NaN comes back as None.

    Raises:
        KvroamError: it cannot be read, or has another format.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KvroamError(f"{path}: no results of an evaluation ({error}); name a results.json") from error
    made = found.get("format", 1) if isinstance(found, dict) else None
    if made != FORMAT:
        raise KvroamError(f"{path}: has format {made!r}, this version reads {FORMAT}: evaluate anew")
    return found


def _plain(value: Any) -> Any:
    """Return builtins that strict JSON can hold: NaN becomes null, infinity text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _dump(value: Any, indent: str = "") -> str:
    """Return JSON in which each setting and each list of episodes is one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    inner = indent + "  "
    items = (f"{inner}{json.dumps(key)}: {_dump(item, inner)}" for key, item in value.items())
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # The folder is no folder; there the draft cannot exist, and the first error is the one to show.
        return
