"""What an environment needs for its `render_mode`: the steps are noted, frames are made when asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from .history import History
from .renderer import Renderer

RENDER_MODES = ("human", "rgb_array")


class Viewer:
    """Renders environment `env` of `core` the way Gymnasium expects it; without a mode it costs nothing.

    Args:
        core: a Core (envs.base.core).
        mode: None, "human" (a window that every step updates) or "rgb_array".
        env: which environment of the core.
        caption: a line under the title.

    Raises:
        gymnasium.error.UnsupportedMode: another mode.
    """

    def __init__(self, core: Any, mode: str | None, env: int = 0, caption: str = "") -> None:
        if mode is not None and mode not in RENDER_MODES:
            from gymnasium.error import UnsupportedMode

            raise UnsupportedMode(f"render_mode is {mode!r}: choose among {', '.join(RENDER_MODES)}, or None")
        self.mode = mode
        self._core, self._env, self._caption = core, env, caption
        self._history = History(env)
        self._renderer: Renderer | None = None

    @property
    def fps(self) -> int:
        """Frames per second at which a video runs as fast as the world it shows."""
        return max(1, round(1.0 / self._core.config.interval_s))

    def update(self) -> None:
        """Note the step (or the reset) that the core has just made; with mode "human" show it."""
        if self.mode is not None:
            self._history.record(self._core)
            if self.mode == "human":
                self._drawn().show(self._history, self.fps)

    def render(self) -> np.ndarray | None:
        """A frame, uint8 [600, 800, 3], with mode "rgb_array"; otherwise None.

        Raises:
            RuntimeError: before the first reset.
            gymnasium.error.DependencyNotInstalled: pygame is absent.
        """
        if self.mode is None:
            from gymnasium import logger

            logger.warn("render() was called without a render mode: give one when the environment is made, "
                        'e.g. render_mode="rgb_array"')
            return None
        self._core.require_reset()
        self._history.record(self._core)
        if self.mode == "human":
            self._drawn().show(self._history, self.fps)
            return None
        return self._drawn().frame(self._history)

    def close(self) -> None:
        """Close the window; the next frame would open a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the surfaces, which cannot be pickled and are drawn again when needed."""
        return self.__dict__ | {"_renderer": None}

    def _drawn(self) -> Renderer:
        if self._renderer is None:
            self._renderer = Renderer(self._core, self._env, caption=self._caption)
        return self._renderer
