"""Policies that do the same at every handover: tHO, cHO, split, token-aware Top-K, stay, fetch behind the scenes."""

from __future__ import annotations

import numpy as np

from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import DETOUR, KV, SPLIT, TOKEN
from ...errors import require
from ..base import label
from .constant import ConstantPlan
from .plans import checked_bits, reactive_plans


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
    """cHO: the whole KV cache crosses the backhaul (baseline of arXiv 2603.28018, L = 0).

    Args:
        bits: precision of the transferred KV; 16 is the paper's.
    """

    name, medium = "cho", KV

    def __init__(self, bits: int = 16) -> None:
        self.bits, self.name = checked_bits(bits), label("cho", bits=(bits, 16))


class SplitHandover(_Fixed):
    """Prefix by prefill and suffix by KV, balanced for each session alone at its handover (ours, after ctHO).

    Args:
        bits: precision of the transferred KV.
    """

    name, medium = "split", SPLIT

    def __init__(self, bits: int = 16) -> None:
        self.bits, self.name = checked_bits(bits), label("split", bits=(bits, 16))


class TokenAware(_Fixed):
    """Token-aware Top-K: only the KV of the most salient tokens crosses the backhaul (clawRxiv 2604.01548).

    The saliency is that of the environment's scorer (scoring.scorer: last-window attention with max-pooling, guarded
    sinks and recent tokens, which measured better than the paper's attention sum).

    Args:
        keep: share of the tokens that is sent, (0, 1]; the paper's default is 0.2.
        bits: precision of the transferred KV; 16 is the paper's.
    """

    name, medium = "token-aware", KV

    def __init__(self, keep: float = 0.2, bits: int = 16) -> None:
        require(0.0 < keep <= 1.0, f"keep is {keep}: it must lie in (0, 1]")
        self.keep, self.bits = keep, checked_bits(bits)
        self.name = label("token-aware", keep=(keep, 0.2), bits=(bits, 16))


class Stay(_Fixed):
    """The session never moves: tokens take the detour through the old gNB for as long as the session lives."""

    name, medium = "stay", DETOUR


class Fetch:
    """Stay at the handover, then bring the session over behind the scenes: no interruption waits for a transfer.

    Args:
        medium: token, kv or split, of the move.
        bits: precision of the transferred KV.
        keep: share of the transferred tokens that is kept, (0, 1].
    """

    def __init__(self, medium: str = "split", bits: int = 16, keep: float = 1.0) -> None:
        require(medium in ("token", "kv", "split"), f"medium is {medium!r}: choose token, kv or split")
        self.plan = ConstantPlan(medium, keep, bits, when="after")
        self.name = label("fetch", medium=(medium, "split"), bits=(bits, 16), keep=(keep, 1.0))

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        return self.plan.act(view)
