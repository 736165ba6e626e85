"""The tasks by name. A new environment is one line here, a folder under envs, and YAML files."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...errors import ConfigError
from ...settings.fields import nearest

_TASKS: dict[str, str] = {}


def add(name: str, home: str) -> None:
    """Make a task known.

    Args:
        name: as in YAML files: `task: NAME`.
        home: "module:Class" of the Task; the module also holds the environments made from it, named after its title
            (TITLEEnv, TITLECentralEnv, ...), which `envs.register` announces to Gymnasium and PettingZoo.

    Raises:
        ConfigError: the name belongs to another class already.
    """
    if _TASKS.setdefault(name, home) != home:
        raise ConfigError(f"task {name!r} is {_TASKS[name]} already: register {home} under another name")


def names() -> tuple[str, ...]:
    """The tasks that are known, in the order in which they were added."""
    return tuple(_TASKS)


def task(name: str) -> Any:
    """The Task class of that name; its module is imported now.

    Raises:
        ConfigError: no such task.
    """
    if name not in _TASKS:
        raise ConfigError(f"task {name!r} is unknown{nearest(str(name), _TASKS)}; choose among {', '.join(_TASKS)}")
    module, _, attribute = _TASKS[name].partition(":")
    return getattr(import_module(module), attribute)


def config_class(name: str) -> Any:
    """The dataclass of a task's settings.

    Raises:
        ConfigError: no such task.
    """
    return task(name).Config


def home(name: str) -> str:
    """The module of a task, without importing it."""
    return _TASKS[name].partition(":")[0]


def environment(name: str, view: str) -> Any:
    """An environment class of a task, such as "Env", "CentralEnv" or "VecEnv"; its module is imported now.

    Raises:
        ConfigError: no such task.
    """
    return getattr(import_module(home(name)), task(name).title + view)


add("handover", "kvroam.envs.handover:HandoverTask")
