"""What the settings of every environment have in common, and how they are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ...settings.environment import environment
from ...settings.loader import shipped

C = TypeVar("C", bound="TaskConfig")


class TaskConfig:
    """Base of a task's settings, which are a frozen dataclass with at least these two fields."""

    task: ClassVar[str]  # the name of the task that they are for
    interval_s: float  # decision interval [s]
    episode_s: float  # the horizon, at which an episode is truncated [s]

    @property
    def max_steps(self) -> int:
        """Decision intervals of one episode."""
        return round(self.episode_s / self.interval_s)


def resolve(kind: type[C], config: C | Mapping[str, Any] | str | Path | None, overrides: Sequence[str] = ()) -> C:
    """The settings of an environment from what a user may pass.

    Args:
        kind: the settings' class.
        config: an instance, a mapping of its keys, the path of a YAML file, the name of a shipped one, or None (the
            shipped file that has the name of the task, or else the defaults). The sections `train` and `evaluate` of
            a file are left aside.
        overrides: "key.sub=value", for files and names.

    Raises:
        ConfigError: unknown key, value out of range, file that does not exist, or the file of another task.
    """
    if config is None and kind.task not in shipped():
        config = {}
    return environment(kind, kind.task, config, overrides)
