"""What an evaluation measures in each episode: the metrics of the tasks that its results are about."""

import difflib
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
