"""Attention of the newest queries, unpooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Scorer, require_at_least

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class WindowRaw(Scorer):
    """Attention that the newest queries pay to a token.

    Source: the observation window of SnapKV, arXiv 2404.14469.
    """

    name: ClassVar[str] = "window-raw"
    window: int = 32  # [tokens] newest queries whose attention ranks the keys

    def __post_init__(self) -> None:
        require_at_least(1, window=self.window)

    def score(self, view: View) -> np.ndarray:
        """Attention summed over the window's queries, float64 [..., n]."""
        return view.attention(max(0, view.stop - self.window))
