"""How a layer of keys and values becomes bytes: one entry per way of packing, named by the rows of `table.py`."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from . import plain, quantise
from .header import Header
from .table import codec

Read = Callable[[memoryview, Header, torch.dtype, torch.device, torch.Tensor | None], torch.Tensor]


class Packing(NamedTuple):
    """One way of packing.

    Attributes:
        layer_bytes: bytes of one layer of the payload that a header describes.
        dtype: of the numbers that are read, where the receiver does not ask for another.
        write: puts rows of a layer [n, 2, Hkv, D] into a body of these bytes; the rows are those of an index int64
            [count], all of them if it is None. Returns whether all numbers are finite and could be represented.
        read: the layer [count, 2, Hkv, D] at a dtype on a device, in the tensor given or in a fresh one. Raises
            PayloadError if it holds NaN or infinity.
    """

    layer_bytes: Callable[[Header], int]
    dtype: Callable[[Header], torch.dtype]
    write: Callable[[memoryview, Header, torch.Tensor, torch.Tensor | None], bool]
    read: Read


PACKINGS = {
    "plain": Packing(plain.layer_bytes, plain.dtype, plain.write, plain.read),
    "kivi": Packing(quantise.layer_bytes, quantise.dtype, quantise.write, quantise.read),
}


def packing_of(header: Header) -> Packing:
    """How the layers of the payload that a header describes are packed."""
    return PACKINGS[codec(header.bits).packing]
