"""A film of the policy that a training has come to, for TensorBoard and the run folder, where a task can be drawn."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from ..agents.learned import LearnedPolicy
from ..agents.policy_file import PolicyFile
from ..compat import add_gif
from ..envs.base import registry
from ..envs.base.task import Task
from ..envs.render import video
from ..envs.render.canvas import load_pygame
from ..evaluation.film import film

CLIP = "clip.gif"
SECONDS = 6.0  # of an episode, from its middle on [s]
_EVERY = 2  # decision intervals per frame


def write(out: Path, config: Any, found: PolicyFile, seed: int, writers: Iterable[Any]) -> Path | None:
    """Film an episode into `clip.gif`, and show it in TensorBoard.

    Args:
        out: run folder.
        config: of the environment.
        found: who plays.
        seed: of the episode.
        writers: of TensorBoard.

    Returns:
        The path; None where the task draws nothing, or pygame is absent.
    """
    from gymnasium.error import DependencyNotInstalled

    if registry.task(config.task).drawing is Task.drawing:
        return None
    try:
        load_pygame()
    except DependencyNotInstalled:
        return None
    start_s = config.interval_s * (config.max_steps // 2)
    frames = film(config, LearnedPolicy(found, config), seed, start_s, SECONDS)
    path = out / CLIP
    video.write(path, islice(frames, 0, None, _EVERY), 1.0 / (_EVERY * config.interval_s))
    for writer in writers:
        add_gif(writer, "clip", path.read_bytes(), found.about.steps)
        writer.flush()
    return path
