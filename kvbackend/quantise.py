"""Asymmetric quantisation of cached keys and values to 8 or 4 bits.

Keys have outlier channels, so they share a scale per channel over a group of tokens; values are scaled per token.

Source: KIVI, arXiv 2402.02750 (axes and grouping); scales and zeros are float16 and travel with the payload.
"""

import torch
import torch.nn.functional as F

GROUP = 32  # [tokens] that share a key scale

Shape = tuple[int, int, int, int]  # tokens, layers, KV heads, head dimension


def write_keys(keys: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    """Quantise float32 keys [K, L, Hkv, D] per channel in groups of 32 tokens: "k" codes, "ks" scales, "kz" zeros."""
    # The last group repeats its last token: the range stays the same, and the surplus codes are not sent.
    grouped = _grouped(keys)
    codes, scale, zero = _quantise(grouped, 1, bits)
    return {"k": _nibbles(codes.flatten(0, 1)[: len(keys)], bits), "ks": scale[:, 0], "kz": zero[:, 0]}


def write_values(values: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    """Quantise float32 values [K, L, Hkv, D] per token, layer and head: "v" codes, "vs" scales, "vz" zeros."""
    codes, scale, zero = _quantise(values, 3, bits)
    return {"v": _nibbles(codes, bits), "vs": scale[..., 0], "vz": zero[..., 0]}


def read_keys(tensors: dict[str, torch.Tensor], shape: Shape, bits: int) -> torch.Tensor:
    """Keys float32 [K, L, Hkv, D] from what `write_keys` made."""
    codes = _bytes(tensors["k"], shape, bits)
    spread = [tensors[name].float().repeat_interleave(GROUP, 0)[: shape[0]] for name in ("ks", "kz")]
    return codes * spread[0] + spread[1]


def read_values(tensors: dict[str, torch.Tensor], shape: Shape, bits: int) -> torch.Tensor:
    """Values float32 [K, L, Hkv, D] from what `write_values` made."""
    codes = _bytes(tensors["v"], shape, bits)
    return codes * tensors["vs"].float()[..., None] + tensors["vz"].float()[..., None]


def quantised_shapes(shape: Shape, bits: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Names, dtypes and shapes of the tensors that a cache of this shape becomes."""
    count, layers, heads, dim = shape
    numbers = count * layers * heads * dim
    packed = (numbers if bits == 8 else (numbers + 1) // 2,)
    group, half = (-(-count // GROUP), layers, heads, dim), torch.float16
    return {
        "k": (torch.uint8, packed),
        "ks": (half, group),
        "kz": (half, group),
        "v": (torch.uint8, packed),
        "vs": (half, (count, layers, heads)),
        "vz": (half, (count, layers, heads)),
    }


def _grouped(keys: torch.Tensor) -> torch.Tensor:
    """[K, ...] to [ceil(K / 32), 32, ...], the last token repeated to fill the last group."""
    missing = -len(keys) % GROUP
    if missing:
        keys = torch.cat([keys, keys[-1:].expand(missing, *keys.shape[1:])])
    return keys.unflatten(0, (-1, GROUP))


def _quantise(x: torch.Tensor, axis: int, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8 like x, and float16 scale and zero with `axis` reduced to 1."""
    low, high = x.aminmax(dim=axis, keepdim=True)
    top = 2**bits - 1
    scale, zero = ((high - low) / top).half(), low.half()
    step = scale.float()
    codes = ((x - zero.float()) / torch.where(step > 0, step, 1.0)).round_().clamp_(0, top)
    return codes.to(torch.uint8), scale.contiguous(), zero.contiguous()


def _nibbles(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Flat uint8: one code per byte at 8 bits, two at 4 (even index in the low half)."""
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.contiguous()
    if len(flat) % 2:
        flat = F.pad(flat, (0, 1))
    return flat[0::2] | (flat[1::2] << 4)


def _bytes(packed: torch.Tensor, shape: Shape, bits: int) -> torch.Tensor:
    """Codes as float32 [K, L, Hkv, D]."""
    if bits == 4:
        packed = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)[: shape[0] * shape[1] * shape[2] * shape[3]]
    return packed.reshape(shape).float()
