"""The statistics agree with SciPy, with closed forms, and with what intervals promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from kvroam.errors import KvroamError
from kvroam.evaluation.estimates import (
    iqm,
    iqm_interval,
    mean,
    mean_interval,
    paired_difference,
    paired_ratio,
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


def student(values, level=0.95):
    return stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_without_skewness_the_interval_is_students(level):
    half = np.random.default_rng(1).normal(size=12)
    values = 3.0 + np.concatenate([half, -half])
    assert mean_interval(values, level)[:2] == pytest.approx(student(values, level), rel=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_skewness_moves_only_the_end_on_the_side_of_the_long_tail(sign):
    values = sign * np.random.default_rng(2).lognormal(0.0, 1.0, size=20)
    (low, high, n), (near, far) = mean_interval(values), student(values)
    short, long = ((low, near), (high, far)) if sign > 0 else ((high, far), (low, near))
    assert short[0] == pytest.approx(short[1]) and n == 20
    assert abs(long[0] - values.mean()) > 1.1 * abs(long[1] - values.mean())


def test_the_longer_end_solves_halls_equation():
    values = np.random.default_rng(3).gamma(1.0, size=24)
    n, off = len(values), values - values.mean()
    skew = (off**3).mean() / (off**2).mean() ** 1.5

    def halls(truth):
        t = (values.mean() - truth) / values.std(ddof=1)
        return math.sqrt(n) * (t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / (6 * n))

    end = optimize.brentq(lambda truth: halls(truth) - stats.t.ppf(0.025, n - 1), values.mean(), values.max())
    assert mean_interval(values).high == pytest.approx(end, rel=1e-9)


@pytest.mark.parametrize("n", [8, 16, 40])
def test_the_interval_of_the_iqm_is_scipys(n):
    values = np.random.default_rng(4).standard_t(2, size=n)
    theirs = stats.mstats.trimmed_mean_ci(values, limits=(0.25, 0.25), alpha=0.05)
    assert iqm_interval(values)[:2] == pytest.approx(tuple(theirs), rel=1e-9)


def test_values_that_pile_up_at_a_quartile_give_the_iqm_no_interval():
    values = [0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert not math.isnan(mean_interval(values).low)
    assert math.isnan(iqm_interval(values).low) and math.isnan(iqm_interval(values).high)


def test_an_interval_moves_and_stretches_with_its_values():
    values = np.random.default_rng(5).gamma(1.0, size=15)
    low, high, _ = mean_interval(values)
    assert mean_interval(5.0 + 1e-9 * values)[:2] == pytest.approx((5.0 + 1e-9 * low, 5.0 + 1e-9 * high), abs=1e-14)
    assert mean_interval(-values)[:2] == pytest.approx((-high, -low))


def test_strata_take_the_spread_between_them_out_of_the_interval():
    rng = np.random.default_rng(8)
    easy, hard = rng.normal(0.0, 0.1, size=20), rng.normal(100.0, 0.2, size=60)
    values = np.concatenate([easy, hard])
    labels = ["easy"] * 20 + ["hard"] * 60
    stratified = mean_interval(values, strata=labels)
    # Var of the mean = sum over strata of share^2 * var / n; degrees of freedom by Satterthwaite.
    parts = [0.25**2 * easy.var(ddof=1) / 20, 0.75**2 * hard.var(ddof=1) / 60]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 19 + parts[1] ** 2 / 59)
    arm = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    assert min(stratified.high - values.mean(), values.mean() - stratified.low) == pytest.approx(arm)
    assert stratified.high - stratified.low < 2.2 * arm
    plain = mean_interval(values)
    assert plain.high - plain.low > 100 * (stratified.high - stratified.low)


def test_a_stratum_of_one_value_has_no_spread_that_could_be_known():
    low, high, n = mean_interval([1.0, 2.0, 6.0, 7.0, 9.0], strata=[0, 0, 1, 1, 2])
    assert math.isnan(low) and math.isnan(high) and n == 5


def test_nan_is_left_out_and_the_rest_is_counted():
    values = np.random.default_rng(9).normal(size=30)
    gappy = np.insert(values, [0, 7, 30], NAN)
    labels = np.arange(33) % 2
    kept_labels = labels[~np.isnan(gappy)]
    for interval in (mean_interval, iqm_interval):
        assert interval(gappy) == interval(values)
        assert interval(gappy, strata=labels) == interval(values, strata=kept_labels)
        assert interval(gappy).n == 30


@pytest.mark.parametrize("values", [[], [NAN], [NAN, 4.0], [0.1] * 7])
def test_where_no_spread_is_seen_the_ends_are_unknown(values):
    for low, high, n in (mean_interval(values), iqm_interval(values)):
        assert math.isnan(low) and math.isnan(high) and n == np.isfinite(values).sum()


def test_pairing_removes_what_the_seeds_have_in_common():
    rng = np.random.default_rng(11)
    world = rng.normal(0.0, 50.0, size=40)
    better, worse = world + rng.normal(0.0, 0.1, size=40), world + 1.0
    difference = paired_difference(better, worse)
    assert difference.ci_high < -0.9 and difference.ci_low > -1.1
    assert difference.mean == pytest.approx(np.mean(better - worse))
    assert difference.iqm == pytest.approx(stats.trim_mean(better - worse, 0.25))
    unpaired = mean_interval(better)
    assert unpaired.high - unpaired.low > 50 * (difference.ci_high - difference.ci_low)


def test_a_pair_with_one_nan_is_no_pair():
    difference = paired_difference([1.0, NAN, 5.0, 9.0], [0.0, 1.0, NAN, 7.0])
    assert difference.n == 2
    assert difference.mean == difference.iqm == 1.5
    assert paired_difference([NAN], [1.0]).n == 0


def test_a_policy_differs_from_itself_by_nothing():
    values = np.random.default_rng(12).normal(size=9)
    difference = paired_difference(values, values)
    assert difference.mean == difference.iqm == 0.0 and difference.n == 9
    assert all(map(math.isnan, (difference.ci_low, difference.ci_high, difference.iqm_low, difference.iqm_high)))
    ratio, low, high, n = paired_ratio(values**2, values**2)
    assert ratio == 1.0 and math.isnan(low) and math.isnan(high) and n == 9


def test_the_ratio_is_that_of_the_means_and_its_inverse_the_inverse():
    rng = np.random.default_rng(13)
    world = rng.lognormal(0.0, 1.0, size=20)
    a, b = 2.0 * world * rng.lognormal(0.0, 0.1, size=20), world
    ratio, low, high, n = paired_ratio(a, b)
    assert ratio == pytest.approx(a.mean() / b.mean()) and low < ratio < high and n == 20
    assert high / low < 1.3, "pairing removes what the seeds have in common"
    assert paired_ratio(b, a)[:3] == pytest.approx((1 / ratio, 1 / high, 1 / low))
    assert paired_ratio(1e6 * a, b)[:3] == pytest.approx((1e6 * ratio, 1e6 * low, 1e6 * high))


def test_the_interval_of_the_ratio_is_that_of_pseudo_values_by_brute_force():
    rng = np.random.default_rng(14)
    a, b = rng.gamma(3.0, size=12), rng.gamma(3.0, size=12)
    whole = np.log(a.mean() / b.mean())
    pseudo = [12 * whole - 11 * np.log(np.delete(a, i).mean() / np.delete(b, i).mean()) for i in range(12)]
    expected = np.exp(mean_interval(pseudo)[:2])
    assert paired_ratio(a, b)[1:3] == pytest.approx(expected)


def test_a_ratio_needs_means_above_zero_and_an_interval_needs_them_without_any_pair():
    assert all(map(math.isnan, paired_ratio([1.0, 2.0], [0.0, 0.0])[:3]))
    assert all(map(math.isnan, paired_ratio([1.0, 2.0], [1.0, -3.0])[:3]))
    ratio, low, high, n = paired_ratio([1.0, 2.0, 4.0, NAN], [0.0, 0.0, 3.5, 1.0])
    assert ratio == 2.0 and math.isnan(low) and math.isnan(high) and n == 3


def coverage(interval, draw, truth, n, repeats=2000):
    """Share of the intervals of `repeats` samples of n values, or pairs, that hold the truth."""
    found = [interval(*draw(np.random.default_rng([n, i]), n)) for i in range(repeats)]
    return np.mean([one[0] <= truth <= one[1] for one in found])


def of_difference(a, b):
    found = paired_difference(a, b)
    return found.ci_low, found.ci_high


def costs(rng, n):
    """Costs of two policies in the same worlds; their means are 1.5 and 1 times exp(0.125 + 0.045)."""
    world = rng.lognormal(0.0, 0.5, n)
    return 1.5 * world * rng.lognormal(0.0, 0.3, n), world * rng.lognormal(0.0, 0.3, n)


@pytest.mark.parametrize("n", [16, 32])
@pytest.mark.parametrize(
    ("interval", "draw", "truth"),
    [
        (mean_interval, lambda rng, n: (rng.normal(size=n),), 0.0),
        (mean_interval, lambda rng, n: (rng.lognormal(0.0, 0.6, n),), math.exp(0.18)),
        (mean_interval, lambda rng, n: (rng.exponential(size=n),), 1.0),
        (mean_interval, lambda rng, n: (rng.beta(9.0, 1.0, n),), 0.9),
        (mean_interval, lambda rng, n: (rng.poisson(1.0, n),), 1.0),
        (iqm_interval, lambda rng, n: (rng.normal(size=n),), 0.0),
        # Mean of an exponential between its quartiles, by parts: 1 + (q ln q - p ln p) / (p - q), p = 3/4, q = 1/4.
        (iqm_interval, lambda rng, n: (rng.exponential(size=n),),
         1.0 + (0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 0.5),
        (of_difference, costs, 0.5 * math.exp(0.17)),
        (lambda a, b: paired_ratio(a, b)[1:3], costs, 1.5),
    ],
    ids=["normal", "log-normal", "exponential", "share", "count", "iqm normal", "iqm exponential", "difference",
         "ratio"],
)
def test_a_95_percent_interval_holds_the_truth_in_92_to_98_of_100_cases(interval, draw, truth, n):
    assert 0.92 <= coverage(interval, draw, truth, n) <= 0.98


def test_strata_are_covered_too():
    def draw(rng, n):
        return (np.concatenate([rng.lognormal(0.0, 0.6, n // 4), 9.0 + rng.lognormal(1.0, 0.6, n - n // 4)]),)

    def interval(x):
        return mean_interval(x, strata=np.repeat([0, 1], [len(x) // 4, len(x) - len(x) // 4]))

    truth = math.exp(0.18) * (0.25 + 0.75 * math.e) + 0.75 * 9.0
    assert 0.92 <= coverage(interval, draw, truth, 32) <= 0.98


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
        (lambda: mean_interval([1.0, 2.0], level=95), "level 95"),
        (lambda: mean_interval([1.0, 2.0], strata=[1]), "1 strata for 2 values"),
        (lambda: iqm_interval([1.0, 2.0], level=0), "level 0"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "1 and 2 values"),
        (lambda: paired_ratio([1.0], [1.0, 2.0]), "1 and 2 values"),
        (lambda: paired_ratio([1.0, 2.0], [1.0, 2.0], strata=[1]), "1 strata for 2 values"),
    ],
)
def test_unusable_arguments_are_refused_in_one_line(call, fragment):
    with pytest.raises(KvroamError) as caught:
        call()
    assert fragment in str(caught.value) and "\n" not in str(caught.value)
