"""The statistics of a comparison of policies: robust means, intervals, paired differences.

Episodes of one seed show every policy the same world, so differences are taken seed by seed. NaN stands for
"does not apply" (the interruption of an episode without a handover): it is left out, never counted as zero.
Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import KvroamError

Statistic = Callable[..., Any]


class Interval(NamedTuple):
    """A confidence interval: its two ends, in the unit of the data, and the number of values behind it."""

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


def bootstrap_interval(
    x: ArrayLike,
    statistic: Statistic = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    strata: Sequence[Any] | NDArray | None = None,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic; stratified when strata are given.

    Args:
        x: [n] values; NaN are dropped, and the interval says how many are left.
        statistic: called as `statistic(samples, axis=-1)` on an array [resamples, n].
        level: probability mass between the ends, in (0, 1).
        resamples: number of resamples.
        seed: of the resampling; equal seeds give equal intervals.
        strata: [n] labels (such as scenario names); each is resampled within itself, at its own size.

    Returns:
        The interval; one value gives that value twice, none gives NaN.

    Raises:
        KvroamError: `level`, `resamples` or the length of `strata` is out of range.
    """
    values = np.asarray(x, dtype=float).ravel()
    if not 0 < level < 1:
        raise KvroamError(f"level {level} is outside (0, 1); 0.95 is usual")
    if resamples < 1:
        raise KvroamError(f"resamples {resamples} is below 1; 2000 is usual")
    labels = np.zeros(len(values)) if strata is None else np.asarray(strata).ravel()
    if len(labels) != len(values):
        raise KvroamError(f"{len(labels)} strata for {len(values)} values; give one label per value")
    kept = ~np.isnan(values)
    values, labels = values[kept], labels[kept]
    if len(values) < 2:
        only = float(statistic(values[None, :], axis=-1)[0])
        return Interval(only, only, len(values))
    rng = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        stratum = values[labels == label]
        drawn.append(stratum[rng.integers(0, len(stratum), size=(resamples, len(stratum)))])
    replicates = statistic(np.concatenate(drawn, axis=1), axis=-1)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), len(values))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    strata: Sequence[Any] | NDArray | None = None,
) -> Difference:
    """Return the mean and interquartile mean of a - b over the pairs in which both have a value.

    Args:
        a: [n] values of one policy, in the order of the seeds.
        b: [n] values of the other policy on the same seeds.
        level: of the intervals.
        resamples: of the bootstrap over pairs.
        seed: of the resampling.
        strata: [n] labels of the pairs.

    Raises:
        KvroamError: the lengths differ, or what `bootstrap_interval` refuses.
    """
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    if len(first) != len(second):
        raise KvroamError(f"{len(first)} and {len(second)} values are no pairs; evaluate on the same seeds")
    difference = first - second
    kept = difference[~np.isnan(difference)]
    of_mean = bootstrap_interval(difference, mean, level, resamples, seed, strata)
    of_iqm = bootstrap_interval(difference, iqm, level, resamples, seed, strata)
    return Difference(
        float(mean(kept)), of_mean.low, of_mean.high, float(iqm(kept)), of_iqm.low, of_iqm.high, len(kept)
    )


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
