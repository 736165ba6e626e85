"""The figure: what everybody pays over hindsight, scenario by scenario, and what each lever is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...palette import COLOURS, SHAPES
from .jobs import CONSTANT, NAMED, PREDICTED
from ...evaluation.estimates import Ratio
from .verdicts import Scenario

_SHOWN = ((CONSTANT, "best constant plan"), (NAMED, "best named policy"), (PREDICTED, "perfect predictor"))
_NOTHING = Ratio(np.nan, np.nan, np.nan, 0)


def draw(scenarios: Sequence[Scenario], path: Path) -> None:
    """Write the figure as PNG: avoidable costs over hindsight's, with 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 1.8 + 0.55 * len(scenarios)), layout="constrained", dpi=140)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    rivals = {text: [one.over_hindsight(kind, one.best(kind)) if kind in one.avoidable else _NOTHING
                     for one in scenarios] for kind, text in _SHOWN}
    levers = {lever: [one.levers().get(lever, ("", _NOTHING))[1] for one in scenarios]
              for lever in scenarios[0].levers()} if scenarios else {}
    for axes, title, series in ((left, "Rivals", rivals), (right, "Hindsight without a lever", levers)):
        for i, (text, found) in enumerate(series.items()):
            y = np.arange(len(scenarios))[::-1] + 0.6 * (0.5 - (i + 0.5) / len(series))
            ratio, low, high = (np.array([getattr(one, end) for one in found]) for end in ("ratio", "low", "high"))
            axes.errorbar(ratio, y, xerr=np.nan_to_num([ratio - low, high - ratio]), fmt=SHAPES[i],
                          color=COLOURS[i % len(COLOURS)], ms=5, elinewidth=1, linestyle="none", label=text)
        axes.axvline(1.0, color="black", lw=0.8)
        axes.set(xscale="log", title=title, xlabel="avoidable cost / hindsight's")
        axes.grid(alpha=0.3, axis="x", which="both")
        if series:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, fontsize=8, frameon=False)
    left.set_yticks(np.arange(len(scenarios))[::-1], [one.name for one in scenarios])
    figure.savefig(path)
