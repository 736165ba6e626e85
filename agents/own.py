"""Policies of the user's own: from a file, a module, a class, a function or an object.

A class or factory may take `config` and `seed`: they are given by their names. `act(view)` is all that a policy must
have; `reset(view)` and `name` have defaults.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PolicyError
from .arguments import parsed, types_of

_FILE = re.compile(r"(.+?\.py)(?::(.*))?")
_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?::.*)?)")


class OwnPolicy:
    """A policy with the defaults filled in; what it returns is checked.

    Args:
        policy: an object with `act(view)`, or a function of the view; such a function decides everything itself.
        name: where the policy has none.
        checked: the task's check of plans (agents.base.Catalogue).

    Raises:
        PolicyError: it has no `act`, a `reset` that cannot be called, or a name that is not text.
    """

    def __init__(self, policy: Any, name: str, checked: Callable[[Any, Any, str], np.ndarray]) -> None:
        alone = not hasattr(policy, "act") and callable(policy)
        act, reset, own_name = policy if alone else getattr(policy, "act", None), None, None
        if not alone:
            reset, own_name = getattr(policy, "reset", None), getattr(policy, "name", None)
        if not callable(act):
            raise PolicyError(f"policy {name!r} has no act(view): give it one, which returns plans")
        if reset is not None and not callable(reset):
            raise PolicyError(f"policy {name!r} has a reset that cannot be called: give it reset(view), or none")
        if own_name is not None and (not isinstance(own_name, str) or not own_name):
            raise PolicyError(f"policy {name!r} has the name {own_name!r}: give it a text, or none")
        self.policy, self.name = policy, own_name or name
        self.decides_handovers = alone or bool(getattr(policy, "decides_handovers", False))
        self._act, self._reset, self._checked = act, reset, checked

    def reset(self, view: Any) -> None:
        """A new episode begins everywhere."""
        if self._reset is not None:
            self._reset(view)

    def act(self, view: Any) -> np.ndarray:
        """The policy's plans.

        Raises:
            PolicyError: it returned something else.
        """
        return self._checked(self._act(view), view, self.name)


def is_own(name: str) -> bool:
    """Whether the text has the form of a policy of one's own: FILE.py:CLASS or MODULE:CLASS."""
    return bool(_FILE.fullmatch(name) or _MODULE.fullmatch(name))


def from_text(name: str, config: Any, seed: int) -> tuple[Any, str]:
    """The policy that `FILE.py:CLASS`, `MODULE:CLASS`, or either with `:key=value,key=value`, describes.

    Args:
        name: the text; CLASS is a class, a factory, or a policy object.
        config, seed: for a class or factory that takes them.

    Returns:
        The object, and a name for it: `CLASS`, with the arguments that were given.

    Raises:
        PolicyError: no such file, module or class, or it cannot be run.
    """
    file = _FILE.fullmatch(name)
    if file:
        path, rest = Path(file[1]), file[2] or ""
    else:
        module = _MODULE.fullmatch(name)
        assert module is not None
        rest = module[2]
    kind_name, colon, text = rest.partition(":")
    if not kind_name.isidentifier():
        raise PolicyError(f"policy {name!r} names no class: write {file[1] if file else name}:MyPolicy, with arguments "
                          f"{file[1] if file else name}:MyPolicy:key=value,key=value")
    where = str(path) if file else module[1]  # type: ignore[index]
    space = _run(name, path) if file else _imported(name, where)
    if not hasattr(space, kind_name):
        raise PolicyError(f"policy {name!r}: {where} has no {kind_name}{_offers(space)}")
    found = getattr(space, kind_name)
    if not isinstance(found, type) and hasattr(found, "act") and not colon:
        return found, kind_name
    return built(found, kind_name, config, seed, name, text if colon else None), rest


def built(kind: Any, title: str, config: Any, seed: int, name: str, text: str | None = None) -> Any:
    """What a class or factory makes, with `config` and `seed` where it takes them, and the arguments in `text`.

    Raises:
        PolicyError: an argument is wrong or is left out, or the constructor failed.
    """
    if not callable(kind):
        raise PolicyError(f"policy {name!r}: {title} is {kind!r}: it must be a class or a function that makes a policy")
    try:
        parameters = dict(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        parameters = {}
    any_key = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    parameters = {key: p for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    given = {key: value for key, value in (("config", config), ("seed", seed)) if key in parameters}
    given |= parsed(name, title, text, types_of({k: p for k, p in parameters.items() if k != "config"}), any_key)
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in given]
    if missing:
        raise PolicyError(f"policy {name!r}: {title} needs {', '.join(missing)}: "
                          f"write {title}:{','.join(f'{key}=...' for key in missing)}")
    try:
        return kind(**given)
    except Exception as error:
        raise PolicyError(f"policy {name!r}: {title} cannot be made: {_said(error)}") from error


def _run(name: str, path: Path) -> Any:
    """The module that the file is, executed anew."""
    if not path.is_file():
        raise PolicyError(f"policy {name!r}: the file {str(path)!r} does not exist: check the path")
    # By the whole path, so that two files of one name are two modules; dataclasses look their module up by its name.
    title = "kvroam_own_" + re.sub(r"\W", "_", str(path.resolve().with_suffix("")))
    spec = importlib.util.spec_from_file_location(title, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(title)
    sys.modules[title] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(title)
        if before is not None:
            sys.modules[title] = before
        raise PolicyError(f"policy {name!r}: {path} cannot be run: {_said(error)}") from error
    return module


def _imported(name: str, module: str) -> Any:
    """The module of that name."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module + ".").startswith(error.name + "."):
            raise PolicyError(f"policy {name!r}: there is no module {error.name!r}: install it, put its folder into "
                              "PYTHONPATH, or give its file, mine.py:MyPolicy") from error
        raise PolicyError(f"policy {name!r}: {module} cannot be imported: {_said(error)}") from error
    except Exception as error:
        raise PolicyError(f"policy {name!r}: {module} cannot be imported: {_said(error)}") from error


def _offers(space: Any) -> str:
    """The classes with `act` that a module defines, for a message."""
    found = [key for key, value in vars(space).items()
             if isinstance(value, type) and hasattr(value, "act") and value.__module__ == space.__name__]
    return f": it has {', '.join(found)}" if found else ": define a class with act(view) there"


def _said(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
