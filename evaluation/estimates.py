"""The statistics of a comparison of policies: means, intervals, paired differences and ratios.

Episodes of one seed show every policy the same world, so differences are taken seed by seed. NaN stands for
"does not apply" (the interruption of an episode without a handover): it is left out, never counted as zero. Where a
spread cannot be known (fewer than two values, or all of them equal) the ends of an interval are NaN.
`python -m kvroam.benchmarks.coverage` measures how often intervals hold the truth; docs/statistics.md explains them.
Source of the interquartile mean and the probability of improvement: Agarwal et al., "Deep Reinforcement Learning at the
Edge of the Statistical Precipice", NeurIPS 2021.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ..errors import KvroamError

Strata = Sequence[Any] | NDArray | None


class Interval(NamedTuple):
    """A confidence interval: its two ends, in the unit of the data or NaN, and the number of values behind it."""

    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """Seed-by-seed differences a - b: mean and interquartile mean, each with its interval; n pairs."""

    mean: float
    ci_low: float
    ci_high: float
    iqm: float
    iqm_low: float
    iqm_high: float
    n: int


class Ratio(NamedTuple):
    """How many times the mean of b the mean of a is, with its interval; n pairs."""

    ratio: float
    low: float
    high: float
    n: int


def iqm(x: ArrayLike, axis: int | None = None) -> Any:
    """Return the interquartile mean: the mean after the floor(n / 4) lowest and highest values are cut.

    This is `scipy.stats.trim_mean(x, 0.25)`, the definition in the code of Agarwal et al. Whole values are
    cut, never fractions of one, so below four values it is the mean.

    Args:
        x: values, any shape; NaN gives NaN.
        axis: the axis to reduce, or None for all values.

    Returns:
        A float, or an array without `axis`; NaN where there is no value.
    """
    values = np.asarray(x, dtype=float)
    if axis is None:
        values, axis = values.ravel(), 0
    n = values.shape[axis]
    if n == 0:
        return mean(values, axis)
    cut = n // 4
    # NaN sorts to the end, where cutting would hide it.
    spoiled = np.isnan(values).any(axis=axis)
    middle = np.take(np.sort(values, axis=axis), np.arange(cut, n - cut), axis=axis)
    return np.where(spoiled, np.nan, middle.mean(axis=axis))[()]


def mean(x: ArrayLike, axis: int | None = None) -> Any:
    """Return the mean, or NaN, without a warning, where there is no value."""
    values = np.asarray(x, dtype=float)
    if values.size == 0:
        return values.sum(axis=axis) * np.nan
    return values.mean(axis=axis)


def mean_interval(x: ArrayLike, level: float = 0.95, strata: Strata = None) -> Interval:
    """Return the interval of the mean: Student's t, made longer on the side of the long tail.

    Student's t is too short on that side when values are skewed, as costs are. Hall's transformation corrects it from
    the third moment; of the two ends on either side, the farther one is taken.

    Args:
        x: [n] values; NaN are dropped, and the interval says how many are left.
        level: share of such intervals that hold the truth, in (0, 1).
        strata: [n] labels (such as scenario names) whose shares are fixed: only the spread within them counts.

    Returns:
        The interval; its ends are NaN where a stratum has one value, or where all values of each are equal.

    Raises:
        KvroamError: `level` or the length of `strata` is out of range.

    Source: Hall, "On the removal of skewness by transformation", J. R. Statist. Soc. B 54 (1992), 221-228; degrees of
        freedom over strata: Satterthwaite, Biometrics Bulletin 2 (1946), 110-114.
    """
    values, labels = _kept(x, level, strata)
    centre, (error, skew, freedom) = float(mean(values)), _spread(values, labels)
    below, above = _arms(error, skew, freedom, level)
    return Interval(centre - below, centre + above, len(values))


def iqm_interval(x: ArrayLike, level: float = 0.95, strata: Strata = None) -> Interval:
    """Return the interval of the interquartile mean: Student's t on values pulled in to the quartiles.

    Args:
        x, level, strata: as in `mean_interval`.

    Returns:
        The interval; its ends are NaN also where more than a quarter of the values are one and the same, since the
        quartiles then tell nothing about the spread.

    Raises:
        KvroamError: as `mean_interval`.

    Source: Tukey and McLaughlin, Sankhya A 25 (1963), 331-352; `scipy.stats.mstats.trimmed_mean_ci` without strata.
    """
    values, labels = _kept(x, level, strata)
    n, cut = len(values), len(values) // 4
    if n and np.unique(values, return_counts=True)[1].max() > max(1, cut):
        return Interval(np.nan, np.nan, n)
    ordered, left = np.sort(values), n - 2 * cut
    pulled = np.clip(values, ordered[cut], ordered[n - cut - 1]) if n else values
    error, _, freedom = _spread(pulled, labels)
    arm, _ = _arms(error * n / max(left, 1), 0.0, freedom * (left - 1) / max(n - 1, 1), level)
    centre = float(iqm(values))
    return Interval(centre - arm, centre + arm, n)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95, strata: Strata = None) -> Difference:
    """Return the mean and interquartile mean of a - b over the pairs in which both have a value.

    Args:
        a: [n] values of one policy, in the order of the seeds.
        b: [n] values of the other policy on the same seeds.
        level: of the intervals.
        strata: [n] labels of the pairs.

    Raises:
        KvroamError: the lengths differ, or what `mean_interval` refuses.
    """
    first, second = _pair(a, b)
    difference = first - second
    kept = difference[~np.isnan(difference)]
    of_mean = mean_interval(difference, level, strata)
    of_iqm = iqm_interval(difference, level, strata)
    return Difference(
        float(mean(kept)), of_mean.low, of_mean.high, float(iqm(kept)), of_iqm.low, of_iqm.high, len(kept)
    )


def paired_ratio(a: ArrayLike, b: ArrayLike, level: float = 0.95, strata: Strata = None) -> Ratio:
    """Return the mean of a over the mean of b, from the pairs in which both have a value.

    The interval is that of `mean_interval` for the logarithm of the ratio, from what it is without each pair in turn
    (jackknife pseudo-values), and holds the ratio; no end is below 0.

    Args:
        a: [n] values of one policy, in the order of the seeds.
        b: [n] values of the other policy on the same seeds.
        level: of the interval.
        strata: [n] labels of the pairs.

    Returns:
        NaN for ratio and ends where a mean is not above 0; NaN for the ends also where it would not be without one of
        the pairs.

    Raises:
        KvroamError: the lengths differ, or what `mean_interval` refuses.

    Source: Miller, "The jackknife - a review", Biometrika 61 (1974), 1-15.
    """
    first, second = _pair(a, b)
    both = ~np.isnan(first - second)
    n, labels = int(both.sum()), None if strata is None else _labels(first, strata)[both]
    first, second = first[both], second[both]
    over, under = first.sum(), second.sum()
    if not (over > 0 and under > 0):
        return Ratio(np.nan, np.nan, np.nan, n)
    ratio = float(over / under)
    without_a, without_b = over - first, under - second
    if not (without_a.min() > 0 and without_b.min() > 0):
        return Ratio(ratio, np.nan, np.nan, n)
    # As deviations from the logarithm, so that equal policies differ by exactly nothing.
    shift = (n - 1) * (np.log(ratio) - np.log(without_a / without_b))
    low, high, _ = mean_interval(shift, level, labels)
    # The mean of the pseudo-values differs from 0 by a bias of order 1 / n, which the ratio that is shown still has.
    return Ratio(ratio, float(ratio * np.exp(min(low, 0.0))), float(ratio * np.exp(max(high, 0.0))), n)


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray, NDArray]:
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    if len(first) != len(second):
        raise KvroamError(f"{len(first)} and {len(second)} values are no pairs; evaluate on the same seeds")
    return first, second


def _labels(values: NDArray, strata: Strata) -> NDArray:
    labels = np.zeros(len(values)) if strata is None else np.asarray(strata).ravel()
    if len(labels) != len(values):
        raise KvroamError(f"{len(labels)} strata for {len(values)} values; give one label per value")
    return labels


def _kept(x: ArrayLike, level: float, strata: Strata) -> tuple[NDArray, NDArray]:
    """The values that are there, and their labels."""
    if not 0 < level < 1:
        raise KvroamError(f"level {level} is outside (0, 1); 0.95 is usual")
    values = np.asarray(x, dtype=float).ravel()
    labels, there = _labels(values, strata), ~np.isnan(values)
    return values[there], labels[there]


def _spread(values: NDArray, labels: NDArray) -> tuple[float, float, float]:
    """Standard error and skewness of the mean, and degrees of freedom; NaN where the spread cannot be known."""
    unknown, n = (np.nan, np.nan, np.nan), len(values)
    variance = squares = cubes = shrink = 0.0
    for label in np.unique(labels):
        part = values[labels == label]
        k = len(part)
        if k < 2:
            return unknown
        if part.min() == part.max():
            continue
        off, share = part - part.mean(), k / n
        second = share**2 * (off @ off) / k**2
        squares += second
        cubes += share**3 * (off @ off**2) / k**3
        variance += second * k / (k - 1)
        shrink += (second * k / (k - 1)) ** 2 / (k - 1)
    if variance == 0:
        return unknown
    return float(np.sqrt(variance)), float(cubes / squares**1.5), float(variance**2 / shrink)


def _arms(error: float, skew: float, freedom: float, level: float) -> tuple[float, float]:
    """How far the interval reaches below and above the estimate.

    Hall's transformation of the studentised mean T is T + k/3 T^2 + k^2/27 T^3 + k/6, k its skewness; it has about
    Student's distribution, and its inverse gives the ends.
    """
    t = float(stdtrit(freedom, (1 + level) / 2))

    def inverse(y: float) -> float:
        shifted = y - skew / 6
        return shifted if abs(skew) < 1e-6 else float(3 / skew * (np.cbrt(1 + skew * shifted) - 1))

    return error * max(t, inverse(t)), error * max(t, -inverse(-t))


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, better: Literal["lower", "higher"] = "higher"
) -> float:
    """Return the probability that an episode of `a` is better than one of `b`; ties count one half.

    All pairs are compared, not only those of one seed (the Mann-Whitney statistic over its maximum), as
    in Agarwal et al.

    Args:
        a: [n] values of one policy; NaN are dropped.
        b: [m] values of the other policy; NaN are dropped.
        better: whether higher or lower values are better.

    Returns:
        A share in [0, 1]; NaN when either has no value.
    """
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    first, second = first[~np.isnan(first)], np.sort(second[~np.isnan(second)])
    if len(first) == 0 or len(second) == 0:
        return float("nan")
    below = np.searchsorted(second, first, side="left")
    up_to = np.searchsorted(second, first, side="right")
    higher = float((below + up_to).mean() / (2 * len(second)))
    return higher if better == "higher" else 1.0 - higher
