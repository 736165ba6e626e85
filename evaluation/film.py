"""An episode of a policy as frames; kvroam.envs.render.video writes them into a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..envs.base.make import make_core
from ..envs.render.history import History
from ..envs.render.renderer import Renderer
from ..envs.render.video import frames_of
from .rollout import rollout


def film(environment: Any, player: Any, seed: int, start_s: float = 0.0,
         seconds: float | None = None) -> Iterator[np.ndarray]:
    """Play one episode and yield a frame per decision interval, uint8 [600, 800, 3].

    Args:
        environment: its configuration.
        player: a policy (kvroam.agents).
        seed: of the episode.
        start_s: the first frame is that of this time [s].
        seconds: length of the video [s]; None: to the end of the episode.

    Raises:
        ConfigError: nothing of the episode lies in that time.
    """
    first, last = frames_of(environment, start_s, seconds)
    core, history = make_core(environment), History(0)
    renderer = None
    for step in rollout(core, player, [seed], last):
        if renderer is None:
            renderer = Renderer(core, caption=f"policy {player.name}, seed {seed}")
        else:
            history.record(core)
        if step >= first:
            yield renderer.frame(history)
