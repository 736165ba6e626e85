"""Policies that do the same at every handover: tHO, cHO and token-aware Top-K."""

from __future__ import annotations

import numpy as np

from ..envs.sim.state import KV, TOKEN
from ..envs.view import NetworkView
from ..errors import require
from .base import reactive_plans


class _Fixed:
    """Reactive, always the same medium, keep ratio and precision; transfers share the backhaul equally."""

    name: str
    medium: int
    keep: float = 1.0
    bits: int = 16

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """The same plan for everybody, PLAN [E, U]."""
        return reactive_plans(view, self.medium, self.keep, self.bits)


class TokenHandover(_Fixed):
    """tHO: the target rebuilds the whole cache from token ids (baseline of arXiv 2603.28018, L = C_max)."""

    name, medium = "tho", TOKEN


class CacheHandover(_Fixed):
    """cHO: the whole KV cache crosses the backhaul (baseline of arXiv 2603.28018, L = 0)."""

    name, medium = "cho", KV


class TokenAware(_Fixed):
    """Token-aware Top-K: only the KV of the most salient tokens crosses the backhaul (clawRxiv 2604.01548).

    The saliency is that of the environment's scorer (scoring.scorer: last-window attention with max-pooling, guarded
    sinks and recent tokens, which measured better than the paper's attention sum).

    Args:
        keep: share of the tokens that is sent, (0, 1]; the paper's default is 0.2.
    """

    name, medium = "token-aware", KV

    def __init__(self, keep: float = 0.2) -> None:
        require(0.0 < keep <= 1.0, f"keep is {keep}: it must lie in (0, 1]")
        self.keep = keep
