"""The length of the key alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Scorer

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class KeyNorm(Scorer):
    """Minus the L2 norm of the key, mean over layers and heads: short keys stay.

    Source: Devoto et al., arXiv 2406.11430.
    """

    name: ClassVar[str] = "key-norm"

    def score(self, view: View) -> np.ndarray:
        """Minus the norm, float64 [..., n]."""
        return view.shared(-view.keys.float().norm(dim=-1).permute(1, 2, 0))
