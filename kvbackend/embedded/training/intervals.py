"""Confidence intervals for measurements in which several questions share one row of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...drift import Drift

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval.

    Attributes:
        value: The estimate.
        low, high: The interval's ends.
        count: What the estimate rests on: questions, tokens or windows.
    """

    value: float
    low: float
    high: float
    count: int

    def entry(self) -> dict[str, float]:
        """The fields, rounded, for a JSON file."""
        ends = {"low": round(self.low, 4), "high": round(self.high, 4)}
        return {"value": round(self.value, 4), **ends, "count": self.count}

    def columns(self, name: str) -> dict[str, float]:
        """Estimate and ends, rounded, as columns `name`, `name_low` and `name_high` of a table."""
        return {name: round(self.value, 4), f"{name}_low": round(self.low, 4), f"{name}_high": round(self.high, 4)}


def share(hits: Sequence[int] | np.ndarray, totals: Sequence[int] | np.ndarray) -> Interval:
    """The share of right answers, and the Clopper-Pearson interval at the effective number of questions.

    Questions of one row share its text, so they tell less than as many independent ones. The variance between rows
    gives the factor, which is never taken below 1; with one question per row the interval is Clopper-Pearson's.

    Args:
        hits: Right answers per row, int [n].
        totals: Questions per row, int [n]; rows without questions do not count.

    Returns:
        The interval; value nan and [0, 1] where nothing was asked.

    Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
        estimated from survey data", Survey Methodology 24 (1998), section 2, without the correction for few rows.
    """
    from scipy.stats import beta

    right, asked = (np.asarray(x, np.float64) for x in (hits, totals))
    right, asked = right[asked > 0], asked[asked > 0]
    count, rows = asked.sum(), len(asked)
    if not rows:
        return Interval(float("nan"), 0.0, 1.0, 0)
    value = right.sum() / count
    effective = count
    if rows > 1 and 0.0 < value < 1.0:
        between = ((right - value * asked) ** 2).sum() / count**2
        effective = min(count, value * (1.0 - value) / between) if between > 0 else count
    tail, scaled = (1.0 - LEVEL) / 2, value * effective
    low = beta.ppf(tail, scaled, effective - scaled + 1.0) if value > 0.0 else 0.0
    high = beta.ppf(1.0 - tail, scaled + 1.0, effective - scaled) if value < 1.0 else 1.0
    return Interval(float(value), float(low), float(high), int(count))


def mean(values: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = 2000) -> Interval:
    """The mean of independent values [n], and its percentile bootstrap interval.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    from scipy.stats import bootstrap

    found = np.asarray(values, np.float64)
    value = float(found.mean()) if len(found) else float("nan")
    if len(found) < 2 or not found.std():
        return Interval(value, value, value, len(found))
    ends = bootstrap(
        (found,), np.mean, n_resamples=resamples, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(seed), batch=100,
    ).confidence_interval  # fmt: skip
    return Interval(value, float(ends.low), float(ends.high), len(found))


def drift_columns(drift: Drift, scripts: int) -> dict[str, Any]:
    """Columns kl [nats per token], top1, hot and cold with their intervals over scripts, and how many were asked.

    Args:
        drift: Sums per session; the sessions of one script follow one another.
        scripts: Number of scripts n, a divisor of the number of sessions.
    """
    sums = {field.name: getattr(drift, field.name).reshape(scripts, -1).sum(1) for field in fields(drift)}
    hot, cold = (share(sums[f"{kind}_hits"], sums[f"{kind}_total"]) for kind in ("hot", "cold"))
    return {
        **mean(sums["kl"] / sums["tokens"]).columns("kl"),
        **share(sums["matches"], sums["tokens"]).columns("top1"),
        **hot.columns("hot"),
        **cold.columns("cold"),
        "hot_count": hot.count,
        "cold_count": cold.count,
    }
