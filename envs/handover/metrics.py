"""What an episode of Handover amounts to: the table of its metrics, and the meter that adds up what they need.

A new metric is one entry of METRICS; it can read every field of FLOW and of Scores, summed over the episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from ..base.declare import Metric
from ..base.meter import Meter, ratio
from .scoring import Scores
from .world.state import BACKFILLED, FLOW, INTERRUPTED, REPAIRED, RESUMED


class EpisodeMeter(Meter):
    """Accumulates the steps of one episode in each of E environments.

    An interruption lasts from the instant at which service stops until the session can decode again, whether or not its
    user waits for tokens then; what is felt of it is the time in which the user does. One that is still running when
    the episode ends counts with what it has lasted; a rest that has not arrived by then counts nowhere.

    Handover goodput is the share of handovers after which the first token came within the TTFT objective and the tokens
    up to the next handover within the TPOT objective on average. Goodput is the share of requests whose first token
    came within the TTFT objective after the prompt, and their tokens within the TPOT objective on average,
    interruptions included; requests whose answers ended within the episode are judged.

    Args:
        task: a HandoverTask.
        ttft_objective_s: a handover, or a request, meets its objective if its first token comes within this time [s].
        tpot_objective_s: and if tokens then come faster than this on average [s].

    Source: goodput as in DistServe (arXiv 2401.09670), as a share.
    """

    def __init__(self, task: Any, ttft_objective_s: float = 0.5, tpot_objective_s: float = 0.1) -> None:
        super().__init__(task)
        envs, ues = task.num_envs, task.num_agents
        self.ttft_objective_s, self.tpot_objective_s = ttft_objective_s, tpot_objective_s
        self.sums = {name: np.zeros(envs) for name in (*(FLOW.names or ()), *Scores.names())}
        self.ue_s = np.zeros(envs)  # time that the UEs have spent in the episode, together [s]
        self.interruptions: list[list[float]] = [[] for _ in range(envs)]  # [s]
        self.felt: list[list[float]] = [[] for _ in range(envs)]  # of each of them, while its user waited [s]
        self.rests: list[list[float]] = [[] for _ in range(envs)]  # resumption to the arrival of the rest [s]
        self.repairs = np.zeros(envs)
        self.first_tokens: list[list[float]] = [[] for _ in range(envs)]  # of handovers [s]
        self.requests: list[list[tuple[float, float]]] = [[] for _ in range(envs)]  # TTFT, TPOT [s]
        self._open = np.zeros((envs, ues), bool)
        self._prompt = np.zeros((envs, ues), bool)
        self._tokens = np.zeros((envs, ues))
        self._latency = np.zeros((envs, ues))
        self._judged = np.zeros(envs)
        self._met = np.zeros(envs)
        self._running = np.zeros((envs, ues))
        self._felt_running = np.zeros((envs, ues))
        self._resumed_s = np.zeros((envs, ues))  # when the session resumed whose rest follows

    def add(self, core: Any) -> None:
        """Add the step that `core` has just made."""
        super().add(core)
        task = core.task
        state, flow = task.sim.state, task.sim.state.flow
        self.ue_s += task.sim.interval_s * core.num_agents
        for name in FLOW.names or ():
            self.sums[name] += flow[name].sum(axis=1)
        if task.scores is not None:
            for name in Scores.names():
                self.sums[name] += getattr(task.scores, name).sum(axis=1)
        self._tokens += flow["tokens"]
        self._latency += flow["latency_s"]
        for e, event in task.events():
            u = event["ue"]
            if event["kind"] == BACKFILLED:
                self.rests[e].append(float(event["time_s"] - self._resumed_s[e, u]))
            elif event["kind"] == REPAIRED:
                self.repairs[e] += 1
            if event["kind"] != RESUMED:
                continue
            if event["rest"]:
                self._resumed_s[e, u] = event["time_s"]
            self.interruptions[e].append(float(event["interruption_s"]))
            self.felt[e].append(float(event["felt_s"]))
            self.first_tokens[e].append(float(event["ttft_s"]))
            self._close(e, u)
            self._open[e, u] = True
            self._prompt[e, u] = event["ttft_s"] <= self.ttft_objective_s
            self._tokens[e, u] = self._latency[e, u] = 0.0
        for e in np.flatnonzero(state.world["answers"]):
            done = state.answer[e, :state.world["answers"][e]]
            # Of n tokens, n - 1 came after the first one.
            tpot_s = np.where(done["tokens"] > 1.0, done["duration_s"] / np.maximum(done["tokens"] - 1.0, 1e-9), 0.0)
            self.requests[e] += zip(done["ttft_s"].tolist(), tpot_s.tolist(), strict=True)
        ue = state.ue
        out = ue["phase"] == INTERRUPTED
        self._running = np.where(out, state.world["time_s"][:, None] - ue["handover_s"], 0.0)
        self._felt_running = np.where(out, ue["felt_s"], 0.0)

    def result(self, e: int) -> dict[str, float]:
        """The metrics of the episode in environment `e`; NaN where nothing happened that they are about."""
        for u in range(self._open.shape[1]):
            self._close(e, u)
        return super().result(e)

    def lasted_s(self, e: int) -> list[float]:
        """How long every interruption lasted, those that still run included [s]."""
        return self.interruptions[e] + [float(t) for t in self._running[e] if t > 0.0]

    def felt_s(self, e: int) -> list[float]:
        """The same interruptions, what their users waited in each of them [s]."""
        return self.felt[e] + [float(t) for t in self._felt_running[e][self._running[e] > 0.0]]

    def floor(self, e: int) -> float:
        """Price of what no policy could avoid, per user; 0 where policies decide the handovers [1]."""
        config = self.task.config
        if config.actions.trigger == "policy":
            return 0.0
        return float(config.reward.interruption * self.sums["unavoidable_s"][e] / self.task.num_agents)

    def handover_goodput(self, e: int) -> float:
        """Share of the judged handovers that met both objectives."""
        return ratio(float(self._met[e]), float(self._judged[e]))

    def goodput(self, e: int) -> float:
        """Share of the finished requests that met both objectives."""
        met = [ttft <= self.ttft_objective_s and tpot <= self.tpot_objective_s for ttft, tpot in self.requests[e]]
        return mean(met)

    def _close(self, e: int, u: int) -> None:
        """Judge the handover whose tokens end here."""
        if self._open[e, u]:
            smooth = self._tokens[e, u] == 0 or self._latency[e, u] <= self.tpot_objective_s * self._tokens[e, u]
            self._judged[e] += 1
            self._met[e] += bool(self._prompt[e, u] and smooth)
            self._open[e, u] = False


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def p95(values: Sequence[float]) -> float:
    """The 95th percentile; NaN of nothing."""
    return float(np.percentile(values, 95)) if len(values) else float("nan")


def _of_sum(name: str, scale: float = 1.0) -> Any:
    """The sum of an amount over the episode and its UEs, divided by `scale`."""
    return lambda meter, e: meter.sums[name][e] / scale


def _per_user(name: str) -> Any:
    """The sum of an amount over the episode, per user."""
    return lambda meter, e: meter.sums[name][e] / meter.task.num_agents


def _ratio_of(part: str, *whole: str) -> Any:
    """One sum over another (or over the sum of several)."""
    return lambda meter, e: ratio(meter.sums[part][e], sum(meter.sums[name][e] for name in whole))


def _recall(meter: EpisodeMeter, e: int) -> float:
    hits, asked = (meter.sums["hot_" + kind][e] + meter.sums["cold_" + kind][e] for kind in ("hits", "total"))
    return ratio(hits, asked)


def _wrong(meter: EpisodeMeter, e: int) -> float:
    """Wrong answers per user; NaN where no language model gives any."""
    return float("nan") if meter.task.scorer is None else meter.sums["wrong"][e] / meter.task.num_agents


def _of_requests(column: int, statistic: Any) -> Any:
    """A statistic of the requests' TTFT (column 0) or TPOT (1)."""
    return lambda meter, e: statistic([request[column] for request in meter.requests[e]])


