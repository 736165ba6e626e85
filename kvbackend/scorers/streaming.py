"""The newest tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Scorer

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class Streaming(Scorer):
    """The newest tokens; with the sinks that every selection guards this is StreamingLLM.

    Source: Xiao et al., arXiv 2309.17453.
    """

    name: ClassVar[str] = "streaming"

    def score(self, view: View) -> np.ndarray:
        """The position, float64 [..., n]."""
        return np.broadcast_to(view.positions, (*view.lead, len(view.keys))).astype(np.float64)
