"""What all figures of an evaluation share: a sheet, how each policy looks, scales, labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..palette import COLOURS, SHAPES

GREY = "#555555"
# With more policies than this, names stand in a legend and not beside the markers.
LABELS = 12

# Where a label may stand around its marker [points], nearest first: beside it, then below and above.
_OFFSETS = tuple(
    (radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle)))
    for radius in (10, 18, 28, 40, 54, 70, 90, 115, 145, 180, 220)
    for angle in (27, -42, 153, -138, 90, -90, 0, 180, 55, 125, -65, -115, 10, -10, 170, -170)
)
_DASHES = ("-", "--", ":", "-.")


class Style(NamedTuple):
    """How a policy looks in every figure."""

    colour: str
    shape: str
    dash: str


class Marker(NamedTuple):
    """A point with a name, in the coordinates of its axes."""

    name: str
    x: float
    y: float
    colour: str


def styles(results: Mapping[str, Any]) -> dict[str, Style]:
    """The look of each policy by its place in the results: the same in all figures of an evaluation."""
    return {name: Style(COLOURS[k % len(COLOURS)], SHAPES[k % len(SHAPES)], _DASHES[k // len(COLOURS) % len(_DASHES)])
            for k, name in enumerate(results["policies"])}


def sheet(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    """A canvas of that size [inches] that needs no screen, and its axes side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(figsize=(width, height), dpi=160, layout="constrained"))
    axes = canvas.figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.grid(True, color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return canvas, list(axes)


def save(canvas: Any, path: str | Path) -> None:
    """Write the sheet as PNG."""
    canvas.figure.savefig(path, format="png")


def titles(names: Iterable[str]) -> dict[str, str]:
    """What figures call each policy: without its arguments where they are many; the tables have them.

    Names that would then be alike are numbered in their order.
    """
    listed = list(names)
    cut = {name: name if len(name) <= 24 else f"{name.partition(':')[0][:20]}:..." for name in listed}
    alike = {text: [name for name in listed if cut[name] == text] for text in cut.values()}
    return {name: text if len(alike[text]) == 1 else f"{text} {alike[text].index(name) + 1}"
            for name, text in cut.items()}


def legend(canvas: Any, results: Mapping[str, Any], names: Iterable[str], lines: bool) -> None:
    """Name the policies below the axes, with the line or the marker of each."""
    from matplotlib.lines import Line2D

    looks, shown = styles(results), titles(results["policies"])
    listed = list(names)
    handles = [Line2D([], [], color=looks[name].colour, ls=looks[name].dash if lines else "",
                      marker="" if lines else looks[name].shape) for name in listed]
    found = canvas.figure.legend(handles, [_seen(shown[name]) for name in listed], loc="outside lower center",
                                 ncols=min(5, len(listed)), fontsize=8, frameon=False)
    for text in found.get_texts():
        text.set_parse_math(False)


def scale(axes: Any, which: str, values: Sequence[float], tops: Sequence[float] = ()) -> None:
    """Make an axis logarithmic when its values span more than a factor of ten, and linear around 0 if 0 is among them.

    Args:
        axes: of matplotlib.
        which: "x" or "y".
        values: that are shown on it.
        tops: upper ends of their intervals.
    """
    from matplotlib.ticker import ScalarFormatter

    known = [value for value in values if math.isfinite(value)]
    above = [value for value in known if value > 0]
    if not above or max(above) <= 10 * min(known):
        return
    axis, set_scale = getattr(axes, f"{which}axis"), getattr(axes, f"set_{which}scale")
    if min(known) > 0:
        set_scale("log")
        axis.set_major_formatter(ScalarFormatter())
        return
    most = max(top for top in (*known, *tops) if math.isfinite(top))
    # At most four decades: a rounding error of 1e-9 would otherwise fill the page.
    threshold = max(min(above), 1e-4 * most)
    set_scale("symlog", linthresh=threshold)
    getattr(axes, f"set_{which}lim")(min(min(known), 0.0) - 0.4 * threshold, 2.0 * most)


def label(axes: Any, canvas: Any, markers: Sequence[Marker], shown: Mapping[str, str]) -> None:
    """Write what is shown of each name at the nearest free place around its marker, or at the last if none is free."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    canvas.draw()
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    radius = 6 * canvas.figure.dpi / 72
    taken = []
    for marker in markers:
        px, py = axes.transData.transform((marker.x, marker.y))
        taken.append(Bbox.from_extents(px - radius, py - radius, px + radius, py + radius))
    for marker in sorted(markers, key=lambda one: one.x):
        for dx, dy in _OFFSETS:
            leader = {"arrowstyle": "-", "color": marker.colour, "lw": 0.6} if abs(dx) + abs(dy) > 20 else None
            text = axes.annotate(shown[marker.name], marker[1:3], xytext=(dx, dy), textcoords="offset points",
                                 fontsize=9, color="#222222", ha="left" if dx > 1 else "right" if dx < -1 else "center",
                                 va="center", arrowprops=leader, parse_math=False)
            text.set_in_layout(False)
            text.update_positions(renderer)
            # Of the text alone: that of the annotation holds the line to its marker, too.
            box = Text.get_window_extent(text, renderer)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            if not outside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            if (dx, dy) != _OFFSETS[-1]:
                text.remove()


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points that no other beats in both coordinates, from left to right; less is better.

    A point is beaten by one that is not worse in either and better in one. Of equal points all are kept.
    """
    kept = [i for i, (x, y) in enumerate(points) if not any(
        a <= x and b <= y and (a, b) != (x, y) for a, b in points)]
    return sorted(kept, key=lambda i: points[i])


def _seen(name: str) -> str:
    """matplotlib leaves names that begin with an underscore out of a legend."""
    return f" {name}" if name.startswith("_") else name
