"""Which cached tokens matter: one short class per published or obvious way to rank them."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ConfigError, PayloadError
from .forward import LanguageModel
from .kernels import causal_softmax, pooled, spread
from .sessions import Session
from .settings import KVSettings

_QUERIES_AT_ONCE = 128
_WEIGHTS_AT_ONCE = 1 << 27  # numbers in one block of attention weights: half a GiB


class View:
    """What a scorer may look at: the cache as the source sees it when `stop` tokens have been fed.

    A scorer returns float64 [n], one score per row, or [L, Hkv, n] where tokens are chosen per layer and KV head; both
    shapes are called [..., n] here. Scores of rows that a head does not hold (position -1) mean nothing.

    Args:
        session: its rows at positions below `stop` are ranked.
        stop: the snapshot [tokens].
        scaling: factor of the dot product, usually head_dim ** -0.5.

    Attributes:
        positions: int [n], or [L, Hkv, n] with -1 for none where the heads of the cache hold different tokens.
        keys: [n, L, Hkv, D].
        per_head: whether the scores are [L, Hkv, n].
    """

    def __init__(self, session: Session, stop: int, scaling: float, settings: KVSettings) -> None:
        self.session, self.stop, self.scaling, self.settings = session, stop, scaling, settings
        positions = session.positions
        if positions.ndim == 1:
            self.positions = positions[: int(np.searchsorted(positions, stop))]
        else:
            self.positions = np.ascontiguousarray(positions.transpose(1, 2, 0))
        self.keys = session.kv[: self.positions.shape[-1], :, 0]
        self._turned: torch.Tensor | None = None
        self.per_head = settings.scope == "head" or positions.ndim == 3
        self.lead: tuple[int, ...] = tuple(self.keys.shape[1:3]) if self.per_head else ()

    def attention(self, start: int) -> np.ndarray:
        """Attention that queries of positions [start, stop) pay to each row, float64 [..., n].

        Summed over queries, averaged over the heads that share a list: all of them, or those of one KV head. A query
        sees rows at its own position and before.

        Raises:
            PayloadError: a key is NaN or infinite.
        """
        monitor = self.session.monitor
        if monitor is not None and (known := monitor.attention(self, start)) is not None:
            return known
        mass = torch.zeros(*self.lead, len(self.keys), dtype=torch.float64)
        per_query = math.prod(self.session.reference.queries.shape[1:3]) * max(1, len(self.keys))
        step = min(_QUERIES_AT_ONCE, max(1, _WEIGHTS_AT_ONCE // per_query))
        for lo in range(start, self.stop, step):
            hi = min(lo + step, self.stop)
            mass += self._reduced(self._weights(lo, hi).sum(3)).double().cpu()
        return mass.numpy()

    def attention_rows(self, start: int, stop: int) -> torch.Tensor:
        """As `attention`, query by query: float32 [..., stop - start, n]."""
        return self._reduced(self._weights(start, stop))

    def _weights(self, start: int, stop: int) -> torch.Tensor:
        """Attention that queries of positions [start, stop) pay, float32 [L, Hkv, heads per KV head, queries, n]."""
        queries = self.session.queries(start, stop)
        count, layers, heads, dim = queries.shape
        if self._turned is None:
            self._turned = self.keys.to(queries.dtype).permute(1, 2, 3, 0)  # [L, Hkv, D, n]
        keys, kv_heads = self._turned, self.keys.shape[2]
        grouped = queries.permute(1, 2, 0, 3).reshape(layers, kv_heads, heads // kv_heads * count, dim)
        if self.positions.ndim == 1 and keys.device.type == "cpu" and keys.dtype == torch.float32:
            return self._compiled(grouped @ keys, start, count)
        scores = (grouped @ keys).float().mul_(self.scaling).unflatten(2, (-1, count))
        where = self.positions[..., None, None, :]
        hidden = (where > np.arange(start, stop)[:, None]) | (where < 0)
        blind = bool(hidden.all(-1).any())
        if blind:
            _require_finite(scores)
        weights = scores.masked_fill_(torch.from_numpy(hidden).to(scores.device), float("-inf")).softmax(-1)
        # A query whose visible keys were all pruned attends to nothing, where softmax gives NaN.
        return weights.nan_to_num_(0.0) if blind else weights

    def _compiled(self, products: torch.Tensor, start: int, count: int) -> torch.Tensor:
        """`_weights` from products [L, Hkv, heads per KV head * queries, n], which are overwritten."""
        _require_finite(products)
        seen = np.searchsorted(self.positions, np.arange(start, start + count), side="right")
        rows = products.view(-1, count, products.shape[-1]).numpy()
        scale = np.float32(self.scaling)
        spread(len(rows), rows.size, lambda lo, hi: causal_softmax(rows, seen, scale, lo, hi))
        return products.unflatten(2, (-1, count))

    def _reduced(self, weights: torch.Tensor) -> torch.Tensor:
        """The mean of weights [L, Hkv, heads per KV head, ...] over the heads that share a list: [..., *]."""
        shared = weights.mean(2) if self.per_head else weights.mean((0, 1, 2))
        _require_finite(shared)
        return shared

    def shared(self, scores: torch.Tensor) -> np.ndarray:
        """Scores [L, Hkv, n] in the shape that is asked for, float64 [..., n]: the mean where all share a list."""
        _require_finite(scores)
        return (scores if self.per_head else scores.mean((0, 1))).double().cpu().numpy()


def _require_finite(scores: torch.Tensor) -> None:
    if not bool(scores.sum().isfinite()):
        raise PayloadError("the cache holds NaN or infinity, which cannot be ranked; rebuild it from token ids")


def window_raw(view: View) -> np.ndarray:
    """Attention of the newest queries, unpooled (the observation window of SnapKV, arXiv 2404.14469)."""
    return view.attention(max(0, view.stop - view.settings.window))


def window(view: View) -> np.ndarray:
    """Attention of the newest queries, max-pooled over neighbouring positions (SnapKV): neighbours share an answer."""
    raw = window_raw(view)
    if view.positions.ndim == 1 and not view.per_head:
        return pooled(raw, view.positions, view.settings.pool // 2)
    scores = torch.from_numpy(raw)
    where = torch.from_numpy(view.positions.astype(np.int64))
    if where.ndim > 1:
        where = where.where((where >= 0) & (where < view.stop), view.stop)  # one slot more, for what is not there
    where = where.expand(scores.shape)
    dense = torch.zeros(*view.lead, view.stop + 1, dtype=torch.float64).scatter_(-1, where, scores)
    dense[..., view.stop] = 0.0
    width = view.settings.pool
    widened = F.max_pool1d(dense.reshape(-1, 1, view.stop + 1), width, stride=1, padding=width // 2)
    return widened.reshape(dense.shape).gather(-1, where).numpy()


def attention_sum(view: View) -> np.ndarray:
    """Attention of all queries per query that could see the token (the paper's I(t) without its bias to old tokens).

    The divisor is at least one window: the newest tokens are seen by few queries, mostly by themselves.
    """
    seen_by = np.maximum(view.stop - view.positions, view.settings.window)
    return view.attention(0) / seen_by


def attention_sum_raw(view: View) -> np.ndarray:
    """Attention of all queries summed over heads, averaged over layers: I(t) as in the paper (clawRxiv 2604.01548).

    Old tokens are seen by more queries and win; that, and the attention sinks, is what it is known to rank by.
    """
    heads = view.session.reference.queries.shape[2]
    return view.attention(0) * (heads // view.lead[1] if view.lead else heads)


def key_norm(view: View) -> np.ndarray:
    """Minus the L2 norm of the key, mean over layers and heads (Devoto et al., arXiv 2406.11430)."""
    return view.shared(-view.keys.float().norm(dim=-1).permute(1, 2, 0))


def streaming(view: View) -> np.ndarray:
    """The newest tokens; with the guarded sinks this is StreamingLLM (arXiv 2309.17453)."""
    return np.broadcast_to(view.positions, (*view.lead, len(view.keys))).astype(np.float64)


def random(view: View) -> np.ndarray:
    """Chance, seeded by the settings and by the tokens, so that a repeated experiment repeats its choice."""
    content = view.session.reference.tokens[: view.stop].tobytes()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    generator = np.random.default_rng([view.settings.seed, int.from_bytes(digest, "little")])
    draws = generator.random((*view.lead, view.stop))
    where = np.broadcast_to(view.positions, (*view.lead, len(view.keys)))
    return np.take_along_axis(draws, np.clip(where, 0, view.stop - 1), axis=-1)


SCORERS: dict[str, Callable[[View], np.ndarray]] = {
    "window": window,
    "window-raw": window_raw,
    "attention-sum": attention_sum,
    "attention-sum-raw": attention_sum_raw,
    "key-norm": key_norm,
    "streaming": streaming,
    "random": random,
}


def scorer(name: Any, llm: LanguageModel) -> Callable[[View], np.ndarray]:
    """The scorer of this name, or the one that asks a kvpress-like object.

    Args:
        name: a key of `SCORERS`, an object with kvpress' `score` method, or one with `rank(view)`, as `FactOracle`.
        llm: the model that a press looks into.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(name, str):
        if callable(getattr(name, "rank", None)):
            return name.rank
        from .presses import PressScorer

        return PressScorer(name, llm)
    if name not in SCORERS:
        raise ConfigError(f"scorer {name!r} does not exist; use one of {', '.join(SCORERS)}")
    return SCORERS[name]
