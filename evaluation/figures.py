"""The figure of an evaluation: how long users wait against how far the answers drift."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..envs.base.declare import Metric
from ..palette import COLOURS, SHAPES
from .metrics import ends, metric, metrics_of, number

AXES = ("interruption_s_mean", "drift_kl_mean")

# Where a label may stand around its marker [points], nearest first.
_OFFSETS = tuple(
    (radius * x, radius * y)
    for radius in (9, 18, 30, 44, 60)
    for x, y in ((1, 0.5), (1, -0.9), (-1, 0.5), (-1, -0.9), (0, 1), (0, -1.3), (1, 1.4), (-1, 1.4))
)


def drawable(results: Mapping[str, Any]) -> bool:
    """Whether the task has the metrics that the figure is about."""
    return set(AXES) <= set(metrics_of(results))


def figure(results: Mapping[str, Any], path: str | Path) -> None:
    """Draw one labelled marker per policy, with the 95 % intervals of both means where they are known.

    x is the mean interruption [ms], logarithmic when it spans more than a factor of ten; y is the mean drift
    [nats per token], linear near 0 and logarithmic above, so that a drift of exactly 0 is on the page.
    Policies without a single handover have no place in it and are named below the axes.

    Args:
        results: as in `report`.
        path: a PNG file, replaced if it exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    across, along = (metric(name, metrics_of(results)) for name in AXES)
    points = {
        name: (_point(policy, across), _point(policy, along))
        for name, policy in results["policies"].items()
    }
    shown = {name: xy for name, xy in points.items() if not math.isnan(xy[0][0] + xy[1][0])}
    canvas = FigureCanvasAgg(Figure(figsize=(7.2, 4.6), dpi=160, layout="constrained"))
    axes = canvas.figure.subplots()
    xs, ys = [x for (x, _, _), _ in shown.values()], [y for _, (y, _, _) in shown.values()]

    markers = []
    for index, (name, ((x, x_low, x_high), (y, y_low, y_high))) in enumerate(shown.items()):
        colour, shape = COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]
        wide, high = [[x - x_low], [x_high - x]], [[y - y_low], [y_high - y]]
        axes.errorbar(x, y, high, wide, shape, color=colour, ms=7, mec="white", mew=0.8, elinewidth=1.2)
        markers.append((name, x, y, colour))
    if xs and min(xs) > 0 and max(xs) > 10 * min(xs):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.margins(x=0.14, y=0.14)
    if any(y > 0 for y in ys):
        least, most = min(y for y in ys if y > 0), max(high for _, (_, _, high) in shown.values())
        # At most four decades: a rounding error of 1e-9 would otherwise fill the page.
        threshold = max(least, 1e-4 * most)
        axes.set_yscale("symlog", linthresh=threshold)
        axes.set_ylim(-0.4 * threshold, 2.0 * most)
    axes.set_xlabel("time without service per interruption, mean [ms]   (better to the left)")
    axes.set_ylabel("drift KL, mean [nats/token]   (better below)")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    absent = [name for name in points if name not in shown]
    if absent:
        axes.set_title(f"without a handover: {', '.join(absent)}", fontsize=8, loc="right", color="#555555")
    _label(axes, canvas, markers)
    canvas.figure.savefig(path, format="png")


def _point(policy: Mapping[str, Any], m: Metric) -> tuple[float, float, float]:
    """Return mean, low and high of a metric in its shown unit: the mean thrice without interval, NaN of nothing."""
    entry = policy["summary"].get(m.name, {})
    mean = number(entry.get("mean")) * m.scale
    low, high = (mean if math.isnan(end) else end * m.scale for end in ends(entry, m))
    return mean, low, high


def _short(name: str) -> str:
    """A name without its arguments where they are many; the tables beside the figure have them."""
    return name if len(name) <= 24 else f"{name.partition(':')[0]}:..."


def _label(axes: Any, canvas: Any, markers: list[tuple[str, float, float, str]]) -> None:
    """Write each name at the nearest free place around its marker, or at the last where none is free."""
    from matplotlib.transforms import Bbox

    canvas.draw()
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    radius = 6 * canvas.figure.dpi / 72
    taken = []
    for _, x, y, _ in markers:
        px, py = axes.transData.transform((x, y))
        taken.append(Bbox.from_extents(px - radius, py - radius, px + radius, py + radius))
    for name, x, y, colour in sorted(markers, key=lambda marker: marker[1]):
        for dx, dy in _OFFSETS:
            leader = {"arrowstyle": "-", "color": colour, "lw": 0.6} if abs(dx) + abs(dy) > 20 else None
            text = axes.annotate(
                _short(name),
                (x, y),
                xytext=(dx, dy),
                textcoords="offset points",
                fontsize=9,
                color="#222222",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="center",
                arrowprops=leader,
                parse_math=False,
            )
            text.set_in_layout(False)
            box = text.get_window_extent(renderer)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            if not outside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            if (dx, dy) != _OFFSETS[-1]:
                text.remove()
