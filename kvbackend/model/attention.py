"""The attention function and the cache layer that the backend puts under a Hugging Face model.

Both see the tensors exactly as the model uses them: the attention function hands out the rotated queries that
saliency needs, the cache layer stores keys and values at the serving precision in one token-major slab.
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from ...compat import attend_with

NAME = "kvroam"


class Tap:
    """Collects what attention sees in one forward pass, per layer: rotated queries [B, H, T, D], scaling, module."""

    def __init__(self) -> None:
        self.queries: dict[int, torch.Tensor] = {}
        self.scaling: dict[int, float] = {}
        self.modules: dict[int, Any] = {}
        self.empty: torch.Tensor | None = None  # bool [B, L, Hkv, N], stored rows that a head does not hold

    def stacked(self) -> torch.Tensor:
        """Queries of all layers, token-major: [B, T, L, H, D]."""
        return torch.stack([self.queries[i].transpose(1, 2) for i in sorted(self.queries)], dim=2)


def tapped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    kvroam_tap: Tap | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention with grouped queries; causal where no mask is given.

    Query heads that share a key head are stacked along the query axis, so that keys are not copied per head.

    Args:
        query: [B, H, T, D]; key, value: [B, Hkv, N, D]; attention_mask: bool [B, 1, T, N], True where visible.
        dropout: not used; it stands where transformers has it, because some callers pass it by position.

    Returns:
        [B, T, H, D] and None, as the attention interface of transformers expects.
    """
    batch, heads, steps, dim = query.shape
    scale = dim**-0.5 if scaling is None else scaling
    if kvroam_tap is not None:
        kvroam_tap.queries[module.layer_idx] = query
        kvroam_tap.scaling[module.layer_idx] = scale
        kvroam_tap.modules[module.layer_idx] = module
    kv_heads, length = key.shape[1], key.shape[2]
    groups = heads // kv_heads
    if attention_mask is None and length == steps:
        if groups > 1:
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=steps > 1, scale=scale)
        return out.transpose(1, 2), None
    if kvroam_tap is not None and kvroam_tap.empty is not None and attention_mask is not None:
        attention_mask = attention_mask & ~kvroam_tap.empty[:, module.layer_idx, :, None]
    if attention_mask is not None and groups > 1:
        attention_mask = attention_mask.repeat(1, 1, groups, 1)
    stacked = query.reshape(batch, kv_heads, groups * steps, dim)
    out = F.scaled_dot_product_attention(stacked, key, value, attn_mask=attention_mask, scale=scale)
    return out.reshape(batch, heads, steps, dim).transpose(1, 2), None


class SlabLayer(DynamicLayer):
    """One layer of a slab [B, N, L, 2, Hkv, D]: new keys and values go to columns [start, N), rounded as served."""

    def __init__(self, slab: torch.Tensor, layer: int, start: int, cache_dtype: torch.dtype) -> None:
        super().__init__()
        self.keys: torch.Tensor = slab[:, :, layer, 0].transpose(1, 2)
        self.values: torch.Tensor = slab[:, :, layer, 1].transpose(1, 2)
        self.start, self.cache_dtype = start, cache_dtype
        self.dtype, self.device, self.is_initialized = slab.dtype, slab.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values [B, Hkv, T, D] and return all of the slab's, [B, Hkv, N, D]."""
        self.keys[:, :, self.start :] = key_states.to(self.cache_dtype)
        self.values[:, :, self.start :] = value_states.to(self.cache_dtype)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Stored columns before this forward pass [tokens]."""
        return self.start


def slab_cache(slab: torch.Tensor, start: int, cache_dtype: torch.dtype) -> Cache:
    """A cache for one forward pass over a slab [B, N, L, 2, Hkv, D] whose first `start` columns are filled."""
    cache = DynamicCache()
    cache.layers = [SlabLayer(slab, i, start, cache_dtype) for i in range(slab.shape[2])]
    return cache


def install(model: Any) -> None:
    """Make `model` attend through `tapped_attention`; the model object is changed."""
    attend_with(model, NAME, tapped_attention)
