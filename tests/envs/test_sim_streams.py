"""Random streams: uniform and normal draws, addresses independent of each other, keys of seeds and episodes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kvroam.envs.sim.streams import CONCERNS, draw, keys, normal, normal_quantiles, normals, uniform

KEY = keys(12345)[0]
COUNT = 20_000
QUANTILES = normal_quantiles()


def along(axis: int, function=uniform, key=KEY, count: int = COUNT) -> np.ndarray:
    """Draws that differ in one of (who, what, count) only."""
    address = [3, 2, 5]
    values = np.empty(count)
    for i in range(count):
        address[axis] = i
        values[i] = function(key, *address)
    return values


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_draws_are_uniform_along_every_coordinate(axis):
    values = along(axis)
    assert ((values > 0.0) & (values < 1.0)).all()
    counts = np.histogram(values, 100, (0.0, 1.0))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    low_bits = np.histogram((values * 2**32) % 1.0, 100, (0.0, 1.0))[0]
    assert stats.chisquare(low_bits).pvalue > 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbouring_addresses_are_independent(axis):
    values = along(axis)
    for lag in (1, 2, 7, 64):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 4 / np.sqrt(COUNT)
    pairs = np.histogram2d(values[:-1:2], values[1::2], 10, ((0, 1), (0, 1)))[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_the_coordinates_are_not_interchangeable():
    # A hash that added its coordinates up would give the same draw for (1, 2, 3) and (3, 2, 1).
    seen = {int(draw(KEY, a, b, c)) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seen) == 8000


@pytest.mark.parametrize("other", [keys(12346)[0], keys(12345, 1)[0], keys(12345)[1]],
                         ids=["seed", "episode", "concern"])
def test_another_key_gives_an_independent_stream(other):
    assert abs(np.corrcoef(along(2), along(2, key=other))[0, 1]) < 4 / np.sqrt(COUNT)


def test_normal_draws_are_standard_normal_and_independent():
    values = along(2, normal)
    assert abs(values.mean()) < 4 / np.sqrt(COUNT)
    assert values.var() == pytest.approx(1.0, abs=4 * np.sqrt(2 / COUNT))
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / np.sqrt(COUNT)


def test_keys_differ_between_seeds_episodes_and_concerns_and_repeat():
    found = {int(key) for seed in range(50) for episode in range(4) for key in keys(seed, episode)}
    assert len(found) == 50 * 4 * len(CONCERNS)
    assert (keys(7, 3) == keys(7, 3)).all()


def test_a_draw_does_not_depend_on_what_was_drawn_before():
    first = uniform(KEY, 1, 2, 3)
    for i in range(10):
        uniform(KEY, i, i, i)
    assert uniform(KEY, 1, 2, 3) == first


def test_many_normals_at_once_are_standard_normal_and_independent_in_every_direction():
    table = np.empty((40, 50, 11))
    for who in range(40):
        for count in range(50):
            normals(KEY, who, count, QUANTILES, table[who, count])
    n = table.size
    assert abs(table.mean()) < 4 / np.sqrt(n)
    assert table.var() == pytest.approx(1.0, abs=4 * np.sqrt(2 / n))
    assert stats.kstest(table.ravel(), "norm").pvalue > 1e-3
    assert len(np.unique(table)) > 0.8 * 65536 * (1 - np.exp(-n / 65536))
    for axis in range(3):
        lined = np.moveaxis(table, axis, 0)
        assert abs(np.corrcoef(lined[:-1].ravel(), lined[1:].ravel())[0, 1]) < 4 / np.sqrt(n)


def test_the_first_of_many_normals_do_not_depend_on_how_many_are_asked_for():
    few, many = np.empty(3), np.empty(12)
    normals(KEY, 2, 7, QUANTILES, few)
    normals(KEY, 2, 7, QUANTILES, many)
    assert np.array_equal(few, many[:3])
