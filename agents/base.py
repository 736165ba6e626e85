"""What every policy is, and how the policies of one task are listed: nothing here knows a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class Policy(Protocol):
    """Decides for all agents of all environments at once, from the view of its task."""

    @property
    def name(self) -> str:
        """What tables and figures call it."""

    def reset(self, view: Any) -> None:
        """A new episode begins everywhere."""

    def act(self, view: Any) -> np.ndarray:
        """Plans for the coming decision interval, a record per agent, [E, agents]."""


def label(name: str, **given: tuple[object, object]) -> str:
    """The name of a policy with the arguments that differ from their defaults, as the registry reads it.

    Args:
        name: of the policy.
        given: key=(value, default).
    """
    changed = [f"{key}={float(value)!r}" if isinstance(value, float) else f"{key}={value}"
               for key, (value, default) in given.items() if value != default]
    return f"{name}:{','.join(changed)}" if changed else name


def _nothing(config: Any) -> dict[str, Any]:
    return {}


def _as_it_is(policy: Policy, config: Any) -> Policy:
    return policy


@dataclass(frozen=True)
class Entry:
    """One named policy.

    Args:
        kind: the class.
        does: in one sentence.
        source: paper or "ours".
        assumes: what it takes for granted.
        given: arguments that come from the configuration, or are fixed by the name.
        role: what results call it: "heuristic"; "constant", one plan for all; or "upper_bound", which knows what no
            policy could, so that nobody competes with it.
    """

    kind: Callable[..., Policy]
    does: str
    source: str
    assumes: str
    given: Callable[[Any], dict[str, Any]] = _nothing
    role: str = "heuristic"

    def arguments(self, config: Any) -> dict[str, Any]:
        """The arguments that a user may give, with their defaults."""
        fixed = self.given(config)
        return {name: parameter.default for name, parameter in inspect.signature(self.kind).parameters.items()
                if name not in fixed}


@dataclass(frozen=True)
class Tunables:
    """A policy whose numbers can be learned (`train.algorithm: evolution`).

    Args:
        names: of the numbers.
        make: called as make(numbers, config), float64 [len(names)], or one row per environment; the origin is the
            policy as it was set by hand, and 1 is one standard deviation of where to look first.
    """

    names: tuple[str, ...]
    make: Callable[[np.ndarray, Any], Policy]


@dataclass(frozen=True)
class Catalogue:
    """The policies of one task; `agents/<task>/catalogue.py` has one as CATALOGUE.

    Args:
        checked: called as checked(plans, view, name) on what a user's own policy returned: the plans, or PolicyError.
        entries: the named policies.
        aliases: names for arguments that are often wanted, `alias: name:key=value`.
        adapted: called as adapted(policy, config): the policy as it can act under that configuration.
        tunable: the policy whose numbers can be learned, if there is one.
    """

    checked: Callable[[Any, Any, str], np.ndarray]
    entries: Mapping[str, Entry]
    aliases: Mapping[str, str] = field(default_factory=dict)
    adapted: Callable[[Policy, Any], Policy] = _as_it_is
    tunable: Tunables | None = None
