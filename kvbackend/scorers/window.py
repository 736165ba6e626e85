"""Attention of the newest queries, pooled over neighbours: the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Scorer, require_at_least, require_odd

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class Window(Scorer):
    """Attention that the newest queries pay to a token or to one close to it: neighbours share an answer.

    Without pooling, the second token of an answer is lost whose first token is asked for.

    Source: SnapKV, arXiv 2404.14469.
    """

    name: ClassVar[str] = "window"
    window: int = 32  # [tokens] newest queries whose attention ranks the keys
    pool: int = 5  # [tokens] width of the max-pool over positions, odd

    def __post_init__(self) -> None:
        require_at_least(1, window=self.window, pool=self.pool)
        require_odd(pool=self.pool)

    def score(self, view: View) -> np.ndarray:
        """The largest attention within the pool, float64 [..., n]."""
        return view.pooled(view.attention(max(0, view.stop - self.window)), self.pool)
