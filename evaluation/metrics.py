"""What an evaluation measures in each episode: names, units, and which way is better."""

import difflib
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ..errors import KvroamError


class Metric(NamedTuple):
    """One number per episode; NaN when the episode has nothing to measure.

    Attributes:
        name: key in the results; times end in `_s` and are stored in seconds.
        unit: unit of the stored value; "1" is a count or a plain number, "share" lies in [0, 1].
        better: which direction is better.
        meaning: one line for the documentation.
        label: short heading in tables.
        shown_unit: unit in tables and figures.
        scale: stored value times `scale` is the shown value.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    meaning: str
    label: str
    shown_unit: str
    scale: float = 1.0


_ALL = (
    Metric("cost", "1", "lower", "priced terms of the reward, per user and episode", "cost", "1"),
    Metric("handovers", "1", "lower", "cell changes of all users", "handovers", "1"),
    Metric(
        "interruption_s_mean", "s", "lower", "time without service, mean over interruptions",
        "interruption", "ms", 1e3,
    ),
    Metric(
        "interruption_s_p95", "s", "lower", "time without service that 95 % of the interruptions stay below",
        "interr. p95", "ms", 1e3,
    ),
    Metric("interruption_s_worst", "s", "lower", "longest interruption of the episode", "interr. worst", "ms", 1e3),
    Metric(
        "interruption_s_total", "s", "lower", "time without service, per user and episode", "interr. total", "ms", 1e3
    ),
    Metric(
        "ttft_s_mean", "s", "lower", "radio handover to the first token at the target, mean over handovers",
        "TTFT", "ms", 1e3,
    ),
    Metric(
        "tpot_s_mean", "s", "lower", "time per output token while streaming, air and detour included, mean",
        "TPOT", "ms", 1e3,
    ),
    Metric(
        "drift_kl_mean", "nats/token", "lower",
        "KL divergence of the next-token distribution from that of the whole cache, mean over tokens",
        "drift KL", "nats/token",
    ),
    Metric(
        "top1_agreement", "share", "higher", "tokens whose most likely value is that of the whole cache",
        "top-1", "share",
    ),
    Metric("recall", "share", "higher", "recall questions answered correctly", "recall", "share"),
    Metric("recall_hot", "share", "higher", "the same, facts recently asked for", "recall hot", "share"),
    Metric("recall_cold", "share", "higher", "the same, facts not asked for yet", "recall cold", "share"),
    Metric("backhaul_gb", "GB", "lower", "bytes sent between cells, in 10^9", "backhaul", "GB"),
    Metric("gpu_s", "s", "lower", "GPU time of prefill batches for migrations", "GPU", "s"),
    Metric("wasted_gb", "GB", "lower", "bytes sent for migrations that were cancelled", "wasted", "GB"),
    Metric("pingpong_rate", "share", "lower", "handovers soon followed by a return", "ping-pong", "share"),
    Metric("rlf_rate", "1/min", "lower", "radio-link failures per user and minute", "RLF", "1/min"),
    Metric(
        "handover_goodput", "share", "higher", "handovers that meet the TTFT and TPOT limits", "HO goodput", "share"
    ),
    Metric("refused", "1", "lower", "migrations that found no GPU memory at their target", "refused", "1"),
    Metric("requests", "1", "higher", "prompts whose answers ended within the episode", "requests", "1"),
    Metric(
        "request_ttft_s_mean", "s", "lower", "prompt to the first token of its answer, mean over requests",
        "request TTFT", "ms", 1e3,
    ),
    Metric(
        "request_ttft_s_p95", "s", "lower", "the same, what 95 % of the requests stay below",
        "req. TTFT p95", "ms", 1e3,
    ),
    Metric(
        "request_tpot_s_mean", "s", "lower", "time per output token of a request, interruptions included, mean",
        "request TPOT", "ms", 1e3,
    ),
    Metric("goodput", "share", "higher", "requests that meet the TTFT and TPOT limits", "goodput", "share"),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

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
