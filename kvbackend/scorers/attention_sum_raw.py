"""Attention of all queries, as in the paper on token-aware mobility."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Scorer

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class AttentionSumRaw(Scorer):
    """Attention of all queries summed over heads, averaged over layers.

    Old tokens are seen by more queries and win; that, and the attention sinks, is what it is known to rank by.

    Source: I(t) of ChaoHu, clawRxiv 2604.01548.
    """

    name: ClassVar[str] = "attention-sum-raw"

    def score(self, view: View) -> np.ndarray:
        """I(t), float64 [..., n]."""
        return view.attention(0) * view.heads_per_list
