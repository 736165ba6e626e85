"""The environments by name, each as "module:Class", so that naming one imports only that one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...errors import ConfigError
from ...settings.fields import nearest

_PATHS: dict[str, str] = {}


def add(name: str, path: str) -> None:
    """Register an environment under a name.

    Args:
        name: what `task:` in a YAML file says.
        path: "module:Class".

    Raises:
        ConfigError: the name belongs to another class already.
    """
    if _PATHS.setdefault(name, path) != path:
        raise ConfigError(f"task {name!r} is {_PATHS[name]} already: register {path} under another name")


def names() -> tuple[str, ...]:
    """The registered names."""
    return tuple(_PATHS)


def task(name: str) -> Any:
    """The class that is registered under a name; its module is imported now.

    Raises:
        ConfigError: there is no such name.
    """
    if name not in _PATHS:
        raise ConfigError(f"task {name!r} is unknown{nearest(str(name), _PATHS)}; choose among {', '.join(_PATHS)}")
    module, _, attribute = _PATHS[name].partition(":")
    return getattr(import_module(module), attribute)


def config_class(name: str) -> type[Any]:
    """The dataclass of an environment's settings.

    Raises:
        ConfigError: there is no such environment.
    """
    return task(name)


def name_of(config: Any) -> str:
    """The name of the environment that a configuration belongs to.

    Raises:
        ConfigError: it is the configuration of no registered environment.
    """
    for name in names():
        if type(config) is config_class(name):
            return name
    raise ConfigError(f"{type(config).__name__} is the configuration of no environment; those are {', '.join(_PATHS)}")


add("handover", "kvroam.envs.handover.config:HandoverConfig")
