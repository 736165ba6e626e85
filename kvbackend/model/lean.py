"""The forward pass of Llama, Mistral, Qwen2 and Qwen3 in float32 on the CPU, with less around the arithmetic.

It reads the weights of the Hugging Face model in place and computes the same numbers up to rounding, which
`LanguageModel` checks when it loads the model. Everything else runs through the model's own modules.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...compat import onednn_linear
from ..threads import spread
from . import kernels

_KINDS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_QUERIES = 64  # a long causal pass goes in blocks of that many, so that half of the products are not computed
_NO_ROWS = np.empty((0, 0), np.float32)
_NO_WEIGHT = np.empty(0, np.float32)
_ALL_HELD = np.empty((0, 0, 0), bool)


def supports(model: Any) -> bool:
    """Whether a model is of a kind that `Lean` computes, in float32 on the CPU."""
    config = model.config
    weights = list(model.parameters())
    return (
        type(model).__name__ in _KINDS
        and getattr(config, "hidden_act", "") == "silu"
        and all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
        and all(isinstance(m, nn.Linear) == (type(m) is nn.Linear) for m in model.modules())
    )


class Lean:
    """One forward pass of a decoder.

    Args:
        base: the decoder, without the head.
        scaling: factor of the dot product of queries and keys.
    """

    def __init__(self, base: Any, heads: int, kv_heads: int, head_dim: int, scaling: float) -> None:
        self.base, self.scaling = base, np.float32(scaling)
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self._cos, self._sin = np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def run(
        self,
        ids: torch.Tensor,
        positions: np.ndarray,
        slab: torch.Tensor,
        lengths: np.ndarray,
        cache_dtype: torch.dtype,
        empty: np.ndarray | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Feed tokens to sequences whose stored keys and values are in a slab, and add theirs at its end.

        Args:
            ids: int64 [B, T].
            positions: int [B, T].
            slab: [L, 2, B, Hkv, N, D], its first N - T columns stored.
            lengths: int64 [B], stored columns that count; the rest up to N - T is padding.
            cache_dtype: to which new keys and values are rounded.
            empty: bool [B, L, Hkv, N - T], stored columns that a head does not hold.

        Returns:
            Rotated queries [B, T, L, H, D] and final hidden states [B, T, d], after the norm.
        """
        batch, steps = ids.shape
        rows = batch * steps
        x = F.embedding(ids.reshape(-1), self.base.embed_tokens.weight)
        cos, sin = self._angles(positions.reshape(-1))
        layers = self.base.layers
        queries = torch.empty(batch, steps, len(layers), self.heads, self.head_dim)
        normed, change = torch.empty_like(x), _NO_ROWS
        for i, layer in enumerate(layers):
            self._norm(x, change, layer.input_layernorm, normed)
            block = layer.self_attn
            q = linear(normed, block.q_proj).view(rows, self.heads, self.head_dim)
            k = linear(normed, block.k_proj).view(rows, self.kv_heads, self.head_dim)
            v = linear(normed, block.v_proj).view(batch, steps, self.kv_heads, self.head_dim)
            self._rotate(q, cos, sin, getattr(block, "q_norm", None), q)
            self._rotate(k, cos, sin, getattr(block, "k_norm", None), k)
            queries[:, :, i] = q.view(batch, steps, self.heads, self.head_dim)
            width = slab.shape[4] - steps
            slab[i, 0, :, :, width:] = k.view_as(v).to(cache_dtype).transpose(1, 2)
            slab[i, 1, :, :, width:] = v.to(cache_dtype).transpose(1, 2)
            held = _ALL_HELD if empty is None else np.ascontiguousarray(empty[:, i])
            mixed = self._attend(q.view(batch, steps, self.heads, self.head_dim), slab[i], lengths, held)
            change = linear(mixed.view(rows, -1), block.o_proj).numpy()
            self._norm(x, change, layer.post_attention_layernorm, normed)
            gate = F.silu(linear(normed, layer.mlp.gate_proj), inplace=True)
            change = linear(gate.mul_(linear(normed, layer.mlp.up_proj)), layer.mlp.down_proj).numpy()
        self._norm(x, change, self.base.norm, normed)
        return queries, normed.view(batch, steps, -1)

    def _attend(
        self, q: torch.Tensor, stored: torch.Tensor, lengths: np.ndarray, empty: np.ndarray
    ) -> torch.Tensor:
        """Attention of queries [B, T, H, D] over one layer's keys and values [2, B, Hkv, N, D]: [B, T, H, D]."""
        batch, steps = q.shape[:2]
        groups, columns = self.heads // self.kv_heads, stored.shape[3]
        width, flat = columns - steps, batch * self.kv_heads
        keys, values = stored.view(2, flat, columns, self.head_dim)
        keys = keys.transpose(1, 2)
        by_head = q.view(batch, steps, self.kv_heads, groups, self.head_dim).permute(0, 2, 3, 1, 4)
        out = torch.empty_like(q)
        mixed = out.view(batch, steps, self.kv_heads, groups, self.head_dim).permute(0, 2, 3, 1, 4)
        size = steps if steps < 2 * _QUERIES else _QUERIES
        for first in range(0, steps, size):
            last = min(first + size, steps)
            part = by_head[:, :, :, first:last].reshape(flat, -1, self.head_dim)
            scores = torch.bmm(part, keys[:, :, : width + last])
            weights = scores.view(batch, self.kv_heads, groups, last - first, width + last).numpy()
            self._softmax(weights, lengths, width, first, empty)
            got = torch.bmm(scores, values[:, : width + last])
            mixed[:, :, :, first:last] = got.view(batch, self.kv_heads, groups, last - first, self.head_dim)
        return out

    def _softmax(
        self, scores: np.ndarray, lengths: np.ndarray, width: int, first: int, empty: np.ndarray
    ) -> None:
        arrays = scores, lengths, width, first, self.scaling, empty
        items = scores.shape[0] * scores.shape[1]
        spread(items, scores.size, lambda lo, hi: kernels.masked_softmax(*arrays, lo, hi))

    def _norm(self, x: torch.Tensor, change: np.ndarray, norm: Any, out: torch.Tensor) -> None:
        """x += change; out = the norm of x."""
        arrays = x.numpy(), change, norm.weight.detach().numpy(), np.float32(norm.variance_epsilon), out.numpy()
        spread(len(arrays[0]), x.numel() // 4, lambda lo, hi: kernels.add_norm(*arrays, lo, hi))

    def _rotate(self, x: torch.Tensor, cos: np.ndarray, sin: np.ndarray, norm: Any, out: torch.Tensor) -> None:
        weight = _NO_WEIGHT if norm is None else norm.weight.detach().numpy()
        eps = np.float32(0.0 if norm is None else norm.variance_epsilon)
        arrays = x.numpy(), cos, sin, weight, eps, out.numpy()
        spread(len(cos), x.numel() // 4, lambda lo, hi: kernels.rotate(*arrays, lo, hi))

    def _angles(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosine and sine [n, D / 2] at these positions, from a table that grows as needed."""
        needed = int(positions.max()) + 1
        if needed > len(self._cos):
            where = torch.arange(max(needed, 2 * len(self._cos), 256))[None]
            both = self.base.rotary_emb(torch.zeros(1), where)
            half = both[0].shape[-1] // 2
            self._cos, self._sin = (np.ascontiguousarray(table[0, :, :half].numpy()) for table in both)
        return self._cos[positions], self._sin[positions]


def linear(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    """What a linear layer makes of rows [n, in].

    oneDNN, which torch.compile uses for it, is twice as fast as torch's own choice on processors that MKL neglects.
    """
    weight, bias = layer.weight, layer.bias
    if _ONEDNN is None or x.shape[0] * weight.numel() < _MANY or weight.numel() > _LARGE:
        return F.linear(x, weight, bias)
    return _ONEDNN(x, weight, bias)


_MANY = 1 << 20  # multiplications, below which the call itself costs more
_LARGE = 1 << 19  # weights, above which they would have to be reordered first


_ONEDNN = onednn_linear()
