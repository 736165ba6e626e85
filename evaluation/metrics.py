"""What an evaluation measures in each episode: names, units, and which way is better."""

import difflib
from collections.abc import Iterable

from ..envs.base.declare import Metric
from ..envs.handover.task import HandoverTask
from ..errors import KvroamError

METRICS: dict[str, Metric] = {metric.name: metric for metric in HandoverTask.metrics}

# The columns that fit a terminal: time, quality, bandwidth.
HEADLINE = ("cost", "interruption_s_mean", "interruption_s_p95", "drift_kl_mean", "recall", "backhaul_gb")


def metric(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        KvroamError: there is none.
    """
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known metrics: {', '.join(METRICS)}"
        raise KvroamError(f"unknown metric {name!r}; {hint}")
    return METRICS[name]


def metrics_table(names: Iterable[str] = tuple(METRICS)) -> str:
    """Return the metrics as a Markdown table: name, unit, better, meaning."""
    rows = ["| metric | unit | better | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| `{m.name}` | {m.unit} | {m.better} | {m.meaning} |" for m in map(metric, names)]
    return "\n".join(rows) + "\n"
