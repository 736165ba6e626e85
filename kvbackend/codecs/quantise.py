"""Asymmetric quantisation of one layer's cached keys and values to a number of bits that divides 8.

Keys have outlier channels, so they share a scale per channel over a group of tokens; values are scaled per token.

Source: KIVI, arXiv 2402.02750 (axes and grouping); scales and zeros are float16 and travel with the payload.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import PayloadError
from .header import Header
from .table import KEY_GROUP


def layer_bytes(header: Header) -> int:
    """Bytes of one layer, scales and zeros included."""
    count, heads, dim = header.count, header.kv_heads, header.head_dim
    scales = 4 * (-(-count // KEY_GROUP) * heads * dim + count * heads)
    return scales + 2 * _code_bytes(count * heads * dim, header.bits)


def dtype(header: Header) -> torch.dtype:
    """float32: what codes and scales make."""
    return torch.float32


def write(body: memoryview, header: Header, layer: torch.Tensor, rows: torch.Tensor | None) -> bool:
    """Quantise rows of a layer [n, 2, Hkv, D] to a body; whether scales and ranges are finite."""
    parts = encode_layer(layer if rows is None else layer.index_select(0, rows), header.bits)
    out = torch.frombuffer(body, dtype=torch.uint8)
    out.copy_(torch.cat([part.reshape(-1).view(torch.uint8) for part in parts]))
    # One number that float16 cannot hold makes its scale, its zero or the top of its range infinite.
    scales = [part.float() for part in parts[:4]]
    top = 2**header.bits - 1
    ranges = [scales[1] + top * scales[0], scales[3] + top * scales[2]]
    return all(bool(x.half().isfinite().all()) for x in (*scales, *ranges))


def read(
    body: memoryview, header: Header, wanted: torch.dtype, device: torch.device, place: torch.Tensor | None
) -> torch.Tensor:
    """The layer [count, 2, Hkv, D] as `wanted`.

    Raises:
        PayloadError: it holds NaN or infinity as `wanted`.
    """
    raw = torch.empty(len(body), dtype=torch.uint8)
    raw.numpy()[:] = np.frombuffer(body, np.uint8)
    layer = decode_layer(raw.to(device), header.count, header.kv_heads, header.head_dim, header.bits).to(wanted)
    if not bool(layer.isfinite().all()):
        raise PayloadError(f"a layer holds NaN or infinity as {wanted}; encode the cache again")
    return layer if place is None else place.copy_(layer)


def encode_layer(layer: torch.Tensor, bits: int) -> list[torch.Tensor]:
    """Quantise one layer [K, 2, Hkv, D], K >= 1.

    Returns:
        Key scales and zeros float16 [G, Hkv, D], value scales and zeros float16 [K, Hkv], key and value codes uint8
        [ceil(K * Hkv * D * bits / 8)]; on the device of `layer`. Numbers beyond float16 make infinite scales.
    """
    keys, values = layer[:, 0].float(), layer[:, 1].float()
    # The last group repeats its last token: the range stays the same, and the surplus codes are not sent.
    key_codes, key_scale, key_zero = _quantise(_grouped(keys), 1, bits)
    value_codes, value_scale, value_zero = _quantise(values, 2, bits)
    codes = [_packed(key_codes.flatten(0, 1)[: len(keys)], bits), _packed(value_codes, bits)]
    return [key_scale[:, 0], key_zero[:, 0], value_scale[..., 0], value_zero[..., 0], *codes]


def decode_layer(raw: torch.Tensor, count: int, heads: int, dim: int, bits: int) -> torch.Tensor:
    """Float32 [K, 2, Hkv, D] from the bytes of what `encode_layer` returned, uint8 [bytes]."""
    halves = [-(-count // KEY_GROUP) * heads * dim] * 2 + [count * heads] * 2
    split = raw.split([2 * n for n in halves] + [_code_bytes(count * heads * dim, bits)] * 2)
    scales = [part.view(torch.float16).float() for part in split[:4]]
    out = torch.empty(count, 2, heads, dim, device=raw.device)
    key_scale, key_zero = (s.view(-1, heads, dim).repeat_interleave(KEY_GROUP, 0)[:count] for s in scales[:2])
    value_scale, value_zero = (s.view(count, heads, 1) for s in scales[2:])
    torch.addcmul(key_zero, _unpacked(split[4], (count, heads, dim), bits), key_scale, out=out[:, 0])
    torch.addcmul(value_zero, _unpacked(split[5], (count, heads, dim), bits), value_scale, out=out[:, 1])
    return out


def _code_bytes(numbers: int, bits: int) -> int:
    return -(-numbers * bits // 8)


def _grouped(keys: torch.Tensor) -> torch.Tensor:
    """[K, ...] to [ceil(K / 32), 32, ...], the last token repeated to fill the last group."""
    missing = -len(keys) % KEY_GROUP
    if missing:
        keys = torch.cat([keys, keys[-1:].expand(missing, *keys.shape[1:])])
    return keys.unflatten(0, (-1, KEY_GROUP))


def _quantise(x: torch.Tensor, axis: int, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8 like x, and float16 scale and zero with `axis` reduced to 1."""
    low, high = x.aminmax(dim=axis, keepdim=True)
    top = 2**bits - 1
    scale, zero = ((high - low) / top).half(), low.half()
    step = scale.float()
    codes = (x - zero.float()).div_(torch.where(step > 0, step, 1.0)).round_().clamp_(0, top)
    return codes.to(torch.uint8), scale, zero


def _packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Flat uint8: 8 / bits codes per byte; the first part of the codes in the lowest bits, the second next to it."""
    flat = codes.reshape(-1)
    if bits == 8:
        return flat
    per_byte = 8 // bits
    parts = F.pad(flat, (0, -len(flat) % per_byte)).view(per_byte, -1)
    packed = parts[0].clone()
    for i in range(1, per_byte):
        packed |= parts[i] << (i * bits)
    return packed


def _unpacked(packed: torch.Tensor, shape: tuple[int, int, int], bits: int) -> torch.Tensor:
    """Codes as float32 of this shape; the inverse of `_packed`."""
    if bits == 8:
        return packed.view(shape).float()
    mask, numbers = 2**bits - 1, shape[0] * shape[1] * shape[2]
    parts = torch.stack([(packed >> shift) & mask for shift in range(0, 8, bits)])
    return parts.view(-1)[:numbers].view(shape).float()
