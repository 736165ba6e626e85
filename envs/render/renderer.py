"""One frame of one environment: map, panel and charts, as an array or in a window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import require
from . import chart, colours
from .canvas import Canvas
from .city import City
from .history import History
from .panel import Panel

SMALLEST = (760, 560)
_PANEL_WIDTH, _CHART_HEIGHT, _GAP = 232, 104, 6


class Renderer:
    """Draws environment `env` of a Core that has been reset.

    Args:
        core: the core; it is only read.
        env: which of its environments.
        size: width and height of a frame [pixels].
        caption: a line under the title, e.g. the policy's name.

    Raises:
        ValueError: a size below SMALLEST, or an environment that the core does not have.
        gymnasium.error.DependencyNotInstalled: pygame is absent.
    """

    def __init__(self, core: Any, env: int = 0, size: tuple[int, int] = (800, 600), caption: str = "") -> None:
        require(size[0] >= SMALLEST[0] and size[1] >= SMALLEST[1],
                f"a frame of {size[0]} x {size[1]} pixels is too small: {SMALLEST[0]} x {SMALLEST[1]} is the least")
        require(0 <= env < core.num_envs, f"environment {env} does not exist: there are {core.num_envs}")
        self._core, self._env = core, env
        self._canvas, first = Canvas(size), core.task.drawing(env)
        width = size[0] - _PANEL_WIDTH
        self._canvas.surface.fill(colours.GROUND)
        self._city = City(self._canvas, first, (0, 0, width, size[1] - _CHART_HEIGHT - _GAP))
        self._panel = Panel(self._canvas, first, (width, 0, _PANEL_WIDTH, size[1]), caption)
        top, count = size[1] - _CHART_HEIGHT, max(1, len(first.charts))
        across = (width - count * _GAP) // count
        self._charts = [(k * (across + _GAP), top, across, _CHART_HEIGHT) for k in range(len(first.charts))]
        for area, shown in zip(self._charts, first.charts, strict=True):
            chart.frame(self._canvas, area, shown.title)
        self._still = self._canvas.surface.copy()
        self._window: Any = None
        self._clock: Any = None

    @property
    def gnb_px(self) -> np.ndarray:
        """Where the gNBs are in a frame, (x, y), float [C, 2]."""
        return self._city.gnb_px

    def user_px(self) -> np.ndarray:
        """Where the users are in a frame now, (x, y), float [U, 2]."""
        return self._city.pixel(self._core.task.drawing(self._env).position_m)

    def frame(self, history: History) -> np.ndarray:
        """The picture of this moment, uint8 [height, width, 3]; `history` fills the charts."""
        self._draw(history)
        return self._canvas.pixels()

    def show(self, history: History, fps: float) -> None:
        """Draw this moment in a window, not sooner than 1 / fps after the last time [1/s]."""
        pygame = self._canvas.pygame
        if self._window is None:
            pygame.display.init()
            self._window = pygame.display.set_mode(self._canvas.surface.get_size())
            pygame.display.set_caption("kvroam")
            self._clock = pygame.time.Clock()
        self._draw(history)
        self._window.blit(self._canvas.surface, (0, 0))
        pygame.event.pump()
        self._clock.tick(fps)
        pygame.display.flip()

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._canvas.pygame.display.quit()
            self._window = None

    def _draw(self, history: History) -> None:
        drawn = self._core.task.drawing(self._env)
        self._canvas.surface.blit(self._still, (0, 0))
        self._city.draw(self._canvas, drawn)
        self._panel.draw(self._canvas, drawn)
        for k, (area, shown) in enumerate(zip(self._charts, drawn.charts, strict=True)):
            if shown.value is not None:
                points = [(time, values[k] or 0.0) for time, values in history.points]
                chart.strip(self._canvas, area, shown.colour, drawn.time_s, drawn.interval_s, points, shown.least)
