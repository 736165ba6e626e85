"""What an evaluation measures in each episode: the metrics of the tasks that its results are about."""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from ..envs.base import registry
from ..envs.base.declare import Metric
from ..errors import KvroamError
from ..settings.environment import DEFAULT_TASK, TASK


def tasks_of(results: Mapping[str, Any]) -> list[Any]:
    """The Task classes that results are about, each once; Handover where they do not say."""
    parts = results.get("by_scenario", {}).values() or [results]
    names = dict.fromkeys(part.get("config", {}).get(TASK, DEFAULT_TASK) for part in parts)
    return [registry.task(name) for name in names]


def metrics_of(results: Mapping[str, Any]) -> dict[str, Metric]:
    """Every metric that results may have, by name."""
    return {metric.name: metric for task in tasks_of(results) for metric in task.metrics}


def headline_of(results: Mapping[str, Any]) -> list[str]:
    """The names of those that fit a terminal."""
    return list(dict.fromkeys(name for task in tasks_of(results) for name in task.headline))


def number(value: Any) -> float:
    """A value of the results as a float; None, as JSON has it, is NaN."""
    return math.nan if value is None else float(value)


def ends(entry: Mapping[str, Any], m: Metric) -> tuple[float, float]:
    """The ends of the interval in a summary or a difference, NaN where it is unknown or the metric's is not shown."""
    if entry.get("n", 0) < m.interval_from:
        return math.nan, math.nan
    return number(entry.get("ci_low")), number(entry.get("ci_high"))


def metric(name: str, known: Mapping[str, Metric]) -> Metric:
    """The metric of that name among those that are known.

    Raises:
        KvroamError: there is none.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known metrics: {', '.join(known)}"
        raise KvroamError(f"unknown metric {name!r}; {hint}")
    return known[name]
