"""The statistics agree with SciPy, with closed forms, and with what intervals promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kvroam.errors import KvroamError
from kvroam.evaluation.estimates import (
    bootstrap_interval,
    iqm,
    mean,
    paired_difference,
    probability_of_improvement,
)

NAN = float("nan")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_iqm_is_scipys_trimmed_mean(values):
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-6)


def test_iqm_ignores_outliers_that_the_mean_follows():
    values = [1.0, 2.0, 3.0, 1e9]
    assert iqm(values) == 2.5
    assert mean(values) > 1e8


def test_iqm_reduces_one_axis_or_all():
    table = np.random.default_rng(0).normal(size=(5, 8))
    assert iqm(table, axis=1).shape == (5,)
    np.testing.assert_allclose(iqm(table, axis=0), stats.trim_mean(table, 0.25, axis=0))
    assert iqm(table) == pytest.approx(stats.trim_mean(table.ravel(), 0.25))


def test_iqm_of_nothing_is_nan_and_a_nan_is_not_hidden():
    assert math.isnan(iqm([]))
    assert math.isnan(iqm([1.0, 2.0, 3.0, 4.0, NAN]))


@pytest.mark.parametrize("statistic", [np.mean, np.std])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_agrees_with_scipys_percentile_bootstrap(statistic, level):
    values = np.random.default_rng(1).gamma(2.0, size=60)
    ours = bootstrap_interval(values, statistic, level=level, resamples=20_000, seed=2)
    theirs = stats.bootstrap(
        (values,),
        statistic,
        confidence_level=level,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_the_interval_of_the_iqm_agrees_with_scipy():
    values = np.random.default_rng(4).standard_t(2, size=50)
    ours = bootstrap_interval(values, resamples=10_000)
    theirs = stats.bootstrap(
        (values,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_the_interval_of_a_mean_approaches_the_normal_one():
    values = np.random.default_rng(6).normal(10.0, 2.0, size=400)
    interval = bootstrap_interval(values, np.mean, resamples=10_000)
    half = 1.959964 * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    intervals = [bootstrap_interval(rng.normal(size=40), np.mean, resamples=400, seed=i) for i in range(400)]
    covered = np.mean([low <= 0.0 <= high for low, high, _ in intervals])
    assert 0.90 <= covered <= 0.98


def test_strata_take_the_spread_between_them_out_of_the_interval():
    rng = np.random.default_rng(8)
    easy, hard = rng.normal(0.0, 0.1, size=20), rng.normal(100.0, 0.1, size=60)
    values = np.concatenate([easy, hard])
    labels = ["easy"] * 20 + ["hard"] * 60
    stratified = bootstrap_interval(values, np.mean, strata=labels, resamples=10_000)
    # Var of the mean = sum over strata of share^2 * var / n.
    deviation = math.sqrt((0.25**2 * easy.var() / 20) + (0.75**2 * hard.var() / 60))
    assert (stratified.high - stratified.low) / 2 == pytest.approx(1.96 * deviation, rel=0.05)
    plain = bootstrap_interval(values, np.mean)
    assert plain.high - plain.low > 100 * (stratified.high - stratified.low)


def test_strata_of_one_value_each_leave_nothing_to_resample():
    interval = bootstrap_interval([1.0, 2.0, 6.0], np.mean, strata=[0, 1, 2])
    assert interval == (3.0, 3.0, 3)


def test_nan_is_left_out_and_the_rest_is_counted():
    values = np.random.default_rng(9).normal(size=30)
    gappy = np.insert(values, [0, 7, 30], NAN)
    labels = np.arange(33) % 2
    kept_labels = labels[~np.isnan(gappy)]
    assert bootstrap_interval(gappy) == bootstrap_interval(values)
    assert bootstrap_interval(gappy, strata=labels) == bootstrap_interval(values, strata=kept_labels)
    assert bootstrap_interval(gappy).n == 30


def test_one_value_is_its_own_interval_and_none_is_nan():
    assert bootstrap_interval([NAN, 4.0]) == (4.0, 4.0, 1)
    low, high, n = bootstrap_interval([NAN])
    assert math.isnan(low) and math.isnan(high) and n == 0


def test_the_seed_decides_the_interval():
    values = np.random.default_rng(10).normal(size=25)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_pairing_removes_what_the_seeds_have_in_common():
    rng = np.random.default_rng(11)
    world = rng.normal(0.0, 50.0, size=40)
    better, worse = world + rng.normal(0.0, 0.1, size=40), world + 1.0
    difference = paired_difference(better, worse)
    assert difference.ci_high < -0.9 and difference.ci_low > -1.1
    assert difference.mean == pytest.approx(np.mean(better - worse))
    assert difference.iqm == pytest.approx(stats.trim_mean(better - worse, 0.25))
    unpaired = bootstrap_interval(better, np.mean)
    assert unpaired.high - unpaired.low > 50 * (difference.ci_high - difference.ci_low)


def test_a_pair_with_one_nan_is_no_pair():
    difference = paired_difference([1.0, NAN, 5.0, 9.0], [0.0, 1.0, NAN, 7.0])
    assert difference.n == 2
    assert difference.mean == difference.iqm == 1.5
    assert paired_difference([NAN], [1.0]).n == 0


def test_a_policy_differs_from_itself_by_nothing():
    values = np.random.default_rng(12).normal(size=9)
    assert paired_difference(values, values) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
def test_probability_of_improvement_counts_all_pairs(a, b):
    wins = sum((x > y) + 0.5 * (x == y) for x in a for y in b) / (len(a) * len(b))
    assert probability_of_improvement(a, b) == pytest.approx(wins)
    assert probability_of_improvement(a, b, better="lower") == pytest.approx(1 - wins)
    mann_whitney = stats.mannwhitneyu(a, b, method="asymptotic").statistic
    assert probability_of_improvement(a, b) == pytest.approx(mann_whitney / (len(a) * len(b)))


def test_probability_of_improvement_drops_nan_and_is_nan_without_values():
    assert probability_of_improvement([NAN, 2.0], [1.0, NAN, NAN]) == 1.0
    assert math.isnan(probability_of_improvement([NAN], [1.0]))
    assert math.isnan(probability_of_improvement([1.0], []))


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: bootstrap_interval([1.0, 2.0], level=95), "level 95"),
        (lambda: bootstrap_interval([1.0, 2.0], resamples=0), "resamples 0"),
        (lambda: bootstrap_interval([1.0, 2.0], strata=[1]), "1 strata for 2 values"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "1 and 2 values"),
    ],
)
def test_unusable_arguments_are_refused_in_one_line(call, fragment):
    with pytest.raises(KvroamError) as caught:
        call()
    assert fragment in str(caught.value) and "\n" not in str(caught.value)
