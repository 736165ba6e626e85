"""The coverage benchmark: its rivals are what they say, and its command prints tables."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kvroam.benchmarks import coverage
from kvroam.errors import KvroamError

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"


def test_students_interval_is_scipys() -> None:
    x = np.random.default_rng(0).gamma(2.0, size=(3, 9))
    low, high = coverage.student(x)
    for row, *ends in zip(x, low, high, strict=True):
        assert ends == pytest.approx(stats.t.interval(0.95, 8, row.mean(), stats.sem(row)))


def test_fiellers_ends_are_the_ratios_whose_difference_is_just_not_significant() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.gamma(9.0, size=(1, 12)), rng.gamma(9.0, size=(1, 12))
    for end in coverage.fieller(a, b):
        assert stats.ttest_1samp((a - end * b)[0], 0.0).pvalue == pytest.approx(0.05)
    low, high = coverage.fieller(a, rng.normal(0.0, 1.0, size=(1, 12)))
    assert (low, high) == (-math.inf, math.inf)


def test_only_known_intervals_count_and_half_of_them_must_be_known() -> None:
    low, high = np.array([0.0, 2.0, np.nan]), np.array([1.0, 3.0, np.nan])
    assert coverage.held((low, high), 0.5) == 0.5
    assert math.isnan(coverage.held((low[1:], high[1:]), 2.5)) is False
    assert math.isnan(coverage.held((np.array([0.0, np.nan, np.nan]), np.ones(3)), 0.5))


def test_the_command_prints_both_tables(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "SIZES", (8, 16))
    monkeypatch.setattr(coverage, "SINGLES", {"normal": coverage.SINGLES["normal"]})
    monkeypatch.setattr(coverage, "PAIRS", {"same world": coverage.pair(0.3, 0.1, 0.1)})
    coverage.command(["--repeats", "50"])
    text = capsys.readouterr().out
    assert text.count("| normal | ") == 2 and text.count("| same world | ") == 2 and "Fieller" in text


def test_played_episodes_are_populations_too(capsys: pytest.CaptureFixture) -> None:
    coverage.command(["--play", "calm", "--policies", "ctho", "--episodes", "64", "--repeats", "20",
                      "--set", "scoring.mode=none", "episode_s=5.0", "num_ues=4"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| `cost` |") and line.endswith("| ctho, calm | always |") for line in lines)


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--play", "calm", "--episodes", "8"]])
def test_what_cannot_be_measured_is_refused(arguments: list[str]) -> None:
    with pytest.raises(KvroamError, match="at least"):
        coverage.command(arguments)


def test_the_page_says_that_ours_cover_from_16_episodes_on() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines()
            if re.match(r"\| (normal|cost|share|count)", line)]
    assert {row[0].strip() for row in rows} == set(coverage.SINGLES)
    assert all(92.0 <= float(row[5]) <= 98.0 for row in rows if int(row[1]) >= 16)
