"""Results of an evaluation as tables: plain text for a terminal, and Markdown.

Results are dictionaries as described in `report`. A cell is a mean and the longer arm of its 95 % interval, where that
is known.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..envs.base.declare import Metric
from .estimates import paired_difference
from .metrics import ends, headline_of, metric, metrics_of, number

# With fewer episodes behind an interval the tables say so.
FEW = 16


def terminal_table(results: Mapping[str, Any], metrics: Iterable[str] | None = None) -> str:
    """Return a plain-text table: a row per policy, mean +- the longer arm of the 95 % interval of the mean.

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
    return "\n".join([*body, *_caption(results, columns, "* best", "+-")]) + "\n"


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
    return _paragraphs(lines, *_caption(results, columns, "bold: best", "±"))


def paired_table(results: Mapping[str, Any], reference: str, metrics: Iterable[str] | None = None) -> str:
    """Return the mean differences from one policy on the same seeds, with 95 % intervals, in Markdown.

    The first column of numbers is also shown as a ratio of means, where both are above 0.
    """
    columns = _columns(results, metrics)
    heads = [f"{m.label} [{m.shown_unit}]" for m in columns]
    if columns:
        heads.insert(1, f"{columns[0].label}, times {_escape(reference)}'s")
    lines = ["| policy | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name, differences in results["paired"][reference].items():
        cells = [_signed(differences.get(m.name, {}), m) for m in columns]
        if columns:
            cells.insert(1, _times(differences.get(columns[0].name, {}), columns[0]))
        lines.append(f"| {_escape(name)} | " + " | ".join(cells) + " |")
    entries = [(differences.get(m.name, {}), m) for differences in results["paired"][reference].values()
               for m in columns]
    return _paragraphs(lines, _paired_caption(reference), *_few(entries))


def scenario_table(results: Mapping[str, Any], name: str = "cost") -> str:
    """Return one metric of every policy in every scenario, in Markdown, the best of each scenario in bold."""
    parts, m = results["by_scenario"], metric(name, metrics_of(results))
    best = {scenario: _best(part, m) for scenario, part in parts.items()}
    lines = _scenario_head(m, parts)
    for policy in results["policies"]:
        cells = [(_cell(part, policy, m, "±"), policy in best[scenario]) for scenario, part in parts.items()]
        lines.append(f"| {_escape(policy)} | " + " | ".join(f"**{c}**" if top else c for c, top in cells) + " |")
    count = len(next(iter(parts.values()))["seeds"])
    entries = [(policy["summary"].get(name, {}), m) for part in parts.values() for policy in part["policies"].values()]
    caption = f"bold: best of the scenario; {_meaning('±')}; {count} episodes per scenario"
    return _paragraphs(lines, caption, *_few(entries))


def paired_scenario_table(results: Mapping[str, Any], reference: str, name: str = "cost") -> str:
    """Return the mean difference of one metric from one policy on the same seeds of every scenario, in Markdown."""
    parts, m = results["by_scenario"], metric(name, metrics_of(results))
    found = {scenario: part["paired"].get(reference, {}) for scenario, part in parts.items()}
    lines = _scenario_head(m, parts)
    for policy in results["paired"][reference]:
        cells = (_signed(differences.get(policy, {}).get(name, {}), m) for differences in found.values())
        lines.append(f"| {_escape(policy)} | " + " | ".join(cells) + " |")
    entries = [(entry.get(name, {}), m) for differences in found.values() for entry in differences.values()]
    return _paragraphs(lines, _paired_caption(reference), *_few(entries))


def difference(a: Sequence[float], b: Sequence[float], m: Metric) -> str:
    """Return the mean of a - b, episode by episode, with its interval, as `paired_table` shows it."""
    return _signed(paired_difference(a, b)._asdict(), m)


def _scenario_head(m: Metric, parts: Iterable[str]) -> list[str]:
    names = list(map(_escape, parts))
    return [f"| {m.label} [{m.shown_unit}] | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]


def all_tables(results: Mapping[str, Any]) -> str:
    """Return all that table.md holds."""
    parts = [markdown_table(results)]
    if "by_scenario" in results:
        parts = ["## Cost per scenario\n", scenario_table(results), "## Over all scenarios\n", *parts]
    parts += ["## All metrics\n", markdown_table(results, metrics_of(results))]
    for reference in results.get("paired", {}):
        if results["paired"][reference]:
            parts += [f"## Against {reference}\n", paired_table(results, reference)]
            if "by_scenario" in results:
                parts.append(paired_scenario_table(results, reference))
    for scenario, part in results.get("by_scenario", {}).items():
        parts += [f"## {scenario}\n", markdown_table(part)]
    return "\n".join(parts)


def _signed(entry: Mapping[str, Any], m: Metric) -> str:
    value, (low, high) = number(entry.get("mean")) * m.scale, ends(entry, m)
    if math.isnan(value):
        return "-"
    return f"{value:+.3g}" + ("" if math.isnan(low) else f" [{low * m.scale:+.3g}, {high * m.scale:+.3g}]")


def _times(entry: Mapping[str, Any], m: Metric) -> str:
    value, low, high = (number(entry.get(key)) for key in ("ratio", "ratio_low", "ratio_high"))
    if math.isnan(value):
        return "-"
    known = not math.isnan(low) and entry.get("n", 0) >= m.interval_from
    return f"{value:.3g}" + (f" [{low:.3g}, {high:.3g}]" if known else "")


def _columns(results: Mapping[str, Any], names: Iterable[str] | None) -> list[Metric]:
    known = metrics_of(results)
    wanted = headline_of(results) if names is None else names
    present = {name for policy in results["policies"].values() for name in policy["summary"]}
    return [m for m in (metric(name, known) for name in wanted) if m.name in present]


def _best(results: Mapping[str, Any], m: Metric) -> set[str]:
    """Return the policies with the best mean; none where all are equal, since nothing is then best."""
    means = {
        name: number(policy["summary"].get(m.name, {}).get("mean"))
        for name, policy in results["policies"].items()
    }
    means = {name: value for name, value in means.items() if not math.isnan(value)}
    if len(set(means.values())) < 2:
        return set()
    best = (min if m.better == "lower" else max)(means.values())
    return {name for name, value in means.items() if value == best}


def _cell(results: Mapping[str, Any], name: str, m: Metric, sign: str) -> str:
    """Return "mean +- the longer arm of the interval" with three digits of the larger, in the shown unit."""
    entry = results["policies"][name]["summary"].get(m.name, {})
    value = number(entry.get("mean")) * m.scale
    if math.isnan(value):
        return "-"
    low, high = (end * m.scale for end in ends(entry, m))
    # One episode has no spread, nor have equal ones: "+- 0" would claim certainty.
    known = not math.isnan(low)
    arm = max(value - low, high - value) if known else 0.0
    largest = max(abs(value), arm)
    if not math.isfinite(largest) or largest == 0:
        form = ".0f"
    elif largest < 1e-3 or largest >= 1e6:
        form = ".1e"
    else:
        form = f".{max(0, 2 - math.floor(math.log10(largest)))}f"
    return f"{value:{form}} {sign} {arm:{form}}" if known else f"{value:{form}}"


def _paragraphs(table: Iterable[str], *texts: str) -> str:
    """Return a Markdown table and paragraphs below it."""
    return "\n\n".join(["\n".join(table), *texts]) + "\n"


def _caption(results: Mapping[str, Any], columns: Sequence[Metric], mark: str, sign: str) -> list[str]:
    count = len(results.get("seeds", ()))
    episodes = f"{count} episodes" if count != 1 else "1 episode, so no interval"
    entries = [(policy["summary"].get(m.name, {}), m) for policy in results["policies"].values() for m in columns]
    return [f"{mark} of the column; {_meaning(sign)}; {episodes}", *_few(entries)]


def _meaning(sign: str) -> str:
    return f"mean {sign} the longer arm of the mean's 95 % interval, where there is one"


def _paired_caption(reference: str) -> str:
    return (f"the policy minus {reference}, episode by episode: mean [95 % interval, where there is one]; an interval "
            "without 0 is a difference")


def _few(entries: Iterable[tuple[Mapping[str, Any], Metric]]) -> list[str]:
    """A line of warning where an interval that is shown rests on fewer than FEW episodes, and none elsewhere."""
    counts = [entry.get("n", 0) for entry, m in entries if not math.isnan(ends(entry, m)[0])]
    if not counts or min(counts) >= FEW:
        return []
    return [f"warning: intervals from fewer than {FEW} episodes (here {min(counts)}) can hold the truth less often "
            "than 95 %; play 32 or more"]


def _escape(name: str) -> str:
    return name.replace("|", "\\|")
