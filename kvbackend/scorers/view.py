"""What a scorer may look at: the cache, its positions, and the attention that it was paid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import ConfigError, PayloadError
from ..model.kernels import causal_softmax, pooled
from ..sessions.session import Session
from ..threads import spread

if TYPE_CHECKING:
    from ..model.forward import LanguageModel

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
        scope: "sequence" where all layers and heads share one list of tokens, "head" where each has its own.
        llm: the model that the session runs on, for scorers that let it read.

    Attributes:
        positions: int [n], or [L, Hkv, n] with -1 for none where the heads of the cache hold different tokens.
        keys: [n, L, Hkv, D].
        per_head: whether the scores are [L, Hkv, n].
        lead: what stands before n in that shape: (), or (L, Hkv).
    """

    def __init__(
        self,
        session: Session,
        stop: int,
        scaling: float,
        scope: str = "sequence",
        llm: LanguageModel | None = None,
    ) -> None:
        self.session, self.stop, self.scaling, self._llm = session, stop, scaling, llm
        positions = session.positions
        if positions.ndim == 1:
            self.positions = positions[: int(np.searchsorted(positions, stop))]
        else:
            self.positions = np.ascontiguousarray(positions.transpose(1, 2, 0))
        self.keys = session.kv[: self.positions.shape[-1], :, 0]
        self._keys_by_head: torch.Tensor | None = None
        self.per_head = scope == "head" or positions.ndim == 3
        self.lead: tuple[int, ...] = tuple(self.keys.shape[1:3]) if self.per_head else ()

    @property
    def llm(self) -> LanguageModel:
        """The model that the session runs on.

        Raises:
            ConfigError: the view was made without one.
        """
        if self._llm is None:
            raise ConfigError("this scorer lets the model read, and the view has none; give View(..., llm=model)")
        return self._llm

    @property
    def heads_per_list(self) -> int:
        """Query heads that share one list of tokens: all of a layer, or those of one KV head."""
        heads = self.session.reference.queries.shape[2]
        return heads // self.lead[1] if self.lead else heads

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

    def pooled(self, scores: np.ndarray, width: int) -> np.ndarray:
        """The largest of scores [..., n] among rows less than half of `width` positions away, float64 [..., n]."""
        if self.positions.ndim == 1 and not self.per_head:
            return pooled(scores, self.positions, width // 2)
        where = torch.from_numpy(self.positions.astype(np.int64))
        if where.ndim > 1:
            where = where.where((where >= 0) & (where < self.stop), self.stop)  # one slot more, for what is not there
        where = where.expand(scores.shape)
        dense = torch.zeros(*self.lead, self.stop + 1, dtype=torch.float64)
        dense.scatter_(-1, where, torch.from_numpy(scores))
        dense[..., self.stop] = 0.0
        widened = F.max_pool1d(dense.reshape(-1, 1, self.stop + 1), width, stride=1, padding=width // 2)
        return widened.reshape(dense.shape).gather(-1, where).numpy()

    def _weights(self, start: int, stop: int) -> torch.Tensor:
        """Attention that queries of positions [start, stop) pay, float32 [L, Hkv, heads per KV head, queries, n]."""
        queries = self.session.queries(start, stop)
        count, layers, heads, dim = queries.shape
        if self._keys_by_head is None:
            self._keys_by_head = self.keys.to(queries.dtype).permute(1, 2, 3, 0)  # [L, Hkv, D, n]
        keys, kv_heads = self._keys_by_head, self.keys.shape[2]
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
