"""Keys and values as they are: rows [count, 2, Hkv, D] of 16 or 32 bits."""

import numpy as np
import torch

from ...errors import PayloadError
from .checksum import all_finite, copy_finite, words_of
from .header import WIRE_DTYPES, Header

_INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
_NOT_FINITE = "a layer holds NaN or infinity; encode the cache again"


def layer_bytes(header: Header) -> int:
    """Bytes of one layer."""
    return header.count * 2 * header.kv_heads * header.head_dim * header.bits // 8


def dtype(header: Header) -> torch.dtype:
    """The type on the wire."""
    return WIRE_DTYPES[header.dtype]


def write(body: memoryview, header: Header, layer: torch.Tensor, rows: torch.Tensor | None) -> bool:
    """Copy rows of a layer [n, 2, Hkv, D] to a body; whether all of them are finite."""
    sent = dtype(header)
    target = torch.frombuffer(body, dtype=torch.uint8).view(sent)
    target = target.view(header.count, 2, header.kv_heads, header.head_dim)
    source = into = None
    if layer.dtype == sent and layer.device == target.device:
        # Integers, because numpy has no bfloat16.
        source, into = (words_of(x.view(_INTEGERS[sent]).numpy()) for x in (layer, target))
    if source is not None and into is not None:
        return copy_finite(source, header.dtype, into, None if rows is None else rows.numpy())
    target.copy_(layer if rows is None else layer.index_select(0, rows))
    return all_finite(body, header.dtype)


def read(
    body: memoryview, header: Header, wanted: torch.dtype, device: torch.device, place: torch.Tensor | None
) -> torch.Tensor:
    """The layer [count, 2, Hkv, D] as `wanted`.

    Raises:
        PayloadError: it holds NaN or infinity, or does as `wanted`.
    """
    wire, shape = dtype(header), (header.count, 2, header.kv_heads, header.head_dim)
    if wire == wanted and device.type == "cpu":
        place = torch.empty(shape, dtype=wire) if place is None else place
        # Integers, because numpy has no bfloat16; torch would warn that the payload cannot be written to.
        numbers = place.view(_INTEGERS[wire]).numpy()
        arrived = np.frombuffer(body, numbers.dtype).reshape(shape)
        source, into = words_of(arrived), words_of(numbers)
        if source is not None and into is not None:
            finite = copy_finite(source, header.dtype, into)
        else:
            numbers[:], finite = arrived, all_finite(body, header.dtype)
        if not finite:
            raise PayloadError(_NOT_FINITE)
        return place
    if not all_finite(body, header.dtype):
        raise PayloadError(_NOT_FINITE)
    layer = torch.empty(len(body), dtype=torch.uint8)
    layer.numpy()[:] = np.frombuffer(body, np.uint8)
    layer = layer.to(device).view(wire).view(shape).to(wanted)
    if wire != wanted and not bool(layer.isfinite().all()):
        raise PayloadError(f"a layer holds NaN or infinity as {wanted}; encode the cache again")
    return layer if place is None else place.copy_(layer)
