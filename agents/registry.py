"""Policies of every task: by name and arguments, of the user's own, and trained ones by name or file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PolicyError
from . import own
from .arguments import parsed
from .base import Catalogue, Policy
from .learned import trained
from .policy_file import SUFFIX

HEURISTIC, LEARNED, UPPER_BOUND = "heuristic", "learned", "upper_bound"


def tasks() -> tuple[str, ...]:
    """The tasks that have policies: the folders here that have a catalogue.py."""
    package = importlib.import_module(__package__)
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg))


@cache
def catalogue(task: str) -> Catalogue:
    """The policies of a task.

    Raises:
        PolicyError: no such task.
    """
    if task not in tasks():
        raise PolicyError(f"task {task!r} has no policies: choose among {', '.join(tasks())}")
    return importlib.import_module(f".{task}.catalogue", __package__).CATALOGUE


def names(task: str = "handover") -> tuple[str, ...]:
    """The named policies of a task.

    Raises:
        PolicyError: no such task.
    """
    return tuple(catalogue(task).entries)


@cache
def shipped(task: str = "handover") -> Mapping[str, Path]:
    """The trained policies that ship with a task, `agents/<task>/shipped/NAME.safetensors`: their files by name.

    Raises:
        PolicyError: no such task.
    """
    catalogue(task)
    folder = Path(str(resources.files(f"{__package__}.{task}"))) / "shipped"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def file_of(text: str, config: Any) -> Path:
    """The policy file or run folder that is meant by the name of a shipped policy, or by a path.

    Args:
        text: name or path.
        config: the environment's.
    """
    task = getattr(type(config), "task", "")
    return (shipped(task) if task in tasks() else {}).get(text, Path(text))


def make(given: Any, config: Any, seed: int = 0) -> Policy:
    """The policy that is meant, ready to act in the environment of that configuration.

    Args:
        given: one of
            a name of `names()`, alone or with arguments (`token-aware:keep=0.1,bits=8`), or an alias (`cho-int8`);
            `FILE.py:CLASS` or `MODULE:CLASS`, alone or with arguments (`mine.py:MyPolicy:limit=2000`);
            a name of `shipped()`, a trained policy;
            a policy file (.safetensors), or the run folder of train.py that holds one;
            an object with `act(view)`, a class of such objects, or a function of the view that returns plans.
        config: the environment it will act in; its `task` says whose policies are meant.
        seed: for a class or factory of the user's own that takes `seed`.

    Returns:
        A policy with `name`, `reset(view)` and `act(view)`. Under actions.trigger policy it follows event A3 unless it
        has `decides_handovers = True`; a function decides all.

    Raises:
        PolicyError: no such name, file, module or class; an argument that does not exist or cannot be; a class that
            cannot be made or has no `act`; a policy file that is damaged, altered or made for other
            spaces; `given` is nothing of the kind.
    """
    listed = _catalogue_of(config)
    if isinstance(given, (str, Path)):
        return _by_text(str(given), listed, config, seed)
    if isinstance(given, type):
        given, name = own.built(given, given.__name__, config, seed, given.__name__), given.__name__
    elif hasattr(given, "act"):
        name = type(given).__name__
    elif callable(given):
        name = getattr(given, "__name__", type(given).__name__)
    else:
        raise PolicyError(f"{given!r} is not a policy: give a name, FILE.py:CLASS, MODULE:CLASS, a policy file, "
                          "an object with act(view), or a function of the view")
    return _owned(given, name, listed, config)


def role(given: Any, config: Any) -> str:
    """What results call a policy that `make` takes.

    Returns:
        "learned" for a checkpoint; else what the catalogue says (agents.base.Entry), "heuristic" for a policy of the
        user's own.
    """
    listed = _catalogue_of(config)
    if not isinstance(given, (str, Path)):
        return HEURISTIC
    base = str(given).partition(":")[0]
    base = listed.aliases.get(base, base).partition(":")[0]
    if base in listed.entries:
        return listed.entries[base].role
    return HEURISTIC if own.is_own(str(given)) else LEARNED


def _by_text(name: str, listed: Catalogue, config: Any, seed: int) -> Policy:
    base, colon, text = name.partition(":")
    arguments = [text] if colon else []
    if base in listed.aliases:
        base, _, fixed = listed.aliases[base].partition(":")
        arguments.insert(0, fixed)
    if base in listed.entries:
        entry = listed.entries[base]
        types = {key: type(default) for key, default in entry.arguments(config).items()}
        found = parsed(name, base, ",".join(arguments) if arguments else None, types)
        try:
            return listed.adapted(entry.kind(**entry.given(config), **found), config)
        except ValueError as error:
            raise PolicyError(f"policy {name!r}: {error}") from error
    if own.is_own(name):
        return _owned(*own.from_text(name, config, seed), listed, config)
    path = file_of(name, config)
    if path.exists():
        return listed.adapted(trained(path, config, listed.tunable), config)
    known = shipped(config.task) if config.task in tasks() else {}
    every = ", ".join([*listed.entries, *known])
    if path.suffix[1:].isalpha() or len(path.parts) > 1:
        raise PolicyError(f"policy file {name!r} does not exist: train one with train.py, or give one of {every}")
    near = difflib.get_close_matches(base, [*listed.entries, *listed.aliases, *known], 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise PolicyError(f"policy {name!r} is unknown: {hint}choose among {every}, or give a policy file, "
                      "FILE.py:CLASS or MODULE:CLASS")


def _owned(policy: Any, name: str, listed: Catalogue, config: Any) -> Policy:
    return listed.adapted(own.OwnPolicy(policy, name, listed.checked), config)


def _catalogue_of(config: Any) -> Catalogue:
    """The policies of the task that the configuration belongs to; none are named for a task without a folder here."""
    name = getattr(type(config), "task", None)
    if name is None:
        raise PolicyError(f"config is a {type(config).__name__}: give the configuration of an environment "
                          f"({', '.join(tasks())})")
    return catalogue(name) if name in tasks() else Catalogue(_checked_by_task, {})


def _checked_by_task(plans: Any, view: Any, name: str) -> np.ndarray:
    """Plans as the task of the view wants them."""
    try:
        return view.task.check_plans(plans)
    except ValueError as error:
        raise PolicyError(f"policy {name!r} returned what cannot be followed: {error}") from error
