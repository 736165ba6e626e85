"""The figures of an evaluation: which there are, and which of them apply to given results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from . import curves, heatmap, scatter

Draw = Callable[[Path], None]

# Every figure by its file, with what it shows.
TITLES = {
    "pareto.png": "What it takes to wait less: avoidable delay against backhaul traffic, and against worse answers",
    "interruption_drift.png": "Time without service against drift",
    "distributions.png": "How the episodes are spread",
    "heatmap.png": "Avoidable cost in each scenario, relative to the best policy there",
    "learning.png": "How the learned policies came about",
}


def figures(results: Mapping[str, Any], runs: Mapping[str, Path] | None = None) -> dict[str, Draw]:
    """What draws each figure that applies, by the name of its file, in the order of `TITLES`.

    Args:
        results: as in `report`.
        runs: run folders of the learned policies among them.
    """
    learned = {name: folder for name, folder in (runs or {}).items() if curves.learning_curve(folder)}
    found: dict[str, Draw] = {}
    if scatter.has_parts(results):
        found["pareto.png"] = partial(scatter.pareto, results)
    if scatter.has_interruptions(results):
        found["interruption_drift.png"] = partial(scatter.interruption_drift, results)
    if curves.has_spread(results):
        found["distributions.png"] = partial(curves.distributions, results)
    if heatmap.is_grid(results):
        found["heatmap.png"] = partial(heatmap.heatmap, results)
    if learned:
        found["learning.png"] = partial(curves.learning, results, learned)
    return found
