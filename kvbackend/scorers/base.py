"""What every scorer is: a few parameters of its own, and one method that ranks the tokens of a cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import ConfigError

if TYPE_CHECKING:
    from .view import View


class Scorer(ABC):
    """A way to rank cached tokens: those with the highest scores stay.

    A scorer is a frozen dataclass: its fields are its parameters. A new one is a file like its neighbours, and its name
    in `table.SCORERS`; without that, an object of it can be given to `KVSettings` all the same.
    """

    name: ClassVar[str]

    @property
    def prefill_per_token(self) -> float:
        """What a ranking makes the model read, in tokens of prefill per token of context; 0: what is there is enough.

        Whoever simulates a server must charge it, once per cache that is ranked.
        """
        return 0.0

    @abstractmethod
    def score(self, view: View) -> np.ndarray:
        """Scores of the rows of a view, float64 [n], or [L, Hkv, n] where heads choose for themselves."""


def require_odd(**values: int) -> None:
    """Raise ConfigError if the width of a pool is even."""
    for name, value in values.items():
        if value % 2 == 0:
            raise ConfigError(f"{name} = {value} is even; use an odd width such as {value + 1}")


def require_at_least(least: int, **values: int) -> None:
    """Raise ConfigError if a parameter is below `least`."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"{name} = {value} is below {least}; raise it")
