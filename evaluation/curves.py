"""Figures with a line per policy: how episodes are spread, and how learned policies became what they are."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import drawing
from .metrics import metrics_of, number

COSTS, INTERRUPTION = ("avoidable_cost", "cost"), "interruption_s_mean"
CURVE = "learning_curve.csv"
# Fewer episodes make no distribution.
FEWEST = 4


def has_spread(results: Mapping[str, Any]) -> bool:
    """Whether there are episodes enough to show how they are spread."""
    return len(results["seeds"]) >= FEWEST and bool(_spread_of(results))


def distributions(results: Mapping[str, Any], path: str | Path) -> None:
    """Draw the share of episodes that stay below a cost, and below a mean interruption, a step line per policy.

    Args:
        results: as in `report`.
        path: a PNG file, replaced if it exists.
    """
    known, names = metrics_of(results), _spread_of(results)
    canvas, sheets = drawing.sheet(5.2 * len(names), 4.4, len(names))
    looks = drawing.styles(results)
    for axes, name in zip(sheets, names, strict=True):
        m, everything = known[name], []
        for policy, of_policy in results["policies"].items():
            values = sorted(v for v in (number(value) * m.scale for value in of_policy["episodes"].get(name, ()))
                            if math.isfinite(v))
            if values:
                shares = np.arange(1, len(values) + 1) / len(values)
                axes.step([values[0], *values], [0.0, *shares], where="post", color=looks[policy].colour,
                          ls=looks[policy].dash, lw=1.5)
                everything += values
        drawing.scale(axes, "x", everything)
        axes.set_ylim(0.0, 1.0)
        title = m.name.replace("_", " ") if name in COSTS else f"mean {m.label}"
        axes.set_xlabel(f"{title} of an episode [{m.shown_unit}]   (better to the left)")
        axes.set_ylabel("share of the episodes that stay below")
    drawing.legend(canvas, results, results["policies"], lines=True)
    drawing.save(canvas, path)


def _spread_of(results: Mapping[str, Any]) -> list[str]:
    """The metrics that are shown: the cost that somebody can influence, and the interruption."""
    known = metrics_of(results)
    costs = [name for name in COSTS if name in known][:1]
    return [name for name in (*costs, INTERRUPTION) if name in known and any(
        math.isfinite(number(value)) for policy in results["policies"].values()
        for value in policy["episodes"].get(name, ()))]


def learning_curve(folder: Path) -> dict[str, list[float]]:
    """What a run wrote about its own progress; what cannot be read is left out.

    Args:
        folder: of the run; its learning_curve.csv has the columns steps, avoidable_cost, ci_low and ci_high.

    Returns:
        The columns, in the order of the steps; empty where there is nothing.
    """
    rows = []
    try:
        with (folder / CURVE).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                numbers = [_read(row.get(name)) for name in ("steps", "avoidable_cost", "ci_low", "ci_high")]
                if math.isfinite(numbers[0]) and math.isfinite(numbers[1]):
                    rows.append(numbers)
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    if not rows:
        return {}
    columns = zip(*sorted(rows), strict=True)
    return dict(zip(("steps", "avoidable_cost", "ci_low", "ci_high"), map(list, columns), strict=True))


def learning(results: Mapping[str, Any], runs: Mapping[str, Path], path: str | Path) -> None:
    """Draw the avoidable cost of learned policies over the steps of their training, with its intervals.

    Args:
        results: as in `report`; they say how each policy looks.
        runs: {name of the policy: its run folder}.
        path: a PNG file, replaced if it exists.
    """
    canvas, (axes,) = drawing.sheet(7.2, 4.4)
    looks, drawn = drawing.styles(results), []
    for name, folder in runs.items():
        curve = learning_curve(folder)
        if not curve:
            continue
        colour, shape, dash = looks[name]
        axes.fill_between(curve["steps"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
        axes.plot(curve["steps"], curve["avoidable_cost"], color=colour, marker=shape, ms=4, ls=dash)
        drawn.append(name)
    axes.set_xlabel("steps of training")
    axes.set_ylabel("avoidable cost, mean [1]   (better below)")
    drawing.legend(canvas, results, drawn, lines=True)
    drawing.save(canvas, path)


def _read(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan
