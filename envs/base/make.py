"""A batched core from settings alone."""

from __future__ import annotations

from typing import Any

from . import registry
from .config import TaskConfig
from .core import Core


def make_core(config: TaskConfig, num_envs: int = 1, threads: int = 1, **given: Any) -> Core:
    """The core of the task that `config` belongs to.

    Args:
        config: settings of a registered task.
        num_envs: environments side by side.
        threads: numba threads.
        given: further arguments that the class of this task takes, such as Handover's `scorer`.
    """
    return Core(registry.task(config.task)(config, num_envs, threads, **given))
