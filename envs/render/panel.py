"""The panel of a picture: what is shown, the time, the numbers of this moment, and a legend that counts."""

from __future__ import annotations

import math

import numpy as np

from ..base.drawing import Drawing
from . import colours
from .canvas import Canvas
from .city import BAR_COLOURS, USER_RADIUS, badge, user

_ROW, _LOOK_ROW, _NUMBER_ROW = 16, 21, 15


class Panel:
    """Title, clock and legend in a rectangle (left, top, width, height) of a canvas.

    Args:
        canvas: what to draw on.
        first: the drawing at the start; the words of its legend stay.
        area: the rectangle [pixels].
        caption: a line under the title.
    """

    def __init__(self, canvas: Canvas, first: Drawing, area: tuple[int, int, int, int], caption: str) -> None:
        self._area, self._first = area, first
        left, top, width, _ = area
        self._x, self._right = left + 14, left + width - 12
        canvas.box(*area, colours.PANEL)
        used = canvas.text("kvroam", (self._x, top + 20), 17, colours.TEXT, bold=True)
        canvas.text(first.scene.name, (self._x + used + 8, top + 21), 12, colours.FAINT)
        canvas.text(caption, (self._x, top + 40), 11, colours.FAINT)
        agents, shapes, between, places = first.heads
        self._numbers_y = top + 58
        for k, (words, _) in enumerate(first.numbers):
            canvas.text(words, (self._x, self._numbers_y + _NUMBER_ROW * k), 11, colours.TEXT)
        y = self._heading(canvas, top + 62 + _NUMBER_ROW * len(first.numbers), agents)
        self._count_y = y
        for look in first.looks:
            user(canvas, (self._x + 8, y), look)
            canvas.text(look.name, (self._x + 24, y - 5), 11, colours.TEXT)
            canvas.text(look.meaning, (self._x + 24, y + 6), 9, colours.FAINT)
            y += _LOOK_ROW
        y = self._heading(canvas, y, shapes)
        for shape, meaning in first.shapes:
            colour = first.looks[first.shapes_look].colour
            canvas.marker(shape, (self._x + 8, y), USER_RADIUS, colour, colours.BLACK)
            canvas.text(meaning, (self._x + 24, y), 11, colours.TEXT)
            y += _ROW
        y = self._heading(canvas, y + 3, between)
        for meaning, draw in zip(first.arc_words, (self._sample_arc, self._sample_dots, self._sample_dashes),
                                 strict=True):
            if meaning:
                draw(canvas, y)
                canvas.text(meaning, (self._x + 52, y), 11, colours.TEXT)
                y += _ROW
        self._total_y = y
        y = self._heading(canvas, y + _ROW + 3, places)
        badge(canvas, (self._x + 20, y + 8 * (len(first.bars) - 1)), "7", [0.7, 0.4, 0.6][:len(first.bars)])
        for k, (meaning, _) in enumerate(first.bars):
            canvas.box(self._x + 52, y - 5, 4, 10, BAR_COLOURS[k])
            canvas.text(meaning, (self._x + 62, y), 11, colours.TEXT)
            y += 16
        canvas.text("streets: best gNB; grey line: a user's", (self._x, y + 3), 10, colours.FAINT)

    def draw(self, canvas: Canvas, drawn: Drawing) -> None:
        """Write the numbers of this moment."""
        canvas.text(f"{drawn.time_s:.1f} s", (self._right, self._area[1] + 20), 17, colours.TEXT, bold=True,
                    align="right")
        for k, (_, value) in enumerate(drawn.numbers):
            canvas.text(value, (self._right, self._numbers_y + _NUMBER_ROW * k), 11, colours.TEXT, bold=True,
                        align="right")
        counts = np.bincount(drawn.look, minlength=len(drawn.looks))
        for state, count in enumerate(counts):
            colour = colours.TEXT if count else colours.FAINT
            canvas.text(str(count), (self._right, self._count_y + _LOOK_ROW * state - 5), 12, colour, bold=bool(count),
                        align="right")
        canvas.text(drawn.total, (self._x, self._total_y), 11, colours.TEXT)

    def _heading(self, canvas: Canvas, y: float, words: str) -> float:
        canvas.text(words, (self._x, y), 10, colours.FAINT, bold=True)
        canvas.box(self._x, y + 8, self._right - self._x, 1, colours.LINE)
        return y + 24

    def _sample(self, y: float) -> np.ndarray:
        x = np.linspace(self._x, self._x + 40, 16)
        return np.stack([x, y + 3 - 6 * np.sin(math.pi * (x - x[0]) / 40)], axis=1)

    def _sample_arc(self, canvas: Canvas, y: float) -> None:
        colour = self._first.looks[self._first.arc_look].colour
        canvas.curve(self._sample(y), 5.0, colours.blend(colour, colours.GROUND, 0.45))
        canvas.curve(self._sample(y)[:10], 5.0, colour)
        canvas.marker("disc", self._sample(y)[9], 2.5, colours.TEXT, colours.GROUND)

    def _sample_dots(self, canvas: Canvas, y: float) -> None:
        canvas.dots(self._sample(y)[::3], 1.0, self._first.looks[self._first.arc_look].colour, colours.GROUND)

    def _sample_dashes(self, canvas: Canvas, y: float) -> None:
        points = self._sample(y)
        for k in range(0, len(points) - 1, 3):
            canvas.curve(points[k:k + 2], 2.0, self._first.looks[self._first.dash_look].colour)
