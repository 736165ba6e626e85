"""The figure of a grid: how many times the best policy's cost each policy pays in each scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..agents.registry import UPPER_BOUND
from . import drawing
from .curves import COSTS
from .metrics import metrics_of, number

# The colours end here; what is dearer has the last one.
_MOST = 8.0


def is_grid(results: Mapping[str, Any]) -> bool:
    """Whether there are several scenarios and several policies."""
    return len(results.get("by_scenario", ())) > 1 and len(results["policies"]) > 1


def relative(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """{policy: {scenario: mean cost over that of the scenario's best policy}}; NaN where the best pays nothing.

    The cost is the avoidable one, where the task has it. Bounds, which know what no policy could, are not the best.
    """
    known = metrics_of(results)
    cost = next(name for name in COSTS if name in known)
    found: dict[str, dict[str, float]] = {name: {} for name in results["policies"]}
    for scenario, part in results["by_scenario"].items():
        means = {name: number(policy["summary"].get(cost, {}).get("mean")) for name, policy in part["policies"].items()}
        compete = [mean for name, mean in means.items()
                   if part["policies"][name].get("kind") != UPPER_BOUND and not math.isnan(mean)]
        best = min(compete, default=math.nan)
        for name, mean in means.items():
            found[name][scenario] = mean / best if best > 0 else math.nan
    return found


def heatmap(results: Mapping[str, Any], path: str | Path) -> None:
    """Draw `relative`: a row per policy, a column per scenario, the ratio written into every field.

    Args:
        results: as in `report`, over several scenarios.
        path: a PNG file, replaced if it exists.
    """
    import matplotlib
    from matplotlib.colors import LogNorm

    ratios = relative(results)
    scenarios = list(results["by_scenario"])
    canvas, (axes,) = drawing.sheet(2.6 + 0.78 * len(scenarios), 1.6 + 0.34 * len(ratios))
    rows = [[ratios[name][scenario] for scenario in scenarios] for name in ratios]
    axes.grid(False)
    norm = LogNorm(1.0, _MOST)
    image = axes.imshow(rows, cmap=matplotlib.colormaps["Blues"], norm=norm, aspect="auto")
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            text = "–" if math.isnan(value) else f"{value:.2f}" if value < 9.995 else f"{value:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, fontweight="bold" if value == 1.0 else "normal",
                      color="white" if value > 3.5 else "#222222")
    axes.set_xticks(range(len(scenarios)), list(drawing.titles(scenarios).values()), rotation=35, ha="right",
                    rotation_mode="anchor", fontsize=9)
    looks = drawing.styles(results)
    axes.set_yticks(range(len(ratios)), list(drawing.titles(ratios).values()), fontsize=9)
    for text, name in zip(axes.get_yticklabels(), ratios, strict=True):
        text.set_color(looks[name].colour)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("avoidable cost, times that of the scenario's best policy", fontsize=9, loc="left")
    bar = canvas.figure.colorbar(image, ax=axes, extend="both", shrink=0.8)
    bar.set_ticks([1, 2, 4, 8], labels=["1", "2", "4", "8"])
    bar.minorticks_off()
    drawing.save(canvas, path)
