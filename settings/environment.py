"""The environment's part of an experiment file, for those who make an environment and neither train nor evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from .fields import build, show
from .loader import overridden, read

# Keys of an experiment file that are not the environment's.
TASK, SECTIONS = "task", ("train", "evaluate")
DEFAULT_TASK = "handover"

C = TypeVar("C")


def environment(cls: type[C], task: str, config: C | Mapping | str | Path | None,
                overrides: Sequence[str] = ()) -> C:
    """The configuration of an environment from what a user may pass.

    Args:
        cls: the dataclass of the configuration.
        task: name of the environment.
        config: an object of `cls`, which is returned as it is; a mapping of its keys; a YAML path; a shipped name; or
            None for the shipped file that is called like the environment. `train` and `evaluate` are left aside.
        overrides: "key.sub=value" strings, for all but an object.

    Raises:
        ConfigError: an unknown key, a value out of range, a file that does not exist, or one for another environment.
    """
    if isinstance(config, cls):
        return config
    if config is not None and not isinstance(config, (Mapping, str, Path)):
        hint = "; give its .environment" if hasattr(config, "environment") else ""
        raise ConfigError(f"config is {show(config)}; expected {cls.__name__}, a mapping, a YAML file or a shipped "
                          f"name{hint}")
    given = task if config is None else config
    where = "config" if isinstance(given, Mapping) else str(given)
    mapping = overridden(given if isinstance(given, Mapping) else read(given), overrides)
    # A mapping may leave out its task; a file without one is for the default task.
    named = mapping.get(TASK, DEFAULT_TASK if isinstance(config, (str, Path)) else task)
    if named != task:
        raise ConfigError(f"{where}: task is {show(named)}; this environment is {task!r}")
    return build(cls, without_sections(mapping), where=where)


def without_sections(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an experiment file that are the environment's."""
    return {key: value for key, value in mapping.items() if key not in (TASK, *SECTIONS)}
