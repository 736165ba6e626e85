"""Decibels to powers and back, several at a time: without branches and tables, so that LLVM makes them vector code.

The functions of the C library are called one number after the other, and took a sixth of a step. These are the power
series of the exponential and of the inverse hyperbolic tangent, on intervals where few terms suffice.
"""

from __future__ import annotations

import math

import numpy as np

from .jit import kernel

LIMIT = 500.0  # exponents of two beyond this are cut off: 1,505 dB
_TWOS_PER_DB = math.log2(10.0) / 10.0
_DB_PER_TWO = 10.0 * math.log10(2.0)
_FRACTION_BITS, _BIAS = 52, 1023  # of a float64
_ROUND = 1.5 * 2.0**_FRACTION_BITS  # what is added to this is rounded to a whole number, kept in the lowest bits
_ROUND_FIRST = 1.5 * 2.0 ** (_FRACTION_BITS - 25)  # the same, with 25 binary digits behind the point
_LN2_FIRST = round(math.log(2.0) * 2.0**27) / 2.0**27
_LN2_REST = math.log(2.0) - _LN2_FIRST
_ROOT_HALF = int(np.float64(math.sqrt(0.5)).view(np.int64))
# 2^f = sum of (f ln 2)^n / n!; with |f| <= 1/2 the first term left out is below 2^-57.
_P = tuple(math.log(2.0) ** n / math.factorial(n) for n in range(14))
# log2(m) = 2 artanh(s) / ln 2 with s = (m - 1) / (m + 1) = sum of 2 s^(2 n + 1) / ((2 n + 1) ln 2); |s| < 0.172.
_A = tuple(2.0 / ((2 * n + 1) * math.log(2.0)) for n in range(11))


@kernel
def power_of_two(y):
    """2^y within one unit in the last place, for |y| <= LIMIT; beyond that 2^LIMIT or 2^-LIMIT."""
    y = min(max(y, -LIMIT), LIMIT)
    shifted = y + _ROUND
    f = y - (shifted - _ROUND)
    f2 = f * f
    even, odd = _P[12], _P[13]
    even, odd = even * f2 + _P[10], odd * f2 + _P[11]
    even, odd = even * f2 + _P[8], odd * f2 + _P[9]
    even, odd = even * f2 + _P[6], odd * f2 + _P[7]
    even, odd = even * f2 + _P[4], odd * f2 + _P[5]
    even, odd = even * f2 + _P[2], odd * f2 + _P[3]
    # 1 + f ln 2 rounds no digit away: the first factors have few enough, and what they lack is added to the small rest.
    first = (f + _ROUND_FIRST) - _ROUND_FIRST
    rest = (f - first) * _P[1] + first * _LN2_REST + f2 * (even + f * odd)
    mantissa = (1.0 + first * _LN2_FIRST) + rest
    scale = (np.float64(shifted).view(np.int64) << _FRACTION_BITS) + (_BIAS << _FRACTION_BITS)
    return mantissa * np.int64(scale).view(np.float64)


@kernel
def log_two(x):
    """The logarithm of a normal positive number to base 2, within three units in the last place."""
    bits = np.float64(x).view(np.int64)
    k = (bits - _ROOT_HALF) >> _FRACTION_BITS  # x = m 2^k with m from the root of 1/2 to that of 2
    m = np.int64(bits - (k << _FRACTION_BITS)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    s2 = s * s
    q = _A[10]
    q = q * s2 + _A[9]
    q = q * s2 + _A[8]
    q = q * s2 + _A[7]
    q = q * s2 + _A[6]
    q = q * s2 + _A[5]
    q = q * s2 + _A[4]
    q = q * s2 + _A[3]
    q = q * s2 + _A[2]
    q = q * s2 + _A[1]
    return k + (s * _A[0] + s * s2 * q)


@kernel
def power_of(db):
    """10^(db / 10): dBm to milliwatt."""
    return power_of_two(db * _TWOS_PER_DB)


@kernel
def decibels(ratio):
    """10 log10 of a normal positive number."""
    return log_two(ratio) * _DB_PER_TWO
