"""Compiled loops of `quantise.py` for the CPU: each group of tokens is read once, and worked on while it is near.

Numbers are handled by their bits, because numba knows no float16, and so that a group's least and greatest number are
those of integers, in which NaN and infinity show. Everything is what IEEE 754 says (round to nearest, ties to even), so
that results do not depend on the processor.

Rows of tokens are given as the words from the first number of the first row on, and the distance between rows: loops
over consecutive words are compiled to vector instructions, loops over strided arrays are not.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

from ...compat import njit_cached, numba_options

_F, _I, _U = np.float32, np.int32, np.uint32
_BEYOND_HALF = 0x477FF000  # bits of 65520, the least float32 that rounds to infinity in float16
_ROUNDER = 12582912.0  # 1.5 * 2 ** 23: a float32 added to it is rounded to an integer, in the lowest bits of the sum


def quantise_scratch(sizes: tuple[int, int, int], dtype: np.dtype) -> tuple:
    """Memory for `quantise_groups` of words of a dtype; a kernel that owns none need not count who holds an array."""
    group, heads, dim = sizes
    width, ordered = heads * dim, np.int16 if dtype == np.uint16 else np.int32
    seen, narrow = np.empty((group, 2 * width), ordered), np.empty((2, width), ordered)
    wide, few, lists = np.empty((2, width), _F), np.empty((2, group * heads), _F), np.empty((2, group * heads), ordered)
    return (seen, *narrow, *lists), (*wide, *few), np.empty(width, np.uint8)


def dequantise_scratch(sizes: tuple[int, int, int]) -> tuple:
    """Memory for `dequantise_groups`."""
    width = sizes[1] * sizes[2]
    return np.empty(width, _F), np.empty(width, _F), np.empty(width, np.uint8)


@njit_cached(nogil=True, error_model="numpy", **numba_options())
def quantise_groups(words, stride, index, sizes, bits, parts, scratch, lo, hi):
    """Quantise groups [lo, hi) of tokens; whether all of their numbers, scales and ranges are finite in float16.

    Call it for groups in ascending order: what is packed into the higher bits of a byte is added to the lowest.

    Args:
        words: uint16 (float16) or uint32 (float32) numbers; row t, a token's keys and then its values, is
            words[t * stride:].
        index: int64 [count], which rows.
        sizes: tokens in a group, KV heads, head dimension.
        parts: scales and zeros of keys, float16 as uint16 [groups, Hkv * D]; those of values [count * Hkv]; and the
            codes of both, uint8 [2, bytes], the first part of them in the lowest bits of the bytes, the second next to
            it.
        scratch: what `quantise_scratch` makes; of this call alone.
    """
    group, heads, dim = sizes
    scales, zeros, value_scales, value_zeros, packed = parts
    (seen, low, high, least, most), (zero, step, value_zero, value_step), codes = scratch
    width, top, over = heads * dim, _F((1 << bits) - 1), _U(0)
    for g in range(lo, hi):
        first, count = g * group, min(group, len(index) - g * group)
        _order(words[index[first] * stride :], low)
        _order(words[index[first] * stride :], high)
        for i in range(count):
            _order(words[index[first + i] * stride :], seen[i])
            _widen(seen[i], low, high)
            for h in range(heads):
                least[i * heads + h], most[i * heads + h] = _range(seen[i, width + h * dim : width + (h + 1) * dim])
        over = _U(over | _set_scales(low, high, top, scales[g], zeros[g], step, zero))
        for i in range(count):
            _quantise(seen[i], zero, step, top, codes)
            _pack(codes, (first + i) * width, bits, packed[0])
        part, ranges = slice(first * heads, (first + count) * heads), count * heads
        found = _set_scales(least[:ranges], most, top, value_scales[part], value_zeros[part], value_step, value_zero)
        over = _U(over | found)
        for i in range(count):
            for h in range(heads):
                _fill(zero[h * dim : (h + 1) * dim], value_zero[i * heads + h])
                _fill(step[h * dim : (h + 1) * dim], value_step[i * heads + h])
            _quantise(seen[i, width:], zero, step, top, codes)
            _pack(codes, (first + i) * width, bits, packed[1])
    return over < _U(0x80000000)


@njit_cached(nogil=True, error_model="numpy", **numba_options())
def dequantise_groups(words, stride, sizes, bits, parts, scratch, lo, hi):
    """The inverse of `quantise_groups`; whether all numbers are finite in the type of `words`.

    Args:
        words: written; row t belongs to token t.
        parts: as there; scales and zeros are finite.
        scratch: what `dequantise_scratch` makes; of this call alone.
    """
    group, heads, dim = sizes
    scales, zeros, value_scales, value_zeros, packed = parts
    zero, step, codes = scratch
    width, over = heads * dim, _U(0)
    for g in range(lo, hi):
        first, last = g * group, min((g + 1) * group, len(value_scales) // heads)
        for c in range(width):
            zero[c], step[c] = _from_half(zeros[g, c]), _from_half(scales[g, c])
        for t in range(first, last):
            _unpack(packed[0], t * width, bits, codes)
            over = _U(over | _dequantise(codes, zero, step, words[t * stride : t * stride + width]))
        for t in range(first, last):
            _unpack(packed[1], t * width, bits, codes)
            for h in range(heads):
                _fill(zero[h * dim : (h + 1) * dim], _from_half(value_zeros[t * heads + h]))
                _fill(step[h * dim : (h + 1) * dim], _from_half(value_scales[t * heads + h]))
            over = _U(over | _dequantise(codes, zero, step, words[t * stride + width : t * stride + 2 * width]))
    return over < _U(0x80000000)


@njit(error_model="numpy")
def _pack(codes, first, bits, out):
    """Store codes first.. first + len(codes) - 1 of all; those before them are in place."""
    size, at = len(out), 0
    while at < len(codes):
        part = (first + at) // size
        start = first + at - part * size
        run = min(len(codes) - at, size - start)
        _merge(codes[at : at + run], part * bits, out[start : start + run])
        at += run


@njit(error_model="numpy")
def _unpack(packed, first, bits, out):
    """Codes first.. first + len(out) - 1 of all."""
    size, at, mask = len(packed), 0, np.uint8((1 << bits) - 1)
    while at < len(out):
        part = (first + at) // size
        start = first + at - part * size
        run = min(len(out) - at, size - start)
        _shifted(packed[start : start + run], part * bits, mask, out[at : at + run])
        at += run


# Shifts by a constant are compiled to instructions on bytes, shifts by a variable are not: those of 4 and 2 bits.


@njit(error_model="numpy")
def _merge(codes, shift, out):
    if shift == 0:
        for j in range(len(out)):
            out[j] = codes[j]
    elif shift == 2:
        for j in range(len(out)):
            out[j] |= np.uint8(codes[j] << 2)
    elif shift == 4:
        for j in range(len(out)):
            out[j] |= np.uint8(codes[j] << 4)
    elif shift == 6:
        for j in range(len(out)):
            out[j] |= np.uint8(codes[j] << 6)
    else:
        for j in range(len(out)):
            out[j] |= np.uint8(codes[j] << shift)


@njit(error_model="numpy")
def _shifted(packed, shift, mask, out):
    if shift == 0:
        for j in range(len(out)):
            out[j] = packed[j] & mask
    elif shift == 2:
        for j in range(len(out)):
            out[j] = np.uint8(packed[j] >> 2) & mask
    elif shift == 4:
        for j in range(len(out)):
            out[j] = np.uint8(packed[j] >> 4) & mask
    elif shift == 6:
        for j in range(len(out)):
            out[j] = np.uint8(packed[j] >> 6) & mask
    else:
        for j in range(len(out)):
            out[j] = np.uint8(packed[j] >> shift) & mask


@njit(error_model="numpy")
def _quantise(seen, zero, step, top, codes):
    for c in range(len(codes)):
        codes[c] = _code((_number(seen[c]) - zero[c]) / step[c], top)


@njit(error_model="numpy")
def _code(steps, top):
    """The nearest code, the even one of two, within [0, top]."""
    bounded = steps if steps > _F(0.0) else _F(0.0)
    bounded = bounded if bounded < top else top
    return np.uint8(_F(bounded + _F(_ROUNDER)).view(np.uint32))


@njit(error_model="numpy")
def _set_scales(low, high, top, scales, zeros, step, zero):
    """Scales and zeros of ranges, as uint16 and as float32, that scale at least 1; and `_over` of all of them."""
    over = _U(0)
    for c in range(len(low)):
        least = _number(low[c]) + _F(0.0)  # -0 travels as 0
        scale = _F(_number(high[c]) - least) / top
        scales[c], zeros[c] = _to_half(scale), _to_half(least)
        over = _U(over | _not_finite(low[c]) | _not_finite(high[c]) | _over(least) | _over(scale))
        size = _from_half(scales[c])
        zero[c], step[c] = _from_half(zeros[c]), size if size > _F(0.0) else _F(1.0)
        over = _U(over | _over(zero[c] + top * size))
    return over


@njit(error_model="numpy")
def _fill(out, value):
    for c in range(len(out)):
        out[c] = value


@njit(error_model="numpy")
def _widen(seen, low, high):
    for c in range(len(low)):
        low[c] = min(low[c], seen[c])
        high[c] = max(high[c], seen[c])


@njit(error_model="numpy")
def _range(seen):
    low = high = seen[0]
    for c in range(len(seen)):
        low = min(low, seen[c])
        high = max(high, seen[c])
    return low, high


@njit(error_model="numpy")
def _over(number):
    """A uint32 whose highest bit tells that a float32 is not finite as a float16."""
    return _U(_U(_F(number).view(np.uint32) & _U(0x7FFFFFFF)) + _U(0x80000000 - _BEYOND_HALF))


@njit(error_model="numpy")
def _from_half(half):
    """A finite float16, given by its bits, as float32."""
    size = _U(_U(half) & _U(0x7FFF))
    shifted = _U(size << _U(13))
    normal = _U(shifted + _U(0x38000000))
    # Below the normal numbers the exponent is constant: given its bit, the mantissa is that much too large.
    tiny = _F(_U(shifted + _U(0x38800000)).view(np.float32) - _F(2.0**-14)).view(np.uint32)
    sign = _U(_U(_U(half) & _U(0x8000)) << _U(16))
    return _U((tiny if size < _U(0x400) else normal) | sign).view(np.float32)


@njit(error_model="numpy")
def _to_half(number):
    """The bits of the nearest float16, ties to even, of a float32 below 65520."""
    bits = _F(number).view(np.uint32)
    size = _U(bits & _U(0x7FFFFFFF))
    odd = _U(_U(size >> _U(13)) & _U(1))
    normal = _U(_U(_U(size + _U(0xFFF)) + odd) >> _U(13)) - _U(0x1C000)
    tiny = _U(_F(size.view(np.float32) + _F(0.5)).view(np.uint32) - _U(0x3F000000))
    sign = _U(_U(bits >> _U(16)) & _U(0x8000))
    return np.uint16(_U(tiny if size < _U(0x38800000) else normal) | sign)


# The same for uint16, which are float16, and uint32, which are float32. numba compiles the one that fits the type.


def _order(words, out):
    """Signed integers that are ordered as the numbers are; twice the same is the identity."""


def _number(ordered):
    """The number as float32."""


def _not_finite(ordered):
    """A uint32 whose highest bit tells that an ordered integer is that of NaN or infinity."""


def _dequantise(codes, zero, step, words):
    """Store codes as numbers; the highest bit of the uint32 returned tells that one is not finite there."""


@overload(_order)
def _(words, out):
    if words.dtype == types.uint16:

        def order(words, out):
            for c in range(len(out)):
                bits = np.int16(words[c])
                out[c] = np.int16(bits ^ np.int16(np.int16(bits >> 15) & np.int16(0x7FFF)))

    else:

        def order(words, out):
            for c in range(len(out)):
                bits = _I(words[c])
                out[c] = _I(bits ^ _I(_I(bits >> 31) & _I(0x7FFFFFFF)))

    return order


@overload(_number)
def _(ordered):
    if ordered == types.int16:
        return lambda ordered: _from_half(np.uint16(ordered ^ np.int16(np.int16(ordered >> 15) & np.int16(0x7FFF))))
    return lambda ordered: _I(ordered ^ _I(_I(ordered >> 31) & _I(0x7FFFFFFF))).view(np.float32)


@overload(_not_finite)
def _(ordered):
    if ordered == types.int16:
        return lambda ordered: _over(_number(ordered))  # there they continue the numbers, from 65536 on
    return lambda ordered: _U(_U(_F(_number(ordered)).view(np.uint32) & _U(0x7FFFFFFF)) + _U(0x00800000))


@overload(_dequantise)
def _(codes, zero, step, words):
    # A product of 8 and 11 bits is exact, so that it does not matter whether it is fused with the sum.
    if words.dtype == types.uint16:

        def dequantise(codes, zero, step, words):
            over = _U(0)
            for c in range(len(codes)):
                number = zero[c] + _F(codes[c]) * step[c]
                words[c] = _to_half(number)
                over = _U(over | _over(number))
            return over

    else:

        def dequantise(codes, zero, step, words):
            over = _U(0)
            for c in range(len(codes)):
                bits = _F(zero[c] + _F(codes[c]) * step[c]).view(np.uint32)
                words[c] = bits
                over = _U(over | _U(_U(bits & _U(0x7FFFFFFF)) + _U(0x00800000)))
            return over

    return dequantise
