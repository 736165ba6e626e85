"""A batched core from settings alone."""

from __future__ import annotations

from . import registry
from .config import TaskConfig
from .core import Core


def make_core(config: TaskConfig, num_envs: int = 1, threads: int = 1) -> Core:
    """The core of the task that `config` belongs to.

    Args:
        config: settings of a registered task.
        num_envs: environments side by side.
        threads: numba threads.
    """
    return Core(registry.task(config.task)(config, num_envs, threads))
