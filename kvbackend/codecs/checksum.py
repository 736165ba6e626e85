"""Passes over raw bytes that run about as fast as memory: a checksum, and a search for NaN and infinity.

The checksum is XXH3, 64 bits wide. It finds damage, not forgery: where attackers sit on the line, the transport has to
authenticate.
"""

import numpy as np
import xxhash

from ...compat import njit_cached
from ..threads import spread

# Exponent bits of the numbers in one 64-bit word, the lowest of each, and the sign bits: a number whose exponent is all
# ones, and no other, carries into its sign bit when the lowest is added.
_EXPONENTS = {
    "float16": (np.uint64(0x7C007C007C007C00), np.uint64(0x0400040004000400), 0x8000800080008000),
    "bfloat16": (np.uint64(0x7F807F807F807F80), np.uint64(0x0080008000800080), 0x8000800080008000),
    "float32": (np.uint64(0x7F8000007F800000), np.uint64(0x0080000000800000), 0x8000000080000000),
}

Buffer = bytes | bytearray | memoryview


def xxh3(data: Buffer | np.ndarray) -> int:
    """XXH3, 64 bits, of a buffer with seed 0."""
    return xxhash.xxh3_64_intdigest(memoryview(data).cast("B"))  # type: ignore[arg-type]


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


def copy_finite(rows: np.ndarray, dtype: str, out: np.ndarray, index: np.ndarray | None = None) -> bool:
    """Copy rows of numbers and look for NaN and infinity in the same pass over memory.

    Args:
        rows: words of numbers uint64 [n, w].
        dtype: of the numbers, as for `all_finite`.
        out: uint64 [k, w].
        index: int64 [k], which rows are copied; all of them by default.

    Returns:
        Whether all numbers copied are finite.
    """
    if index is not None and len(index) and not (index.min() >= 0 and index.max() < len(rows)):
        raise IndexError(f"rows {index.min()}..{index.max()} of {len(rows)}")
    mask, unit, sign = _EXPONENTS[dtype]
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    seen = np.zeros(len(out) + 1, np.uint64)

    def part(lo: int, hi: int) -> None:
        for at in range(lo, hi, step):
            block = out[at : min(at + step, hi)]
            if index is None:
                np.copyto(block, rows[at : at + len(block)])
            else:  # the bounds are checked above; "raise" would copy through a buffer
                np.take(rows, index[at : at + len(block)], axis=0, out=block, mode="clip")
            # Words that touch each other are looked at faster than words in rows.
            words = rows[at : at + len(block)] if index is None and rows.flags.c_contiguous else block
            flat = words.flags.c_contiguous
            seen[at] = _carried(words.reshape(-1), mask, unit) if flat else _carried_rows(words, mask, unit)

    spread(len(out), out.size, part)
    return not int(np.bitwise_or.reduce(seen)) & sign


_BLOCK = 1 << 15  # words that are still in the cache when they are looked at


def words_of(numbers: np.ndarray) -> np.ndarray | None:
    """Rows of numbers [n, ...] as uint64 [n, w], without copying; None where they do not lie that way in memory."""
    width = numbers[:1].nbytes
    inner = numbers[0].flags.c_contiguous if len(numbers) else False
    stride = numbers.strides[0]
    if not inner or not width or width % 8 or stride % 8 or stride < width or numbers.ctypes.data % 8:
        return None
    first = numbers[0].reshape(-1).view(np.uint64)
    return np.lib.stride_tricks.as_strided(first, (len(numbers), width // 8), (stride, 8))


def _words(data: Buffer | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A buffer as aligned 64-bit words and the up to seven bytes that remain; copied only where it is not aligned."""
    flat = data.reshape(-1).view(np.uint8) if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    if flat.ctypes.data % 8:
        flat = flat.copy()
    whole = len(flat) // 8 * 8
    return flat[:whole].view(np.uint64), flat[whole:]


@njit_cached()
def _carried(words, mask, unit):
    seen = np.uint64(0)
    for i in range(len(words)):
        seen |= (words[i] & mask) + unit
    return seen


@njit_cached(nogil=True)
def _carried_rows(rows, mask, unit):
    seen = np.uint64(0)
    for i in range(len(rows)):
        row = rows[i]
        for j in range(len(row)):
            seen |= (row[j] & mask) + unit
    return seen
