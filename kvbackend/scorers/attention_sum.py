"""Attention of all queries, without the bias to old tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Scorer, require_at_least

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class AttentionSum(Scorer):
    """Attention of all queries per query that could see the token.

    Source: I(t) of ChaoHu, clawRxiv 2604.01548, divided by the number of queries that see t.
    """

    name: ClassVar[str] = "attention-sum"
    window: int = 32  # [tokens] least divisor: the newest tokens are seen by few queries, mostly by themselves

    def __post_init__(self) -> None:
        require_at_least(1, window=self.window)

    def score(self, view: View) -> np.ndarray:
        """Mean attention, float64 [..., n]."""
        return view.attention(0) / np.maximum(view.stop - view.positions, self.window)
