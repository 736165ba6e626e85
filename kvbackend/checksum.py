"""Passes over raw bytes that run about as fast as memory: a checksum, and a search for NaN and infinity.

The checksum is XXH64. It finds damage, not forgery: where attackers sit on the line, the transport has to authenticate.
"""

import numpy as np
import xxhash
from numba import njit

# Exponent bits of the numbers in one 64-bit word, the lowest of each, and the sign bits: a number whose exponent is all
# ones, and no other, carries into its sign bit when the lowest is added.
_EXPONENTS = {
    "float16": (np.uint64(0x7C007C007C007C00), np.uint64(0x0400040004000400), 0x8000800080008000),
    "bfloat16": (np.uint64(0x7F807F807F807F80), np.uint64(0x0080008000800080), 0x8000800080008000),
    "float32": (np.uint64(0x7F8000007F800000), np.uint64(0x0080000000800000), 0x8000000080000000),
}

Buffer = bytes | bytearray | memoryview


def xxh64(data: Buffer | np.ndarray) -> int:
    """XXH64 of a buffer with seed 0."""
    return xxhash.xxh64_intdigest(memoryview(data).cast("B"))  # type: ignore[arg-type]


def all_finite(data: Buffer | np.ndarray, dtype: str) -> bool:
    """Whether the little-endian numbers in a buffer are neither NaN nor infinite.

    Args:
        dtype: "float16", "bfloat16" or "float32".
    """
    words, tail = _words(data)
    mask, unit, sign = _EXPONENTS[dtype]
    seen = int(_carried(words, mask, unit))
    if len(tail):
        last = np.zeros(8, np.uint8)
        last[: len(tail)] = tail
        seen |= int(_carried(last.view(np.uint64), mask, unit))
    return not seen & sign


def _words(data: Buffer | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A buffer as aligned 64-bit words and the up to seven bytes that remain; copied only where it is not aligned."""
    flat = data.reshape(-1).view(np.uint8) if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    if flat.ctypes.data % 8:
        flat = flat.copy()
    whole = len(flat) // 8 * 8
    return flat[:whole].view(np.uint64), flat[whole:]


@njit(cache=True)
def _carried(words, mask, unit):
    seen = np.uint64(0)
    for i in range(len(words)):
        seen |= (words[i] & mask) + unit
    return seen
