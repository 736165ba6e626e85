"""Policies by name, and learned ones by the path of their checkpoint."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from ..envs.config import HandoverConfig
from ..errors import PolicyError
from .base import Policy
from .ctho import CtHO
from .fixed import CacheHandover, TokenAware, TokenHandover
from .following import in_charge
from .jmsra import JMSRA
from .random import RandomPolicy

_MAKERS: dict[str, Callable[[HandoverConfig, int], Policy]] = {
    "random": lambda config, seed: RandomPolicy(config.actions, seed),
    "tho": lambda config, seed: TokenHandover(),
    "cho": lambda config, seed: CacheHandover(),
    "ctho": lambda config, seed: CtHO(),
    "jmsra": lambda config, seed: JMSRA(),
    "token-aware": lambda config, seed: TokenAware(),
}


def names() -> tuple[str, ...]:
    """The named policies."""
    return tuple(_MAKERS)


def make(name: str, config: HandoverConfig, seed: int = 0) -> Policy:
    """The policy of that name, or the learned one at that path.

    Args:
        name: one of `names()`, a checkpoint written by train.py, or the run folder that holds it.
        config: the environment it will act in.
        seed: of policies that draw random numbers.

    Raises:
        PolicyError: no such name and no such file, or a checkpoint made for other spaces.
    """
    if name in _MAKERS:
        return in_charge(_MAKERS[name](config, seed), config.actions)
    path = Path(name)
    if path.exists():
        from .learned import LearnedPolicy

        return LearnedPolicy(path, config)
    if path.suffix or len(path.parts) > 1:
        raise PolicyError(f"checkpoint {name!r} does not exist: train one with train.py, or give one of "
                          f"{', '.join(_MAKERS)}")
    near = difflib.get_close_matches(name, _MAKERS, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise PolicyError(f"policy {name!r} is unknown: {hint}choose among {', '.join(_MAKERS)}, "
                      "or give the path of a checkpoint")