METRICS = (
    Metric("cost", "1", "lower", "priced terms of the reward, per user and episode", "cost",
           lambda meter, e: meter.cost[e]),
    Metric("avoidable_cost", "1", "lower",
           "cost less the price of interruptions that no policy can avoid, per user and episode", "avoidable",
           lambda meter, e: meter.cost[e] - meter.floor(e)),
    Metric("floor", "1", "lower",
           "price of the time in which users wait while the radio changes cell and for the first token after it",
           "floor", lambda meter, e: meter.floor(e)),
    Metric("handovers", "1", "lower", "cell changes of all users", "handovers", _of_sum("handovers")),
    Metric("interruption_s_mean", "s", "lower",
           "time without service, whether or not the user waits then, mean over interruptions", "interruption",
           lambda meter, e: mean(meter.lasted_s(e)), "ms", 1e3),
    Metric("interruption_s_p95", "s", "lower", "time without service that 95 % of the interruptions stay below",
           "interr. p95", lambda meter, e: p95(meter.lasted_s(e)), "ms", 1e3, interval_from=32),
    Metric("interruption_s_worst", "s", "lower", "longest interruption of the episode", "interr. worst",
           lambda meter, e: max(meter.lasted_s(e), default=np.nan), "ms", 1e3, interval_from=32),
    Metric("felt_s_mean", "s", "lower", "time that the user waited for tokens in it, mean over the same interruptions",
           "felt", lambda meter, e: mean(meter.felt_s(e)), "ms", 1e3),
    Metric("interruption_s_total", "s", "lower", "time without service while the user waits, per user and episode",
           "interr. total",
           lambda meter, e: meter.sums["interruption_s"][e] / meter.task.num_agents, "ms", 1e3),
    Metric("ttft_s_mean", "s", "lower", "radio handover to the first token at the target, mean over handovers", "TTFT",
           lambda meter, e: mean(meter.first_tokens[e]), "ms", 1e3),
    Metric("tpot_s_mean", "s", "lower", "time per output token while streaming, mean", "TPOT",
           _ratio_of("latency_s", "tokens"), "ms", 1e3),
    Metric("drift_kl_mean", "nats/token", "lower",
           "KL divergence of the next-token distribution from that of the whole cache, mean over tokens", "drift KL",
           _ratio_of("kl", "measured")),
    Metric("top1_agreement", "share", "higher", "tokens whose most likely value is that of the whole cache", "top-1",
           _ratio_of("top1", "measured")),
    Metric("recall", "share", "higher", "recall questions answered correctly", "recall", _recall),
    Metric("recall_hot", "share", "higher", "the same, facts recently asked for", "recall hot",
           _ratio_of("hot_hits", "hot_total")),
    Metric("recall_cold", "share", "higher", "the same, facts not asked for yet", "recall cold",
           _ratio_of("cold_hits", "cold_total")),
    Metric("recall_strict", "share", "higher",
           "the same, facts that only what survived the last lossy move of the session can tell", "recall strict",
           _ratio_of("strict_hits", "strict_total")),
    Metric("wrong", "1", "lower", "wrong answers where the whole cache would have given the right one, per user and "
           "episode", "wrong", _wrong),
    Metric("late_s", "s", "lower", "waiting for first tokens beyond the TTFT objective, per user and episode", "late",
           _per_user("late_s"), "ms", 1e3),
    Metric("slow_s", "s", "lower", "time that tokens took beyond the TPOT objective, per user and episode", "slow",
           _per_user("slow_s"), "ms", 1e3),
    Metric("outage_s", "s", "lower", "time without a usable radio link, per user and episode", "outage",
           _per_user("outage_s"), "ms", 1e3),
    Metric("backhaul_gb", "GB", "lower", "bytes sent between cells, in 10^9", "backhaul",
           lambda meter, e: (meter.sums["bits_sent"][e] + meter.sums["forwarded_bits"][e]) / 8e9),
    Metric("gpu_s", "s", "lower", "GPU time of prefills for migrations and repairs", "GPU", _of_sum("gpu_s")),
    Metric("backfills", "1", "higher", "rests of caches that arrived after their sessions had resumed", "backfills",
           lambda meter, e: len(meter.rests[e])),
    Metric("backfill_s_mean", "s", "lower", "resumption to the arrival of the rest, mean over backfills", "backfill",
           lambda meter, e: mean(meter.rests[e])),
    Metric("repairs", "1", "higher", "caches that were rebuilt in place", "repairs", lambda meter, e: meter.repairs[e]),
    Metric("wasted_gb", "GB", "lower", "bytes sent for migrations that were cancelled", "wasted",
           _of_sum("wasted_bits", 8e9), interval_from=inf),
    Metric("pingpong_rate", "share", "lower", "handovers soon followed by a return", "ping-pong",
           _ratio_of("pingpongs", "handovers")),
    Metric("rlf_rate", "1/min", "lower", "radio-link failures per user and minute", "RLF",
           lambda meter, e: ratio(60.0 * meter.sums["rlf"][e], meter.ue_s[e])),
    Metric("handover_goodput", "share", "higher", "handovers that meet the TTFT and TPOT limits", "HO goodput",
           EpisodeMeter.handover_goodput),
    Metric("refused", "1", "lower", "migrations that found no GPU memory at their target", "refused",
           _of_sum("refused"), interval_from=inf),
    Metric("requests", "1", "higher", "prompts whose answers ended within the episode", "requests",
           lambda meter, e: len(meter.requests[e])),
    Metric("request_ttft_s_mean", "s", "lower", "prompt to the first token of its answer, mean over requests",
           "request TTFT", _of_requests(0, mean), "ms", 1e3, interval_from=64),
    Metric("request_ttft_s_p95", "s", "lower", "the same, what 95 % of the requests stay below", "req. TTFT p95",
           _of_requests(0, p95), "ms", 1e3, interval_from=inf),
    Metric("request_tpot_s_mean", "s", "lower", "time per output token of a request, interruptions included, mean",
           "request TPOT", _of_requests(1, mean), "ms", 1e3),
    Metric("goodput", "share", "higher", "requests that meet the TTFT and TPOT limits", "goodput",
           EpisodeMeter.goodput),
)
