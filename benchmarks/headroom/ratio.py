"""The ratio of two means over the same episodes, with an interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Ratio(NamedTuple):
    """A ratio of means, its 95 % interval, and the pairs behind it."""

    ratio: float
    low: float
    high: float
    n: int


def paired_ratio(a: ArrayLike, b: ArrayLike) -> Ratio:
    """The mean of a over the mean of b: Student's t on the logarithm, from its jackknife pseudo-values.

    Args:
        a, b: [n], the same episodes in the same order.

    Source: Miller, "The jackknife - a review", Biometrika 61 (1974), 1-15.
    """
    from scipy.stats import t

    first, second = np.asarray(a, float), np.asarray(b, float)
    n, over, under = len(first), first.sum(), second.sum()
    if n == 0 or not (over > 0 and under > 0):
        return Ratio(np.nan, np.nan, np.nan, n)
    ratio, left = float(over / under), (over - first) / (under - second + (n == 1))
    if n < 2 or not (left > 0).all():
        return Ratio(ratio, np.nan, np.nan, n)
    pseudo = n * np.log(ratio) - (n - 1) * np.log(left)
    half = float(t.ppf(0.975, n - 1) * pseudo.std(ddof=1) / np.sqrt(n))
    return Ratio(ratio, ratio * float(np.exp(-half)), ratio * float(np.exp(half)), n)
