"""What an episode amounts to: the metrics that evaluate.py reports, one number per episode and metric."""

from __future__ import annotations

import numpy as np

from .world.state import INTERRUPTED, RESUMED

METRICS = (
    "cost", "handovers", "interruption_s_mean", "interruption_s_p95", "interruption_s_worst", "interruption_s_total",
    "ttft_s_mean", "tpot_s_mean", "drift_kl_mean", "top1_agreement", "recall", "recall_hot", "recall_cold",
    "backhaul_gb", "gpu_s", "wasted_gb", "pingpong_rate", "rlf_rate", "handover_goodput", "refused",
    "requests", "request_ttft_s_mean", "request_ttft_s_p95", "request_tpot_s_mean", "goodput",
)


class EpisodeMeter:
    """Accumulates the steps of one episode in each of E environments.

    An interruption that is still running when the episode ends counts with what it has lasted. Handover goodput is the
    share of handovers after which the first token came within the TTFT objective and the tokens up to the next handover
    within the TPOT objective on average. Goodput is the share of requests whose first token came within the TTFT
    objective after the prompt, and their tokens within the TPOT objective on average, interruptions included; requests
    whose answers ended within the episode are judged.

    Source: goodput as in DistServe (arXiv 2401.09670), as a share.
    """

    def __init__(self, num_envs: int, num_ues: int, ttft_objective_s: float, tpot_objective_s: float) -> None:
        self.num_envs, self.num_ues = num_envs, num_ues
        self.ttft_objective_s, self.tpot_objective_s = ttft_objective_s, tpot_objective_s
        self.amount = {name: np.zeros(num_envs) for name in (
            "cost", "handovers", "pingpongs", "rlf", "ue_s", "tokens", "latency_s", "bits_sent", "gpu_s", "wasted_bits",
            "refused", "interruption_s", "kl", "top1", "measured", "hot_hits", "hot_total", "cold_hits", "cold_total")}
        self.interruptions: list[list[float]] = [[] for _ in range(num_envs)]
        self.first_tokens: list[list[float]] = [[] for _ in range(num_envs)]
        self._open = np.zeros((num_envs, num_ues), bool)
        self._prompt = np.zeros((num_envs, num_ues), bool)
        self._tokens = np.zeros((num_envs, num_ues))
        self._latency = np.zeros((num_envs, num_ues))
        self._judged = np.zeros(num_envs)
        self._met = np.zeros(num_envs)
        self._running = np.zeros((num_envs, num_ues))
        self.request_ttft_s: list[list[float]] = [[] for _ in range(num_envs)]
        self.request_tpot_s: list[list[float]] = [[] for _ in range(num_envs)]

    def add(self, core) -> None:
        """Add the step that `core` (HandoverCore) has just made."""
        sim, flow = core.sim, core.sim.state.flow
        self.amount["cost"] -= core.reward.sum(axis=1) / self.num_ues
        self.amount["ue_s"] += sim.interval_s * self.num_ues
        for name in ("handovers", "pingpongs", "rlf", "tokens", "latency_s", "bits_sent", "gpu_s", "wasted_bits",
                     "refused", "interruption_s"):
            self.amount[name] += flow[name].sum(axis=1)
        if core.scores is not None:
            for name in ("kl", "top1", "measured", "hot_hits", "hot_total", "cold_hits", "cold_total"):
                self.amount[name] += getattr(core.scores, name).sum(axis=1)
        self._tokens += flow["tokens"]
        self._latency += flow["latency_s"]
        for e, event in core.events():
            if event["kind"] != RESUMED:
                continue
            u = event["ue"]
            self.interruptions[e].append(float(event["interruption_s"]))
            self.first_tokens[e].append(float(event["ttft_s"]))
            self._close(e, u)
            self._open[e, u] = True
            self._prompt[e, u] = event["ttft_s"] <= self.ttft_objective_s
            self._tokens[e, u] = self._latency[e, u] = 0.0
        for e in np.flatnonzero(sim.state.world["answers"]):
            done = sim.state.answer[e, :sim.state.world["answers"][e]]
            self.request_ttft_s[e] += done["ttft_s"].tolist()
            self.request_tpot_s[e] += (done["duration_s"] / done["tokens"]).tolist()
        ue = sim.state.ue
        self._running = np.where(ue["phase"] == INTERRUPTED, sim.state.world["time_s"][:, None] - ue["handover_s"], 0.0)

    def _close(self, e: int, u: int) -> None:
        """Judge the handover whose tokens end here."""
        if self._open[e, u]:
            smooth = self._tokens[e, u] == 0 or self._latency[e, u] <= self.tpot_objective_s * self._tokens[e, u]
            self._judged[e] += 1
            self._met[e] += bool(self._prompt[e, u] and smooth)
            self._open[e, u] = False

    def result(self, e: int) -> dict[str, float]:
        """The metrics of the episode in environment `e`; NaN where nothing happened that they are about."""
        for u in range(self.num_ues):
            self._close(e, u)
        total = {name: float(values[e]) for name, values in self.amount.items()}
        lasted = np.array(self.interruptions[e] + [t for t in self._running[e] if t > 0.0])
        ttft, tpot = np.array(self.request_ttft_s[e]), np.array(self.request_tpot_s[e])
        met = (ttft <= self.ttft_objective_s) & (tpot <= self.tpot_objective_s)
        hits, asked = total["hot_hits"] + total["cold_hits"], total["hot_total"] + total["cold_total"]
        return {
            "cost": total["cost"],
            "handovers": total["handovers"],
            "interruption_s_mean": float(lasted.mean()) if lasted.size else np.nan,
            "interruption_s_p95": float(np.percentile(lasted, 95)) if lasted.size else np.nan,
            "interruption_s_worst": float(lasted.max()) if lasted.size else np.nan,
            "interruption_s_total": total["interruption_s"] / self.num_ues,
            "ttft_s_mean": float(np.mean(self.first_tokens[e])) if self.first_tokens[e] else np.nan,
            "tpot_s_mean": _ratio(total["latency_s"], total["tokens"]),
            "drift_kl_mean": _ratio(total["kl"], total["measured"]),
            "top1_agreement": _ratio(total["top1"], total["measured"]),
            "recall": _ratio(hits, asked),
            "recall_hot": _ratio(total["hot_hits"], total["hot_total"]),
            "recall_cold": _ratio(total["cold_hits"], total["cold_total"]),
            "backhaul_gb": total["bits_sent"] / 8e9,
            "gpu_s": total["gpu_s"],
            "wasted_gb": total["wasted_bits"] / 8e9,
            "pingpong_rate": _ratio(total["pingpongs"], total["handovers"]),
            "rlf_rate": _ratio(60.0 * total["rlf"], total["ue_s"]),
            "handover_goodput": _ratio(float(self._met[e]), float(self._judged[e])),
            "refused": total["refused"],
            "requests": float(ttft.size),
            "request_ttft_s_mean": float(ttft.mean()) if ttft.size else np.nan,
            "request_ttft_s_p95": float(np.percentile(ttft, 95)) if ttft.size else np.nan,
            "request_tpot_s_mean": float(tpot.mean()) if tpot.size else np.nan,
            "goodput": float(met.mean()) if met.size else np.nan,
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
