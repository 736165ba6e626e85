"""Asymmetric quantisation of one layer's cached keys and values to a number of bits that divides 8.

Keys have outlier channels, so they share a scale per channel over a group of tokens; values are scaled per token.

On the CPU by the compiled loops of `quantise_kernels.py`; elsewhere by torch, with the same result.

Source: KIVI, arXiv 2402.02750 (axes and grouping); scales and zeros are float16 and travel with the payload.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import PayloadError
from ..threads import spread
from . import quantise_kernels as kernels
from .checksum import all_finite
from .header import Header
from .table import KEY_GROUP


def layer_bytes(header: Header) -> int:
    """Bytes of one layer, scales and zeros included."""
    return _scale_bytes(header) + 2 * _code_bytes(header.count * header.kv_heads * header.head_dim, header.bits)


def dtype(header: Header) -> torch.dtype:
    """float32: what codes and scales make."""
    return torch.float32


def write(body: memoryview, header: Header, layer: torch.Tensor, rows: torch.Tensor | None) -> bool:
    """Quantise rows of a layer [n, 2, Hkv, D] to a body; whether scales and ranges are finite."""
    if layer.device.type == "cpu":
        index = np.arange(header.count) if rows is None else rows.numpy()
        if not (index.min() >= 0 and index.max() < len(layer)):
            raise IndexError(f"rows {index.min()}..{index.max()} of {len(layer)}")
        return _write_compiled(np.frombuffer(body, np.uint8), header, layer, index)
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
    raw = np.frombuffer(body, np.uint8)
    if device.type == "cpu" and wanted in (torch.float16, torch.float32):
        if place is not None and _flat(place):
            layer = place
        else:
            layer = torch.empty(header.count, 2, header.kv_heads, header.head_dim, dtype=wanted)
        finite = _read_compiled(raw, header, layer)
    else:
        sent = torch.from_numpy(raw.copy()).to(device)
        layer = decode_layer(sent, header.count, header.kv_heads, header.head_dim, header.bits).to(wanted)
        finite = bool(layer.isfinite().all())
    if not finite:
        raise PayloadError(f"a layer holds NaN or infinity as {wanted}; encode the cache again")
    return layer if place is None or layer is place else place.copy_(layer)


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


def _write_compiled(raw: np.ndarray, header: Header, layer: torch.Tensor, index: np.ndarray) -> bool:
    """As `write`, for rows `index` of a layer on the CPU."""
    if raw.ctypes.data % 2:
        aligned = np.empty_like(raw)
        fine = _write_compiled(aligned, header, layer, index)
        raw[:] = aligned
        return fine
    numbers = layer if layer.dtype == torch.float16 else layer.float()
    words, stride = _words(numbers if _flat(numbers) else numbers.contiguous())
    sizes, parts = (KEY_GROUP, header.kv_heads, header.head_dim), _parts(raw, header)
    finite: list[bool] = []

    def work(lo: int, hi: int) -> None:
        scratch = kernels.quantise_scratch(sizes, words.dtype)
        finite.append(kernels.quantise_groups(words, stride, index, sizes, header.bits, parts, scratch, lo, hi))

    _over_groups(header, work)
    return all(finite)


def _read_compiled(raw: np.ndarray, header: Header, out: torch.Tensor) -> bool:
    """Decode to rows [count, 2, Hkv, D] that are `_flat`; whether all of their numbers are finite."""
    if raw.ctypes.data % 2:
        raw = raw.copy()
    raw.flags.writeable = False  # one type for the compiler, whoever owns the bytes
    if not all_finite(raw[: _scale_bytes(header)], "float16"):
        return False
    words, stride = _words(out)
    sizes, parts = (KEY_GROUP, header.kv_heads, header.head_dim), _parts(raw, header)
    finite: list[bool] = []

    def work(lo: int, hi: int) -> None:
        scratch = kernels.dequantise_scratch(sizes)
        finite.append(kernels.dequantise_groups(words, stride, sizes, header.bits, parts, scratch, lo, hi))

    groups = -(-header.count // KEY_GROUP)
    spread(groups, out.numel(), work)
    return all(finite)


def _over_groups(header: Header, work: Callable[[int, int], None]) -> None:
    """Do `work(lo, hi)` for all groups, and never at once for two that put codes into the same byte."""
    groups, width = -(-header.count // KEY_GROUP), header.kv_heads * header.head_dim
    if torch.get_num_threads() == 1:
        work(0, groups)
        return
    size, ends = _code_bytes(header.count * width, header.bits), {0, groups}
    for part in range(1, 8 // header.bits):
        across = part * size // (KEY_GROUP * width)  # the group that begins in one part and ends in the next
        ends |= {min(across, groups), min(across + 1, groups)}
    for first, last in pairwise(sorted(ends)):
        numbers = 2 * (last - first) * KEY_GROUP * width
        spread(last - first, numbers, lambda lo, hi, first=first: work(first + lo, first + hi))  # type: ignore[misc]


def _parts(raw: np.ndarray, header: Header) -> tuple[np.ndarray, ...]:
    """The parts of a body, as `quantise_kernels` takes them."""
    width, split = header.kv_heads * header.head_dim, _scale_bytes(header)
    halves = raw[:split].view(np.uint16)
    keys, values = -(-header.count // KEY_GROUP) * width, header.count * header.kv_heads
    ends = np.cumsum([keys, keys, values])
    scales, zeros, value_scales, value_zeros = np.split(halves, ends)
    return scales.reshape(-1, width), zeros.reshape(-1, width), value_scales, value_zeros, raw[split:].reshape(2, -1)


def _scale_bytes(header: Header) -> int:
    return 4 * header.kv_heads * (-(-header.count // KEY_GROUP) * header.head_dim + header.count)


def _flat(rows: torch.Tensor) -> bool:
    """Whether rows [n, 2, Hkv, D] each lie in one piece, one behind the other."""
    return rows[0].is_contiguous() and (len(rows) == 1 or rows.stride(0) >= rows[0].numel())


def _words(rows: torch.Tensor) -> tuple[np.ndarray, int]:
    """The words from the first number of `_flat` rows of float16 or float32 to their last, and between two rows."""
    signed, kind = (torch.int16, np.uint16) if rows.dtype == torch.float16 else (torch.int32, np.uint32)
    first, stride = rows[0].view(signed).numpy().reshape(-1), rows.stride(0) if len(rows) > 1 else rows[0].numel()
    count = (len(rows) - 1) * stride + len(first)
    return np.lib.stride_tricks.as_strided(first, (count,), (first.itemsize,)).view(kind), stride


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
    scale, zero = ((high - low) / top).half(), (low + 0.0).half()  # -0 travels as 0
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
