"""Points of a reproduced figure: samples summed up as means with 95 % intervals, as CSV, as curves, as findings."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...evaluation.estimates import mean, mean_interval
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


class Finding(NamedTuple):
    """One statement of the paper beside what comes out here."""

    claim: str
    paper: str
    here: str
    agrees: bool
    why: str = ""


def point(panel: str, x: float, curve: str, quantity: str, values: Sequence[float] | np.ndarray) -> Point:
    """Sum up the samples of one point; values that are not finite do not count."""
    kept = np.asarray(values, float)
    kept = kept[np.isfinite(kept)]
    centre, (low, high, _) = float(mean(kept)), mean_interval(kept)
    low, high = (centre if np.isnan(end) else end for end in (low, high))
    return Point(panel, float(x), curve, quantity, centre, low, high, kept.size)


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


def report(title: str, command: str, points: Sequence[Point], findings: Sequence[Finding], notes: str) -> str:
    """The Markdown page of one paper: findings first, then what was assumed."""
    lines = [f"# {title}", "", f"Made by `{command}`; every point is the mean of {points[0].samples} samples, bands "
             "are 95 % intervals of the mean.", "", "| the paper says | there | here | agrees |",
             "| --- | --- | --- | --- |"]
    lines += [f"| {f.claim} | {f.paper} | {f.here} | {'yes' if f.agrees else 'no'} |" for f in findings]
    why = [f"* {f.claim}: {f.why}" for f in findings if f.why]
    remarks = ["Why not, or what else to know:", "", *why, ""] if why else []
    return "\n".join([*lines, "", *remarks, notes.strip()]) + "\n"


def save(folder: Path, name: str, points: Sequence[Point], page: str) -> list[Path]:
    """Write NAME.csv and NAME.md into the folder; the figure is the caller's."""
    make_folder(folder)
    files = [folder / f"{name}.csv", folder / f"{name}.md"]
    for path, text in zip(files, (to_csv(points), page), strict=True):
        write_whole(path, functools.partial(Path.write_text, data=text, encoding="utf-8"))
    return files
