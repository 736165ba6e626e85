"""The figure of a sweep: drift and right answers against the bytes that travel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...palette import COLOURS, SHAPES
from .points import Point


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw KL per token against payload bytes and, where the sessions were asked something, right answers too.

    A line joins the kept fractions of one scorer (colour) at one precision (marker).

    Args:
        path: a PNG file, replaced if it exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    asked = any(point.recall is not None for point in points)
    canvas = FigureCanvasAgg(Figure(figsize=(10.5 if asked else 6.2, 4.4), dpi=140, layout="constrained"))
    panels = canvas.figure.subplots(1, 2 if asked else 1, squeeze=False)[0]
    scorers, precisions = (list(dict.fromkeys(getattr(p, name) for p in points)) for name in ("scorer", "precision"))
    for panel, (name, label) in zip(panels, _QUANTITIES, strict=False):
        for i, scorer in enumerate(scorers):
            for j, precision in enumerate(precisions):
                line = sorted((p for p in points if (p.scorer, p.precision) == (scorer, precision)), key=_bytes)
                ys = [getattr(p, name) for p in line]
                style: dict[str, Any] = dict(color=COLOURS[i % len(COLOURS)], marker=SHAPES[j % len(SHAPES)])
                panel.plot([p.bytes for p in line], ys, lw=0.9, ms=4.5, alpha=0.85, **style)
        panel.set_xscale("log")
        panel.set_xlabel("bytes per handover")
        panel.set_ylabel(label)
        panel.grid(alpha=0.25, which="both", lw=0.4)
    panels[0].set_ylim(bottom=0.0)
    panels[-1].legend(handles=_keys(scorers, precisions), fontsize=8, framealpha=0.9)
    canvas.print_figure(str(path), metadata={"Software": None})


_QUANTITIES = (("kl", "KL to the whole cache [nats per token]"), ("recall", "fraction of answers that are right"))


def _bytes(point: Point) -> float:
    return point.bytes


def _keys(scorers: list[str], precisions: list[str]) -> list[Any]:
    """Legend entries: a colour per scorer, a marker per precision."""
    from matplotlib.lines import Line2D

    colours = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(scorers)]
    grey: dict[str, Any] = dict(color="#555555", lw=0)
    shapes = [Line2D([], [], marker=SHAPES[j % len(SHAPES)], label=name, **grey) for j, name in enumerate(precisions)]
    return colours + shapes
