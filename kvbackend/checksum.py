"""Compiled passes over raw bytes that run about as fast as memory: a checksum, and a search for NaN and infinity.

Source: XXH64 as specified by Y. Collet (xxHash fast digest algorithm, revision 0.1.1). It finds damage, not forgery:
where attackers sit on the line, the transport has to authenticate.
"""

import numpy as np
from numba import njit

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(p)
    for p in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)
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
    words, tail = _words(data)
    return int(_xxh64(words, tail))


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


@njit(inline="always")
def _rotl(x, r):
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@njit(inline="always")
def _round(lane_sum, lane):
    return _rotl(lane_sum + lane * _P2, 31) * _P1


@njit(inline="always")
def _merge(total, lane_sum):
    return (total ^ _round(np.uint64(0), lane_sum)) * _P1 + _P4


@njit(cache=True)
def _xxh64(words, tail):
    size = np.uint64(8 * len(words) + len(tail))
    i = 0
    total = _P5
    if len(words) >= 4:
        a, b, c, d = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while i + 4 <= len(words):
            a, b = _round(a, words[i]), _round(b, words[i + 1])
            c, d = _round(c, words[i + 2]), _round(d, words[i + 3])
            i += 4
        total = _rotl(a, 1) + _rotl(b, 7) + _rotl(c, 12) + _rotl(d, 18)
        total = _merge(_merge(_merge(_merge(total, a), b), c), d)
    total += size
    while i < len(words):
        total = _rotl(total ^ _round(np.uint64(0), words[i]), 27) * _P1 + _P4
        i += 1
    j = 0
    if len(tail) >= 4:
        lane = np.uint64(0)
        for k in range(4):
            lane |= np.uint64(tail[k]) << np.uint64(8 * k)
        total = _rotl(total ^ (lane * _P1), 23) * _P2 + _P3
        j = 4
    while j < len(tail):
        total = _rotl(total ^ (np.uint64(tail[j]) * _P5), 11) * _P1
        j += 1
    total = (total ^ (total >> np.uint64(33))) * _P2
    total = (total ^ (total >> np.uint64(29))) * _P3
    return total ^ (total >> np.uint64(32))


@njit(cache=True)
def _carried(words, mask, unit):
    seen = np.uint64(0)
    for i in range(len(words)):
        seen |= (words[i] & mask) + unit
    return seen
