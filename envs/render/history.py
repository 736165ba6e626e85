"""The values of the charts over the last seconds."""

from __future__ import annotations

from collections import deque
from typing import Any

HISTORY_S = 20.0


class History:
    """The charts' values per step over the last HISTORY_S seconds of environment `env`."""

    def __init__(self, env: int = 0) -> None:
        self.env = env
        self.points: deque[tuple[float, tuple[float | None, ...]]] = deque()  # time [s], one value per chart

    def record(self, core: Any) -> None:
        """Add the step that `core` has just made; the same step twice counts once, a new episode begins anew."""
        drawn = core.task.drawing(self.env)
        now = drawn.time_s
        if self.points and now < self.points[-1][0]:
            self.points.clear()
        if now <= 0.0 or (self.points and now == self.points[-1][0]):
            return
        self.points.append((now, tuple(chart.value for chart in drawn.charts)))
        while self.points[0][0] <= now - HISTORY_S + 1e-9:
            self.points.popleft()
