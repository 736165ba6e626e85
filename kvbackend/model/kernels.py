"""Compiled loops for float32 on the CPU: what torch would do in many passes over memory is done here in one or two.

Each kernel works on items [lo, hi), which do not depend on each other, so that `threads.spread` can hand parts to
threads; the numbers do not depend on how many.
"""

import numpy as np
from numba import njit

from ...compat import njit_cached

_F = np.float32
_I = np.int32


@njit(inline="always")
def _exp(x):
    """e ** x for x <= 88, within 3e-7 of it; 0 below -87 (Cody and Waite's reduction, a polynomial, powers of two)."""
    bounded = max(x, _F(-87.0))
    n = np.floor(bounded * _F(1.44269504) + _F(0.5))
    r = bounded - n * _F(0.693359375) + n * _F(2.12194440e-4)
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _F(5.0000001201e-1)
    p = p * r * r + r + _F(1.0)
    power = p * _I((_I(n) + _I(127)) << _I(23)).view(np.float32)
    return power if x >= _F(-87.0) else _F(0.0)


@njit(inline="always")
def _log(x):
    """Natural logarithm of a normal float32 above 0, within 2e-7 of its size."""
    bits = _F(x).view(np.int32)
    m = _I((bits & _I(0x7FFFFF)) | _I(0x3F800000)).view(np.float32)
    large = m > _F(1.41421356)
    k = _F((bits >> _I(23)) - _I(127)) + (_F(1.0) if large else _F(0.0))
    t = (m * _F(0.5) if large else m) - _F(1.0)
    z = t * t
    p = _F(7.0376836292e-2)
    p = p * t + _F(-1.1514610310e-1)
    p = p * t + _F(1.1676998740e-1)
    p = p * t + _F(-1.2420140846e-1)
    p = p * t + _F(1.4249322787e-1)
    p = p * t + _F(-1.6668057665e-1)
    p = p * t + _F(2.0000714765e-1)
    p = p * t + _F(-2.4999993993e-1)
    p = p * t + _F(3.3333331174e-1)
    return t + (p * t * z - k * _F(2.12194440e-4) - _F(0.5) * z) + k * _F(0.693359375)


@njit_cached(nogil=True, fastmath=True)
def compare_rows(full, degraded, targets, out, lo, hi):
    """`drift.divergences` of logits [n, vocab]; a sixth row of `out` [6, n] is 1 where one is NaN or inf."""
    vocab = full.shape[1]
    first, second = np.empty(vocab, _F), np.empty(vocab, _F)
    for i in range(lo, hi):
        a, b = full[i], degraded[i]
        top_a, top_b, bits = a[0], b[0], _I(0)
        for j in range(vocab):
            top_a, top_b = max(top_a, a[j]), max(top_b, b[j])
            # As integers, because fast arithmetic may take for granted that there is no NaN.
            bits = max(bits, _F(a[j]).view(np.int32) & _I(0x7FFFFFFF), _F(b[j]).view(np.int32) & _I(0x7FFFFFFF))
        sum_a, sum_b = _F(0.0), _F(0.0)
        for j in range(vocab):
            p, q = _exp(a[j] - top_a), _exp(b[j] - top_b)
            first[j], second[j] = p, q
            sum_a += p
            sum_b += q
        log_a, log_b = top_a + _log(sum_a), top_b + _log(sum_b)
        scale_a, scale_b = _F(1.0) / sum_a, _F(1.0) / sum_b
        kl, js = _F(0.0), _F(0.0)
        for j in range(vocab):
            p, q = first[j] * scale_a, second[j] * scale_b
            # Masked vocabulary has logits of -inf; the bound turns 0 * inf into 0, and changes nothing else.
            log_p, log_q = max(a[j] - log_a, _F(-1e4)), max(b[j] - log_b, _F(-1e4))
            both = p + q
            kl += p * (log_p - log_q)
            js += p * log_p + q * log_q - both * _log(max(both * _F(0.5), _F(1.1754944e-38)))
        best = 0
        while b[best] < top_b:
            best += 1
        target = targets[i]
        out[0, i], out[1, i] = max(kl, _F(0.0)), max(js * _F(0.5), _F(0.0))
        out[2, i] = a[best] >= top_a
        out[3, i] = out[4, i] = 0.0
        if target >= 0:
            out[3, i] = max(a[target] - log_a, _F(-1e4)) - max(b[target] - log_b, _F(-1e4))
            out[4, i] = b[target] >= top_b
        out[5, i] = bits > _I(0x7F800000) or max(top_a, top_b) > _F(3.4e38)


