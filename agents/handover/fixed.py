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

    The saliency is that of the environment's scorer (scoring.scorer), which measured better than the paper's attention
    sum.

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
    """The session never moves: tokens take the detour through the old gNB for as long as the session lives.

    Out of reach of forwarding it must: it is then rebuilt from token ids (the world's rule), as by tHO.
    """

    name, medium = "stay", DETOUR


class _Rule:
    """A constant plan under a name of its own."""

    plan: ConstantPlan
    name: str

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        return self.plan.act(view)


class Fetch(_Rule):
    """Stay at the handover, then bring the session over behind the scenes: no interruption waits for a transfer.

    Where nothing can be forwarded, the session moves in the same way at the handover.

    Args:
        medium: token, kv or split, of the move.
        bits: precision of the transferred KV.
        keep: share of the transferred tokens that is kept, (0, 1].
    """

    def __init__(self, medium: str = "split", bits: int = 16, keep: float = 1.0) -> None:
        require(medium in ("token", "kv", "split"), f"medium is {medium!r}: choose token, kv or split")
        self.plan = ConstantPlan(medium, keep, bits, when="after")
        self.name = label("fetch", medium=(medium, "split"), bits=(bits, 16), keep=(keep, 1.0))


class Deadline(_Rule):
    """Prepare the most salient part of the cache a fixed time before the predicted handover; the rest follows.

    It resumes on what has arrived, and the rest leaves most of the links to those who still prepare.

    Args:
        lead_s: the fixed time [s].
        medium: token, kv or split.
        keep: the part, (0, 1].
        bits: precision of the transferred KV.
    """

    def __init__(self, lead_s: float = 5.0, medium: str = "kv", keep: float = 0.25, bits: int = 4) -> None:
        require(medium in ("token", "kv", "split"), f"medium is {medium!r}: choose token, kv or split")
        self.plan = ConstantPlan(medium, keep, bits, when="predicted", backfill=0.1, arrival="resume", lead_s=lead_s)
        self.name = label("deadline", lead_s=(lead_s, 5.0), medium=(medium, "kv"), keep=(keep, 0.25), bits=(bits, 4))


class PreCopy(_Rule):
    """Send the whole cache as soon as a handover is predicted, resume on what has arrived; the rest follows.

    As virtual machines are moved by pre-copy (Clark et al., NSDI 2005); to resume on a part is ours.

    Args:
        bits: precision of the transferred KV.
    """

    def __init__(self, bits: int = 4) -> None:
        self.plan = ConstantPlan("kv", 1.0, bits, when="predicted", backfill=1.0, arrival="resume", lead_s=5.0)
        self.name = label("pre-copy", bits=(bits, 4))


class PostCopy(_Rule):
    """Send the most salient part at the handover, resume on it; the rest follows.

    As virtual machines are moved by post-copy (Hines and Gopalan, VEE 2009).

    Args:
        keep: the part, (0, 1].
        bits: precision of the transferred KV.
    """

    def __init__(self, keep: float = 0.1, bits: int = 4) -> None:
        self.plan = ConstantPlan("kv", keep, bits, backfill=1.0)
        self.name = label("post-copy", keep=(keep, 0.1), bits=(bits, 4))
