"""Points of a reproduced figure: samples summed up as means with 95 % intervals, as CSV, as curves, as findings."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...evaluation.estimates import mean, mean_interval, paired_ratio
from ...files import make_folder, write_whole
from ...palette import COLOURS, SHAPES


class Point(NamedTuple):
    """One point of one curve: mean over the samples and its 95 % interval, the mean itself where all are equal."""

    panel: str  # what is varied, as the axis says it
    x: float
    curve: str  # the policy
    quantity: str  # what is shown, with its unit
    mean: float
    low: float
    high: float
    samples: int


AGREES, DIFFERS, UNCHECKED = "agrees", "differs", "cannot be checked"


class Finding(NamedTuple):
    """One statement of a paper beside what comes out here."""

    claim: str
    paper: str  # what it reports
    here: str  # what comes out, with its 95 % interval where it is random
    tolerance: str  # within which it agrees; written down before the numbers were made
    verdict: str  # AGREES, DIFFERS or UNCHECKED
    why: str = ""  # the likely reason; needed unless it agrees


class Remark(NamedTuple):
    """A number that is no evidence for or against a paper, and why not: fitted to it, or true by construction."""

    claim: str
    paper: str
    here: str
    why: str


def judge(low: float, high: float, least: float, most: float) -> str:
    """The verdict on what lies in [low, high] when it should lie in [least, most].

    Within it: agrees. Apart from it: differs. Across its edge, or unknown: cannot be checked with so few samples.
    """
    if least <= low and high <= most:
        return AGREES
    return DIFFERS if high < least or low > most else UNCHECKED


def share_of(value: float, tolerance: float = 0.1) -> tuple[float, float]:
    """The range of values that are within a relative tolerance of a published one."""
    return value * (1.0 - tolerance), value * (1.0 + tolerance)


def point(panel: str, x: float, curve: str, quantity: str, values: Sequence[float] | np.ndarray) -> Point:
    """Sum up the samples of one point; values that are not finite do not count."""
    kept = np.asarray(values, float)
    kept = kept[np.isfinite(kept)]
    centre, (low, high, _) = float(mean(kept)), mean_interval(kept)
    low, high = (centre if np.isnan(end) else end for end in (low, high))
    return Point(panel, float(x), curve, quantity, centre, low, high, kept.size)


def ratio(panel: str, x: float, curve: str, quantity: str, above: ArrayLike, below: ArrayLike) -> Point:
    """How many times the mean of `below` the mean of `above` is, pair by pair."""
    found = paired_ratio(above, below)
    low, high = (found.ratio if np.isnan(end) else end for end in (found.low, found.high))
    return Point(panel, float(x), curve, quantity, found.ratio, low, high, found.n)


def at(points: Iterable[Point], panel: str, curve: str, x: float | None = None, quantity: str | None = None) -> Point:
    """The point of a curve at x (default: its last).

    Raises:
        KeyError: there is none.
    """
    found = [p for p in points if p.panel == panel and p.curve == curve and quantity in (None, p.quantity)
             and (x is None or np.isclose(p.x, x))]
    if not found:
        raise KeyError(f"no point of {curve!r} in {panel!r} at {x}")
    return found[-1]


def to_csv(points: Sequence[Point]) -> str:
    """The points as CSV, six significant digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Point._fields)
    for p in points:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in p])
    return out.getvalue()


def from_csv(text: str) -> list[Point]:
    """The points of `to_csv`."""
    return [Point(r["panel"], float(r["x"]), r["curve"], r["quantity"], float(r["mean"]), float(r["low"]),
                  float(r["high"]), int(r["samples"])) for r in csv.DictReader(io.StringIO(text))]


def curves(points: Sequence[Point], path: Path, title: str, *, columns: int = 3, log_y: bool = False) -> None:
    """One panel per (panel, quantity): a line per curve with its 95 % band."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((p.panel, p.quantity) for p in points))
    names = list(dict.fromkeys(p.curve for p in points))
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (panel, quantity) in zip(grid, panels, strict=False):
        for name in names:
            mine = [p for p in points if (p.panel, p.quantity, p.curve) == (panel, quantity, name)]
            if not mine:
                continue
            x = [p.x for p in mine]
            colour = COLOURS[names.index(name) % len(COLOURS)]
            axes.plot(x, [p.mean for p in mine], color=colour, marker=SHAPES[names.index(name) % len(SHAPES)],
                      markersize=4, label=name)
            axes.fill_between(x, [p.low for p in mine], [p.high for p in mine], color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel=panel, ylabel=quantity)
        if log_y:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    for axes in grid[len(panels):]:
        axes.set_axis_off()
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, len(handles)))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def spread(p: Point, unit: str = "", digits: int = 2) -> str:
    """A point as text: mean and interval."""
    if p.low == p.high:
        return f"{p.mean:.{digits}f}{unit}"
    return f"{p.mean:.{digits}f}{unit} ({p.low:.{digits}f} to {p.high:.{digits}f})"


def report(title: str, command: str, points: Sequence[Point], findings: Sequence[Finding], remarks: Sequence[Remark],
           tables: str, notes: str) -> str:
    """The Markdown page of one paper: verdicts, reasons, what is no evidence, tables, what was assumed."""
    lines = [f"# {title}", "", f"Made by `{command}`. Means of {max(p.samples for p in points)} random instances, 95 % "
             "intervals in brackets. [What the verdicts mean](README.md).", "",
             "| the paper says | reported | measured here | tolerance | verdict |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {f.claim} | {f.paper} | {f.here} | {f.tolerance} | {f.verdict} |" for f in findings]
    reasons: dict[str, list[str]] = {}
    for f in findings:
        reasons.setdefault(f.why, []).append(f"*{f.claim}*")
    if why := [f"- {'; '.join(claims)}: {why}." for why, claims in reasons.items() if why]:
        lines += ["", "Reasons:", "", *why]
    if remarks:
        lines += ["", "## Outside the verdicts", "", "| what | reported | here | why it is no evidence |",
                  "| --- | --- | --- | --- |"]
        lines += [f"| {r.claim} | {r.paper} | {r.here} | {r.why} |" for r in remarks]
    if tables:
        lines += ["", tables.strip()]
    return "\n".join([*lines, "", "## Assumed by us", "", notes.strip()]) + "\n"


def save(folder: Path, name: str, points: Sequence[Point], page: str) -> list[Path]:
    """Write NAME.csv and NAME.md into the folder; the figure is the caller's."""
    make_folder(folder)
    files = [folder / f"{name}.csv", folder / f"{name}.md"]
    for path, text in zip(files, (to_csv(points), page), strict=True):
        write_whole(path, functools.partial(Path.write_text, data=text, encoding="utf-8"))
    return files
