"""The figure: what everybody pays that could be avoided, scenario by scenario."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...palette import COLOURS, SHAPES
from .jobs import CONSTANT, NAMED, PREDICTED
from .verdicts import PAPERS, Scenario


def draw(scenarios: Sequence[Scenario], path: Path) -> None:
    """Write the figure as PNG: one row per scenario, one mark per player, mean avoidable cost on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 1.6 + 0.5 * len(scenarios)), layout="constrained", dpi=140)
    FigureCanvasAgg(figure)
    axes, y = figure.subplots(), np.arange(len(scenarios))[::-1]
    found = series(scenarios)
    if found:
        every = np.array(list(found.values()))
        axes.hlines(y, np.nanmin(every, axis=0), np.nanmax(every, axis=0), color="0.85", zorder=0)
    for i, (text, costs) in enumerate(found.items()):
        axes.plot(costs, y, linestyle="none", marker=SHAPES[i % len(SHAPES)], color=COLOURS[i % len(COLOURS)], ms=7,
                  # The papers are light, so that what bounds them stands out.
                  markerfacecolor="white" if text in PAPERS else None, label=text)
    axes.set(xscale="log", xlabel="avoidable cost per user and episode [seconds of a waiting user]")
    axes.set_yticks(y, [one.name for one in scenarios])
    axes.grid(alpha=0.3, axis="x", which="both")
    if found:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path)


def series(scenarios: Sequence[Scenario]) -> dict[str, list[float]]:
    """What is drawn: mean avoidable cost in every scenario by player, NaN where one did not play."""
    def mean(one: Scenario, kind: str, name: str | None) -> float:
        costs = one.avoidable.get(kind, {}).get(name or "")
        return np.nan if costs is None else float(costs.mean())

    if not scenarios:
        return {}
    found = {
        "hindsight": [float(one.hindsight.mean()) for one in scenarios],
        "perfect predictor": [mean(one, PREDICTED, "foresight") for one in scenarios],
        "best named policy": [mean(one, NAMED, one.best(NAMED)) for one in scenarios],
        "best constant plan": [mean(one, CONSTANT, one.best(CONSTANT)) for one in scenarios],
    }
    found |= {paper: [mean(one, NAMED, one.paper(paper)) for one in scenarios] for paper in PAPERS}
    return {text: costs for text, costs in found.items() if not np.isnan(costs).all()}
