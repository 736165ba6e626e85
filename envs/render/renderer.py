"""One frame of one environment: map, panel and charts, as an array or in a window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import require
from . import chart, palette
from .canvas import Canvas
from .city import City
from .panel import Panel
from .reading import History

SMALLEST = (760, 560)
_PANEL_WIDTH, _CHART_HEIGHT, _GAP = 232, 104, 6


class Renderer:
    """Draws environment `env` of a HandoverCore that has been reset.

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
        self._canvas = Canvas(size)
        width = size[0] - _PANEL_WIDTH
        self._canvas.surface.fill(palette.GROUND)
        self._city = City(self._canvas, core, env, (0, 0, width, size[1] - _CHART_HEIGHT - _GAP))
        self._panel = Panel(self._canvas, core, env, (width, 0, _PANEL_WIDTH, size[1]), caption)
        top, half = size[1] - _CHART_HEIGHT, (width - 2 * _GAP) // 2
        self._lost = (0, top, half, _CHART_HEIGHT)
        self._drift = (half + _GAP, top, half, _CHART_HEIGHT)
        step = f"{core.sim.interval_s:g} s"
        chart.frame(self._canvas, self._lost, f"service lost per {step} [ms], all users")
        measured = ", all users" if core.scorer is not None else ": not measured"
        chart.frame(self._canvas, self._drift, f"drift per {step} [nat]{measured}")
        self._still = self._canvas.surface.copy()
        self._window: Any = None
        self._clock: Any = None

    @property
    def gnb_px(self) -> np.ndarray:
        """Where the gNBs are in a frame, (x, y), float [C, 2]."""
        return self._city.gnb_px

    def user_px(self) -> np.ndarray:
        """Where the users are in a frame now, (x, y), float [U, 2]."""
        return self._city.pixel(self._core.view.position_m[self._env])

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
        canvas, core = self._canvas, self._core
        canvas.surface.blit(self._still, (0, 0))
        self._city.draw(canvas)
        self._panel.draw(canvas)
        now = float(core.sim.state.world[self._env]["time_s"])
        points = list(history.points)
        dt = core.sim.interval_s
        chart.strip(canvas, self._lost, palette.VERMILLION, now, dt, [(t, lost) for t, lost, _ in points], 100.0)
        if core.scorer is not None:
            chart.strip(canvas, self._drift, palette.YELLOW, now, dt, [(t, nats) for t, _, nats in points], 1.0)
