"""The intervals against SciPy's, against simulated truth, and against the normal approximation."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from kvroam.kvbackend.drift import Drift
from kvroam.kvbackend.embedded.training.intervals import drift_columns, mean, share


@pytest.mark.parametrize(("right", "asked"), [(0, 10), (3, 10), (10, 10), (990, 1000)])
def test_one_question_per_row_gives_the_exact_binomial_interval(right, asked):
    found = share(np.arange(asked) < right, np.ones(asked, int))
    expected = binomtest(right, asked).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.value, found.count) == (right / asked, asked)


def test_intervals_of_clustered_answers_cover_the_truth():
    rng = np.random.default_rng(1)
    covered, naive = [], []
    for _ in range(400):
        # Each row has a difficulty of its own; the mean of Beta(4, 1) is .8.
        hits = rng.binomial(10, rng.beta(4, 1, size=60))
        found = share(hits, np.full(60, 10))
        covered.append(found.low <= 0.8 <= found.high)
        plain = binomtest(int(hits.sum()), 600).proportion_ci(0.95, method="wilson")
        naive.append(plain.low <= 0.8 <= plain.high)
    assert np.mean(covered) >= 0.93
    assert np.mean(naive) < 0.88, "rows that differ make the plain interval too short"


def test_rows_without_questions_do_not_count():
    assert share([3, 0, 2], [4, 0, 4]) == share([3, 2], [4, 4])
    nothing = share([0], [0])
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.count) == (0.0, 1.0, 0)


def test_the_bootstrap_of_a_mean_agrees_with_normal_theory():
    values = np.random.default_rng(2).gamma(2.0, size=400)
    found = mean(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    assert mean(values) == found
    assert mean([2.0, 2.0]) == mean([2.0, 2.0, 2.0]).__class__(2.0, 2.0, 2.0, 2)


def test_sessions_of_one_script_are_one_cluster():
    drift = Drift.zeros(6)
    drift.tokens[:] = 10
    drift.kl[:] = [0, 10, 0, 10, 5, 5]
    drift.hot_hits[:], drift.hot_total[:] = [2, 0, 2, 0, 1, 1], 2
    by_script, by_session = drift_columns(drift, 3), drift_columns(drift, 6)
    assert (by_script["kl"], by_script["kl_low"], by_script["kl_high"]) == (0.5, 0.5, 0.5)
    assert by_session["kl_low"] < 0.5 < by_session["kl_high"]
    assert by_script["hot_high"] - by_script["hot_low"] < by_session["hot_high"] - by_session["hot_low"]
    assert (by_script["hot"], by_script["hot_count"], by_script["cold_count"]) == (0.5, 12, 0)
