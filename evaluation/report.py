"""Results of an evaluation as JSON, as tables and as a figure.

A results dictionary is {"kvroam": version, "config", "versions", "machine", "seeds": [...], "policies":
{NAME: {"episodes": {METRIC: [one value per seed]}, "summary": {METRIC: {...}}, "wall_s": s}}, "paired":
{REFERENCE: {NAME: {METRIC: difference}}}}; over several scenarios also "scenarios" and "by_scenario" (evaluate.py).
NaN in an episode means that it has nothing to measure; JSON has it as null.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..envs.base.declare import Metric
from ..errors import KvroamError
from .estimates import bootstrap_interval, iqm, mean
from .figures import drawable, figure
from .metrics import headline_of, metric, metrics_of
from .provenance import machine, versions

__all__ = [
    "figure",
    "machine",
    "markdown_table",
    "paired_table",
    "scenario_table",
    "summarise",
    "terminal_table",
    "versions",
    "write_results",
]


def summarise(
    episodes: Mapping[str, Sequence[float]], strata: Sequence[Any] | None = None
) -> dict[str, dict[str, float]]:
    """Summarise each metric over the episodes of one policy.

    Args:
        episodes: metric name to one value per episode; NaN (or None) does not count.
        strata: one label per episode, such as the scene, for the bootstrap.

    Returns:
        Per metric: `mean` with its 95 % bootstrap interval `ci_low` to `ci_high`, the interquartile mean
        `iqm` with `iqm_low` to `iqm_high`, and `n`, the episodes that count.
    """
    summary = {}
    for name, values in episodes.items():
        numbers = [_number(value) for value in values]
        kept = [value for value in numbers if not math.isnan(value)]
        of_mean = bootstrap_interval(numbers, mean, strata=strata)
        of_iqm = bootstrap_interval(numbers, iqm, strata=strata)
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


def terminal_table(results: Mapping[str, Any], metrics: Iterable[str] | None = None) -> str:
    """Return a plain-text table: a row per policy, mean +- half width of the 95 % interval of the mean.

    Args:
        results: see the module.
        metrics: names of the columns; those that no policy has are left out. Default: the task's headline.

    Raises:
        KvroamError: the task has no such metric.
    """
    columns = _columns(results, metrics)
    names = list(results["policies"])
    best = {m.name: _best(results, m) for m in columns}
    lines: list[list[str]] = [["policy"], [""], *([name] for name in names)]
    for m in columns:
        cells = [_cell(results, name, m, "+-") + ("*" if name in best[m.name] else " ") for name in names]
        column = [f"{m.label} ", f"[{m.shown_unit}] ", *cells]
        width = max(map(len, column))
        for line, text in zip(lines, column, strict=True):
            line.append(text.rjust(width))
    width = max(len(line[0]) for line in lines)
    body = ["  ".join([line[0].ljust(width), *line[1:]]).rstrip() for line in lines]
    body.insert(2, "-" * max(map(len, body)))
    return "\n".join([*body, _caption(results, "* best", "+-")]) + "\n"


def markdown_table(results: Mapping[str, Any], metrics: Iterable[str] | None = None) -> str:
    """Return the table of `terminal_table` in Markdown, the best value of each column in bold."""
    columns = _columns(results, metrics)
    arrows = {"lower": "↓", "higher": "↑"}
    best = {m.name: _best(results, m) for m in columns}
    heads = [f"{m.label} [{m.shown_unit}] {arrows[m.better]}" for m in columns]
    lines = ["| policy | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(columns)]
    for name in results["policies"]:
        cells = (_cell(results, name, m, "±") for m in columns)
        marked = (f"**{c}**" if name in best[m.name] else c for c, m in zip(cells, columns, strict=True))
        lines.append(f"| {_escape(name)} | " + " | ".join(marked) + " |")
    return "\n".join([*lines, "", _caption(results, "bold: best", "±")]) + "\n"


def write_results(out_dir: str | Path, results: Mapping[str, Any]) -> dict[str, Path]:
    """Write results.json, table.md and, for a task that has its metrics, interruption_drift.png into a folder.

    The folder is created if absent. Each file is written beside its destination and then moved over it, after all
    have been made: a crash leaves the earlier results whole.

    Returns:
        File name to path.

    Raises:
        KvroamError: the folder cannot be created or written to.
    """
    folder = Path(out_dir)
    names = ["results.json", "table.md", *(["interruption_drift.png"] if drawable(results) else [])]
    finals = {name: folder / name for name in names}
    # Named after the process, so that two evaluations into one folder do not share a temporary file.
    drafts = {name: folder / f".{os.getpid()}.tmp.{name}" for name in finals}
    text = _dump(_plain(results)) + "\n"
    tables = _tables(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drafts["results.json"].write_text(text, encoding="utf-8")
        drafts["table.md"].write_text(tables, encoding="utf-8")
        if "interruption_drift.png" in drafts:
            figure(results, drafts["interruption_drift.png"])
        for name, final in finals.items():
            drafts[name].replace(final)
    except OSError as error:
        raise KvroamError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
    finally:
        for draft in drafts.values():
            _discard(draft)
    return finals


def paired_table(results: Mapping[str, Any], reference: str, metrics: Iterable[str] | None = None) -> str:
    """Return the mean differences from one policy on the same seeds, with 95 % intervals, in Markdown."""
    columns = _columns(results, metrics)
    lines = ["| policy | " + " | ".join(f"{m.label} [{m.shown_unit}]" for m in columns) + " |",
             "| --- |" + " ---: |" * len(columns)]
    for name, differences in results["paired"][reference].items():
        cells = (_signed(differences.get(m.name, {}), m.scale) for m in columns)
        lines.append(f"| {_escape(name)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"the policy minus {reference}, episode by episode: mean [95 % bootstrap interval]; "
                      "an interval without 0 is a difference"]) + "\n"


def scenario_table(results: Mapping[str, Any], name: str = "cost") -> str:
    """Return one metric of every policy in every scenario, in Markdown, the best of each scenario in bold."""
    parts, m = results["by_scenario"], metric(name, metrics_of(results))
    best = {scenario: _best(part, m) for scenario, part in parts.items()}
    lines = [f"| {m.label} [{m.shown_unit}] | " + " | ".join(map(_escape, parts)) + " |",
             "| --- |" + " ---: |" * len(parts)]
    for policy in results["policies"]:
        cells = [(_cell(part, policy, m, "±"), policy in best[scenario]) for scenario, part in parts.items()]
        lines.append(f"| {_escape(policy)} | " + " | ".join(f"**{c}**" if top else c for c, top in cells) + " |")
    count = len(next(iter(parts.values()))["seeds"])
    return "\n".join([*lines, "", f"bold: best of the scenario; mean ± half the 95 % bootstrap interval of the mean; "
                      f"{count} episodes per scenario"]) + "\n"


def _tables(results: Mapping[str, Any]) -> str:
    """Return all that table.md holds."""
    parts = [markdown_table(results)]
    if "by_scenario" in results:
        parts = ["## Cost per scenario\n", scenario_table(results), "## Over all scenarios\n", *parts]
    parts += ["## All metrics\n", markdown_table(results, metrics_of(results))]
    for reference in results.get("paired", {}):
        if results["paired"][reference]:
            parts += [f"## Against {reference}\n", paired_table(results, reference)]
    for scenario, part in results.get("by_scenario", {}).items():
        parts += [f"## {scenario}\n", markdown_table(part)]
    return "\n".join(parts)


def _signed(difference: Mapping[str, Any], scale: float) -> str:
    values = [_number(difference.get(key)) * scale for key in ("mean", "ci_low", "ci_high")]
    if math.isnan(values[0]):
        return "-"
    return f"{values[0]:+.3g} [{values[1]:+.3g}, {values[2]:+.3g}]"


def _columns(results: Mapping[str, Any], names: Iterable[str] | None) -> list[Metric]:
    known = metrics_of(results)
    wanted = headline_of(results) if names is None else names
    present = {name for policy in results["policies"].values() for name in policy["summary"]}
    return [m for m in (metric(name, known) for name in wanted) if m.name in present]


def _best(results: Mapping[str, Any], m: Metric) -> set[str]:
    """Return the policies with the best mean; none where all are equal, since nothing is then best."""
    means = {
        name: _number(policy["summary"].get(m.name, {}).get("mean"))
        for name, policy in results["policies"].items()
    }
    means = {name: value for name, value in means.items() if not math.isnan(value)}
    if len(set(means.values())) < 2:
        return set()
    best = (min if m.better == "lower" else max)(means.values())
    return {name for name, value in means.items() if value == best}


def _cell(results: Mapping[str, Any], name: str, m: Metric, sign: str) -> str:
    """Return "mean +- half width" with three digits of the larger, in the shown unit."""
    entry = results["policies"][name]["summary"].get(m.name, {})
    value = _number(entry.get("mean")) * m.scale
    if math.isnan(value):
        return "-"
    half = (_number(entry.get("ci_high")) - _number(entry.get("ci_low"))) / 2 * m.scale
    # One episode has no spread: "+- 0" would claim certainty.
    known = not math.isnan(half) and entry.get("n", 2) > 1
    largest = max(abs(value), half if known else 0.0)
    if not math.isfinite(largest) or largest == 0:
        form = ".0f"
    elif largest < 1e-3 or largest >= 1e6:
        form = ".1e"
    else:
        form = f".{max(0, 2 - math.floor(math.log10(largest)))}f"
    return f"{value:{form}} {sign} {half:{form}}" if known else f"{value:{form}}"


def _caption(results: Mapping[str, Any], mark: str, sign: str) -> str:
    count = len(results.get("seeds", ()))
    episodes = f"{count} episodes" if count != 1 else "1 episode, so no interval"
    return f"{mark} of the column; mean {sign} half the 95 % bootstrap interval of the mean; {episodes}"


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


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _escape(name: str) -> str:
    return name.replace("|", "\\|")


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # The folder is no folder; there the draft cannot exist, and the first error is the one to show.
        return
