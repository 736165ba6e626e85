"""The attention that queries to come will pay, if they are like the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakSet

import numpy as np

from ...errors import ConfigError
from .base import Scorer, require_at_least

if TYPE_CHECKING:
    import torch

    from ..model.forward import LanguageModel
    from .view import View


@dataclass(frozen=True)
class ExpectedAttention(Scorer):
    """Expected attention of future queries, which are taken to be normal with the mean and covariance of recent ones.

    The recent queries are turned back to position 0, and their distribution is turned to the mean of the coming
    positions' rotations. For a key k, mean m and covariance C, the expected weight is exp(k m + k C k / 2), shared out
    over the keys that a head holds.

    Source: Devoto et al., Expected Attention, arXiv 2510.00636, section 3.
    """

    name: ClassVar[str] = "expected-attention"
    history: int = 512  # [tokens] newest queries that tell the distribution
    horizon: int = 512  # [tokens] coming positions over which rotations are averaged
    by_value: bool = False  # weights count times the length of the value, as in the paper

    def __post_init__(self) -> None:
        require_at_least(1, history=self.history, horizon=self.horizon)

    def score(self, view: View) -> np.ndarray:
        """Expected attention, float64 [..., n].

        Raises:
            ConfigError: the model rotates its queries in another way than Llama does.
        """
        import torch

        _require_llama_rotation(view.llm)
        mean, covariance = self.statistics(view)  # [L, H, D], [L, H, D, D]
        layers, heads = mean.shape[:2]
        keys = view.keys.to(mean.dtype).permute(1, 2, 0, 3)  # [L, Hkv, n, D]
        kv_heads = keys.shape[1]
        keys = keys[:, :, None]
        mean, covariance = (x.reshape(layers, kv_heads, heads // kv_heads, *x.shape[2:]) for x in (mean, covariance))
        logits = (keys @ mean[..., None])[..., 0] * view.scaling
        logits += (keys @ covariance * keys).sum(-1) * (0.5 * view.scaling**2)
        held = torch.from_numpy(view.positions >= 0).to(keys.device)
        logits = logits.masked_fill(~(held if held.ndim == 1 else held[:, :, None]), float("-inf"))
        weights = logits.softmax(-1).nan_to_num_(0.0).mean(2)
        if self.by_value:
            values = view.session.kv[: weights.shape[-1], :, 1].to(mean.dtype)
            weights *= values.norm(dim=-1).permute(1, 2, 0)
        return view.shared(weights)

    def statistics(self, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean [L, H, D] and covariance [L, H, D, D] of future queries, rotated."""
        first = max(0, view.stop - self.history)
        queries = view.session.queries(first, view.stop).float()  # [m, L, H, D]
        still = unrotated(queries, *_angles(view.llm, first, view.stop))
        mean = still.mean(0)
        apart = (still - mean).permute(1, 2, 0, 3)
        covariance = apart.transpose(-1, -2) @ apart / len(queries)
        turn = mean_rotation(*_angles(view.llm, view.stop, view.stop + self.horizon), mean.shape[-1])
        return mean @ turn.T, turn @ covariance @ turn.T


def unrotated(queries: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries [m, ..., D] as they were before rotation; cos and sin [m, R / 2] turn the first R numbers in pairs."""
    import torch

    half = cos.shape[-1]
    shape = (len(cos), *(1,) * (queries.ndim - 2), half)
    cos, sin = cos.view(shape), sin.view(shape)
    a, b = queries[..., :half], queries[..., half : 2 * half]
    size = cos**2 + sin**2  # not 1 where RoPE is scaled
    turned = (a * cos + b * sin) / size, (b * cos - a * sin) / size
    return torch.cat([*turned, queries[..., 2 * half :]], dim=-1)


def mean_rotation(cos: torch.Tensor, sin: torch.Tensor, dim: int) -> torch.Tensor:
    """The mean of the rotations with cos and sin [m, R / 2] of D numbers, as a matrix [D, D]."""
    import torch

    half = cos.shape[-1]
    matrix = torch.eye(dim, device=cos.device)
    near, far = torch.arange(half, device=cos.device), torch.arange(half, 2 * half, device=cos.device)
    matrix[near, near] = matrix[far, far] = cos.mean(0)
    matrix[near, far], matrix[far, near] = -sin.mean(0), sin.mean(0)
    return matrix


def _angles(llm: LanguageModel, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of positions [start, stop), float32 [stop - start, R / 2] each."""
    import torch

    rotary = getattr(llm.base, "rotary_emb", None)
    if rotary is None:
        raise ConfigError("expected-attention needs a model with `rotary_emb`; use another scorer")
    where = torch.arange(start, stop, device=llm.device)[None]
    cos, sin = (table[0].float() for table in rotary(torch.zeros(1, device=llm.device), where))
    return cos[:, : cos.shape[-1] // 2], sin[:, : sin.shape[-1] // 2]


def _require_llama_rotation(llm: LanguageModel) -> None:
    """In the first layer a token's query depends on its position by the rotation only, which must be undone here."""
    import torch

    if llm in _CHECKED:
        return
    with torch.inference_mode():
        queries = llm.prefill([np.full(16, 1)]).queries[0, :, 0].float()
        still = unrotated(queries, *_angles(llm, 0, 16))
        wrong = float((still - still[:1]).abs().max() / queries.abs().max())
    if wrong > (1e-3 if llm.dtype == torch.float32 else 0.1):
        raise ConfigError(
            "expected-attention turns queries back as Llama turns them, and this model does it otherwise; use another "
            "scorer"
        )
    _CHECKED.add(llm)


_CHECKED: WeakSet[LanguageModel] = WeakSet()