@njit_cached(nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def add_norm(x, change, weight, eps, out, lo, hi):
    """x [n, d] += change; out = x / sqrt(mean(x ** 2) + eps) * weight. `change` may have no rows: nothing to add."""
    width = x.shape[1]
    for i in range(lo, hi):
        square = _F(0.0)
        if len(change):
            for j in range(width):
                x[i, j] += change[i, j]
        for j in range(width):
            square += x[i, j] * x[i, j]
        scale = _F(1.0) / np.sqrt(square / _F(width) + eps)
        for j in range(width):
            out[i, j] = x[i, j] * scale * weight[j]


@njit_cached(nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def rotate(x, cos, sin, weight, eps, out, lo, hi):
    """Rotary positions (the two halves of a head form the pairs), after a norm where `weight` is not empty.

    x and out are [n, heads, D], cos and sin [n, D / 2], weight [D].
    """
    heads, dim = x.shape[1:]
    half = dim // 2
    for i in range(lo, hi):
        for h in range(heads):
            scale = _F(1.0)
            if len(weight):
                square = _F(0.0)
                for d in range(dim):
                    square += x[i, h, d] * x[i, h, d]
                scale = _F(1.0) / np.sqrt(square / _F(dim) + eps)
            for d in range(half):
                a, b = x[i, h, d] * scale, x[i, h, half + d] * scale
                if len(weight):
                    a, b = a * weight[d], b * weight[half + d]
                out[i, h, d] = a * cos[i, d] - b * sin[i, d]
                out[i, h, half + d] = b * cos[i, d] + a * sin[i, d]


@njit_cached(nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp", "nnan"})
def masked_softmax(scores, lengths, width, first, scale, empty, lo, hi):
    """Softmax in place of scores [B, Hkv, G, T, N] times `scale`, 0 where a query does not see a key.

    Query t of sequence b sees stored keys [0, lengths[b]), and new ones [width, width + first + t]; except where
    empty [B, Hkv, width] says that the head does not hold the key (empty of no elements: every head holds every key).
    """
    kv_heads, groups, steps, columns = scores.shape[1:]
    for item in range(lo, hi):
        b, h = item // kv_heads, item % kv_heads
        stored = lengths[b]
        for g in range(groups):
            for t in range(steps):
                row = scores[b, h, g, t]
                stop = width + first + t + 1
                if empty.size:
                    for j in range(stored):
                        row[j] = _F(-np.inf) if empty[b, h, j] else row[j]
                top = row[stop - 1]
                for j in range(stored):
                    top = max(top, row[j])
                for j in range(width, stop):
                    top = max(top, row[j])
                total = _F(0.0)
                for j in range(stored):
                    row[j] = _exp((row[j] - top) * scale)
                    total += row[j]
                for j in range(width, stop):
                    row[j] = _exp((row[j] - top) * scale)
                    total += row[j]
                share = _F(1.0) / total
                for j in range(stored):
                    row[j] *= share
                for j in range(width, stop):
                    row[j] *= share
                row[stored:width] = _F(0.0)
                row[stop:columns] = _F(0.0)


@njit_cached(nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp", "nnan"})
def causal_softmax(scores, seen, scale, lo, hi):
    """Softmax in place of scores [n, T, N] times `scale`; query t sees the first seen[t] keys; the rest is 0."""
    for i in range(lo, hi):
        for t in range(scores.shape[1]):
            row, count = scores[i, t], seen[t]
            row[count:] = _F(0.0)
            if count == 0:
                continue
            top, total = row[0], _F(0.0)
            for j in range(count):
                top = max(top, row[j])
            for j in range(count):
                row[j] = _exp((row[j] - top) * scale)
                total += row[j]
            share = _F(1.0) / total
            for j in range(count):
                row[j] *= share


@njit_cached(nogil=True)
def pooled(scores, positions, half):
    """Largest score [n] among the rows whose position is at most `half` away; positions [n] ascend, scores are >= 0."""
    out = np.empty_like(scores)
    first = last = 0
    for i in range(len(scores)):
        while positions[first] < positions[i] - half:
            first += 1
        while last < len(scores) and positions[last] <= positions[i] + half:
            last += 1
        best = scores[i]
        for j in range(first, last):
            best = max(best, scores[j])
        out[i] = best
    return out
