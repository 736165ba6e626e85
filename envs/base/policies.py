"""How the environments get at policies: the package `agents` stands above them, so it is told to them, not imported."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np

_MAKER = "kvroam.agents:make"


class Policy(Protocol):
    """Decides for all agents of all environments at once."""

    name: str

    def reset(self, view: Any) -> None:
        """A new episode begins everywhere."""

    def act(self, view: Any) -> np.ndarray:
        """Plans for the coming decision interval [E, A], as `Task.decode` returns them."""


def make(given: Any, config: Any, seed: int = 0) -> Policy:
    """A policy from its name, its checkpoint, an object with `act`, or a function from the view to plans.

    Args:
        given: what the user gave.
        config: settings of the environment it will act in.
        seed: of policies that draw random numbers.

    Raises:
        PolicyError: no such policy.
    """
    module, _, attribute = _MAKER.partition(":")
    maker: Callable[..., Policy] = getattr(import_module(module), attribute)
    return maker(given, config, seed)
