"""What a scorer says of one step."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .world.simulator import Simulator


@dataclass
class Scores:
    """What the language model says of one step, [E, U] each; sums over the step's tokens."""

    kl: np.ndarray  # KL(whole cache || this cache) [nat]
    js: np.ndarray  # Jensen-Shannon divergence [nat]
    delta_nll: np.ndarray  # extra surprise at the script's own tokens [nat]
    top1: np.ndarray  # tokens at which both caches predict the same next token
    measured: np.ndarray  # tokens of the measured model that were produced
    hot_hits: np.ndarray  # right answers about facts in recent use
    hot_total: np.ndarray
    cold_hits: np.ndarray  # right answers about facts not asked for lately
    cold_total: np.ndarray
    strict_hits: np.ndarray  # right answers that only what survived the session's last lossy handover can give
    strict_total: np.ndarray  # questions that ask for it: the fact was told before that handover, and never since
    wrong: np.ndarray  # answers that the whole cache gets right and this cache gets wrong

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> Scores:
        """Scores of a step in which nothing was produced."""
        return cls(**{f.name: np.zeros(shape) for f in fields(cls)})


class Scorer(Protocol):
    """Who says what a step did to the sessions of E environments; `make_scorer` makes the one that is set."""

    def reset(self, sim: Simulator, envs: np.ndarray) -> None:
        """The sessions of the environments `envs` begin anew, with whole caches."""

    def score(self, sim: Simulator) -> Scores:
        """Follow the step that `sim` has just made; to be asked once per step. May set ue.healthy."""

    def charged(self, scores: Scores) -> np.ndarray:
        """KL divergence that the reward charges for the step just scored [E, U] [nat]."""

    def save(self) -> Any:
        """What the next step depends on, as plain data."""

    def restore(self, saved: Any) -> None:
        """Take over what `save` returned."""
