"""The strip charts of a picture: one value per step over the last seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from . import colours
from .canvas import Canvas
from .colours import Colour
from .history import HISTORY_S


def ceiling(value: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `value`; 1 for nothing."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1.0, 2.0, 5.0) if value <= step * power * (1 + 1e-9)), 10.0 * power)


def frame(canvas: Canvas, area: tuple[int, int, int, int], title: str) -> None:
    """Draw what never changes of a chart in `area` (left, top, width, height)."""
    left, top, width, height = area
    canvas.box(left, top, width, height, colours.PANEL, 6)
    canvas.text(title, (left + 10, top + 13), 11, colours.TEXT, bold=True)
    x, y, across, _ = _inside(area)
    canvas.box(x, y, across, 1, colours.FAINT)
    canvas.text(f"-{HISTORY_S:g} s", (x, y + 9), 10, colours.FAINT)
    canvas.text("now", (x + across, y + 9), 10, colours.FAINT, align="right")


def strip(canvas: Canvas, area: tuple[int, int, int, int], colour: Colour, now: float, interval_s: float,
          points: Sequence[tuple[float, float]], least: float) -> None:
    """Draw the bars of a chart in `area`, one per step; the axis reaches at least to `least`.

    Args:
        canvas: what to draw on.
        area: left, top, width, height [pixels].
        colour: of the bars.
        now: time at the right end [s].
        interval_s: duration of a step [s].
        points: time of the end of each step [s], and its value.
        least: smallest range of the axis, in the unit of the values.
    """
    x, y, across, high = _inside(area)
    full = max(least, ceiling(max((value for _, value in points), default=0.0)))
    for share in (1.0, 0.5):
        canvas.box(x, y - share * high, across, 1, colours.LINE)
        canvas.text(f"{share * full:g}", (x - 4, y - share * high), 10, colours.FAINT, align="right")
    per_s = across / HISTORY_S
    for time, value in points:
        left = round(x + across - (now - time + interval_s) * per_s)
        right = round(x + across - (now - time) * per_s)
        if value > 0.0:
            tall = max(2, round(high * value / full))
            canvas.box(left, y - tall, max(1, right - left), tall, colour)


def _inside(area: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Left, bottom, width and height of where the bars stand."""
    left, top, width, height = area
    return left + 42, top + height - 18, width - 52, height - 18 - 30
