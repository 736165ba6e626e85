"""Chance: what any other scorer has to beat."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Scorer, require_at_least

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class Random(Scorer):
    """Chance, seeded by the tokens too, so that a repeated experiment repeats its choice."""

    name: ClassVar[str] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(0, seed=self.seed)

    def score(self, view: View) -> np.ndarray:
        """Uniform numbers in [0, 1), float64 [..., n]."""
        content = view.session.reference.tokens[: view.stop].tobytes()
        digest = hashlib.blake2b(content, digest_size=8).digest()
        generator = np.random.default_rng([self.seed, int.from_bytes(digest, "little")])
        draws = generator.random((*view.lead, view.stop))
        where = np.broadcast_to(view.positions, (*view.lead, len(view.keys)))
        return np.take_along_axis(draws, np.clip(where, 0, view.stop - 1), axis=-1)
