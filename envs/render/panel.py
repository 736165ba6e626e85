"""The panel of a picture: what is shown, the time, and a legend that counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import palette
from .canvas import Canvas
from .city import BAR_COLOURS, SHAPES, STATE_COLOURS, USER_RADIUS, badge, user
from .reading import DETOURED_, INTERRUPTED_, PREPARING_, STATES, server_loads, transfers, user_states

_ROW = 18
_MEANING = (
    "answer streams", "user reads or types", "cache moves, still streams", "no service, cache awaited",
    "session stayed behind", "cache is not exact",
)
_SHAPE_MEANING = ("token ids; server computes", "KV cache over the backhaul", "split: both at once")


class Panel:
    """Title, clock and legend of one environment in a rectangle (left, top, width, height) of a canvas."""

    def __init__(self, canvas: Canvas, core: Any, env: int, area: tuple[int, int, int, int], caption: str) -> None:
        self._core, self._env, self._area = core, env, area
        left, top, width, _ = area
        self._x, self._right = left + 14, left + width - 12
        canvas.box(*area, palette.PANEL)
        used = canvas.text("kvroam", (self._x, top + 20), 17, palette.TEXT, bold=True)
        canvas.text(core.sim.scene.name, (self._x + used + 8, top + 21), 12, palette.FAINT)
        canvas.text(caption, (self._x, top + 40), 11, palette.FAINT)
        y = self._heading(canvas, top + 64, "USERS AND THEIR LLM SESSIONS")
        self._count_y = y
        for state, meaning in enumerate(_MEANING):
            user(canvas, (self._x + 8, y), state)
            canvas.text(STATES[state], (self._x + 24, y - 5), 11, palette.TEXT)
            canvas.text(meaning, (self._x + 24, y + 7), 9, palette.FAINT)
            y += 27
        y = self._heading(canvas, y, "HOW A CACHE MOVES (SHAPE)")
        for shape, meaning in zip(SHAPES, _SHAPE_MEANING, strict=False):
            canvas.marker(shape, (self._x + 8, y), USER_RADIUS, STATE_COLOURS[PREPARING_], palette.BLACK)
            canvas.text(meaning, (self._x + 24, y), 11, palette.TEXT)
            y += _ROW
        y = self._heading(canvas, y + 6, "BETWEEN gNBs")
        for meaning, draw in (("bright: sent, width: rate", self._sample_transfer),
                              ("token ids on their way", self._sample_tokens),
                              ("tokens take a detour", self._sample_detour)):
            draw(canvas, y)
            canvas.text(meaning, (self._x + 52, y), 11, palette.TEXT)
            y += _ROW
        self._rate_y = y
        y = self._heading(canvas, y + _ROW + 6, "gNB AND ITS SERVER")
        meanings = [meaning for meaning, _ in server_loads(core, env)]
        badge(canvas, (self._x + 20, y + 8 * (len(meanings) - 1)), "7", [0.7, 0.4, 0.6][:len(meanings)])
        for k, meaning in enumerate(meanings):
            canvas.box(self._x + 52, y - 5, 4, 10, BAR_COLOURS[k])
            canvas.text(meaning, (self._x + 62, y), 11, palette.TEXT)
            y += 16
        for words in ("streets: colour of the best gNB", "grey line: user to its gNB"):
            canvas.text(words, (self._x, y + 6), 11, palette.FAINT)
            y += 16

    def draw(self, canvas: Canvas) -> None:
        """Write the numbers of this moment."""
        core, env = self._core, self._env
        time = float(core.sim.state.world[env]["time_s"])
        canvas.text(f"{time:.1f} s", (self._right, self._area[1] + 20), 17, palette.TEXT, bold=True, align="right")
        counts = np.bincount(user_states(core, env), minlength=len(STATES))
        for state, count in enumerate(counts):
            colour = palette.TEXT if count else palette.FAINT
            canvas.text(str(count), (self._right, self._count_y + 27 * state - 5), 12, colour, bold=bool(count),
                        align="right")
        rate = sum(transfer.rate_bps for transfer in transfers(core, env))
        canvas.text(f"backhaul carries {rate / 1e9:.1f} Gbit/s", (self._x, self._rate_y), 11, palette.TEXT)

    def _heading(self, canvas: Canvas, y: float, words: str) -> float:
        canvas.text(words, (self._x, y), 10, palette.FAINT, bold=True)
        canvas.box(self._x, y + 8, self._right - self._x, 1, palette.LINE)
        return y + 24

    def _sample(self, y: float) -> np.ndarray:
        x = np.linspace(self._x, self._x + 40, 16)
        return np.stack([x, y + 3 - 6 * np.sin(math.pi * (x - x[0]) / 40)], axis=1)

    def _sample_transfer(self, canvas: Canvas, y: float) -> None:
        colour = STATE_COLOURS[INTERRUPTED_]
        canvas.curve(self._sample(y), 5.0, palette.blend(colour, palette.GROUND, 0.45))
        canvas.curve(self._sample(y)[:10], 5.0, colour)
        canvas.marker("disc", self._sample(y)[9], 2.5, palette.TEXT, palette.GROUND)

    def _sample_tokens(self, canvas: Canvas, y: float) -> None:
        canvas.dots(self._sample(y)[::3], 1.0, STATE_COLOURS[INTERRUPTED_], palette.GROUND)

    def _sample_detour(self, canvas: Canvas, y: float) -> None:
        points = self._sample(y)
        for k in range(0, len(points) - 1, 3):
            canvas.curve(points[k:k + 2], 2.0, STATE_COLOURS[DETOURED_])
