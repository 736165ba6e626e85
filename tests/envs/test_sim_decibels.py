"""Decibels to powers and back, against decimal arithmetic with fifty digits."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numba as nb
import numpy as np
import pytest

from kvroam.envs.sim.decibels import LIMIT, decibels, log_two, power_of, power_of_two


def errors_in_last_place(got: list[float], exact: list[Decimal]) -> float:
    """The largest distance, in units of the last place of the exact number."""
    return max(float(abs(Decimal(g) - e) / Decimal(math.ulp(float(e)))) for g, e in zip(got, exact, strict=True))


def exponents() -> list[float]:
    """Of every size, and those at which the nearest whole number changes."""
    gen = np.random.default_rng(4)
    edges = [k + d for k in range(-60, 61, 7) for d in (-0.5, math.nextafter(0.5, 0.0), 0.0, 0.5, 2.0**-40)]
    return [*gen.uniform(-100.0, 100.0, 3000).tolist(), *gen.uniform(-0.5, 0.5, 1000).tolist(), *edges, LIMIT, -LIMIT]


def test_powers_of_two_within_one_unit_in_the_last_place() -> None:
    with localcontext() as context:
        context.prec = 50
        two = Decimal(2).ln()
        exact = [(two * Decimal(y)).exp() for y in exponents()]
        assert errors_in_last_place([power_of_two(y) for y in exponents()], exact) < 1.0


def test_logarithms_within_three_units_in_the_last_place() -> None:
    gen = np.random.default_rng(5)
    edges = [math.sqrt(0.5), math.nextafter(math.sqrt(0.5), 0.0), math.nextafter(1.0, 0.0), math.nextafter(1.0, 2.0)]
    ratios = [*(10.0 ** gen.uniform(-200.0, 200.0, 2000)).tolist(), *gen.uniform(0.5, 2.0, 3000).tolist(), *edges]
    with localcontext() as context:
        context.prec = 50
        two = Decimal(2).ln()
        assert errors_in_last_place([log_two(x) for x in ratios], [Decimal(x).ln() / two for x in ratios]) < 3.0


@pytest.mark.parametrize("k", [-500, -3, 0, 1, 10, 500])
def test_whole_powers_of_two_are_exact(k: int) -> None:
    assert power_of_two(float(k)) == 2.0**k
    assert log_two(2.0**k) == k


def test_numbers_beyond_the_limit_are_cut_off() -> None:
    assert [power_of_two(y) for y in (-1e300, -LIMIT - 1.0, LIMIT + 1.0, math.inf)] == [
        2.0**-LIMIT, 2.0**-LIMIT, 2.0**LIMIT, 2.0**LIMIT]


def test_decibels_and_powers_agree_with_the_c_library() -> None:
    db = np.random.default_rng(6).uniform(-250.0, 80.0, 2000)
    power = [power_of(value) for value in db]
    assert power == pytest.approx([10.0 ** (value / 10.0) for value in db], rel=1e-13)
    assert [decibels(x) for x in power] == pytest.approx(db, rel=1e-14, abs=1e-12)


def test_a_number_does_not_depend_on_its_place_among_others() -> None:
    # Several at a time or one alone, as at the end of a loop: the same bits, or batches would differ from single ones.
    @nb.njit(error_model="numpy")
    def all_of(db, power, back):
        for i in range(db.shape[0]):
            power[i] = power_of(db[i])
        for i in range(db.shape[0]):
            back[i] = decibels(power[i])

    db = np.random.default_rng(7).uniform(-150.0, 40.0, 177)
    power, back = np.empty_like(db), np.empty_like(db)
    all_of(db, power, back)
    for i in range(len(db)):
        alone, again = np.empty(1), np.empty(1)
        all_of(db[i:i + 1], alone, again)
        assert (alone[0], again[0]) == (power[i], back[i])
