"""JMSRA (Dai, Xiang, Yang, arXiv 2605.25422): NL only, KV only, JMSRA and the optimum, with our model and parameters.

The paper's equations and numbers are not public; what is compared is what it states in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kvroam.agents.handover import jmsra
from kvroam.benchmarks.papers.rows import Finding, Point, at, curves, point

TITLE = "JMSRA: media selection and resource allocation for many agents (arXiv 2605.25422)"
CURVES = ("NL only", "KV only", "JMSRA", "optimum")
LATEST, GAP, USED = "latest message [s]", "gap to the optimum [%]", "senders that choose KV [%]"


@dataclass(frozen=True)
class Setting:
    """Ours: agents that share what they have read with a common receiver."""

    agents: int = 6  # K
    bandwidth_hz: float = 100e6  # shared by all
    decode_s: float = 0.03  # per token, of an agent's own accelerator
    input_tokens: tuple[int, int] = (128, 1024)  # what it has read
    message_tokens: tuple[int, int] = (32, 384)  # its summary in words
    latent_steps: int = 4  # what it decodes before it sends its cache instead
    efficiency: tuple[float, float] = (0.5, 6.0)  # of its link [bit/s/Hz]
    kv_bits: float = 2 * 24 * 2 * 64 * 16  # a model of half a billion parameters: 24 layers, 2 KV heads of 64
    prefill_s: float = 2e-4  # per token, of the agents and of the receiver


def sample(setting: Setting, rng: np.random.Generator) -> tuple[jmsra.Costs, np.ndarray]:
    """Costs and spectral efficiencies of one group of agents; computers differ by a factor of four."""
    count = setting.agents
    slow = 2.0 ** rng.uniform(-1.0, 1.0, count)
    cost = jmsra.costs(
        rng.integers(*setting.input_tokens, count), rng.integers(*setting.message_tokens, count),
        np.full(count, setting.latent_steps), prefill_s_per_token=setting.prefill_s * slow,
        decode_s_per_token=setting.decode_s * slow, receiver_prefill_s_per_token=setting.prefill_s,
        kv_bits_per_token=setting.kv_bits, restore_s=5e-3)
    return cost, rng.uniform(*setting.efficiency, count)


def latencies(setting: Setting, rng: np.random.Generator) -> dict[str, float]:
    """The latest message under each scheme [s], the greedy gap [%] and the share of KV senders [%]."""
    cost, efficiency = sample(setting, rng)
    band = setting.bandwidth_hz
    found = {}
    for name, medium in (("NL only", jmsra.NL), ("KV only", jmsra.CACHE)):
        compute_s, bits = (np.repeat(part[medium][None], 2, axis=0) for part in (cost.compute_s, cost.bits))
        found[name] = jmsra.solve(compute_s, bits, efficiency, band).value_s
    greedy = jmsra.solve(cost.compute_s, cost.bits, efficiency, band)
    best = jmsra.exhaustive(cost.compute_s, cost.bits, efficiency, band)
    return found | {"JMSRA": greedy.value_s, "optimum": best.value_s,
                    GAP: 100.0 * (greedy.value_s / best.value_s - 1.0), USED: 100.0 * float(greedy.medium.mean())}


SWEEPS: tuple[tuple[str, tuple[float, ...], Callable[[Setting, float], Setting]], ...] = (
    ("bandwidth [MHz]", (10, 20, 50, 100, 200, 500, 1000), lambda s, x: replace(s, bandwidth_hz=x * 1e6)),
    ("decoding [ms/token]", (2, 5, 10, 20, 30, 50, 80), lambda s, x: replace(s, decode_s=x * 1e-3)),
    ("agents", (1, 2, 4, 6, 8), lambda s, x: replace(s, agents=int(x))),
)
STEPS = sum(len(xs) for _, xs, _ in SWEEPS)


def run(samples: int, seed: int, tick: Callable[[], object]) -> list[Point]:
    """All points; `tick` is called after each setting."""
    points = []
    for panel, xs, change in SWEEPS:
        for x in xs:
            found = [latencies(change(Setting(), x), np.random.default_rng([seed, i])) for i in range(samples)]
            points += [point(panel, x, name, LATEST, [f[name] for f in found]) for name in CURVES]
            points += [point(panel, x, "JMSRA", quantity, [f[quantity] for f in found]) for quantity in (GAP, USED)]
            tick()
    return points


def draw(points: list[Point], path: Path) -> None:
    """The figure; latencies on a logarithmic axis."""
    curves([p for p in points if p.quantity == LATEST], path, TITLE, log_y=True)


def findings(points: list[Point]) -> list[Finding]:
    """What the paper states in words."""
    bandwidth, decoding = SWEEPS[0][0], SWEEPS[1][0]

    def wins(panel: str, x: float) -> str:
        return min(("NL only", "KV only"), key=lambda name: at(points, panel, name, x, LATEST).mean)

    ends = {panel: (wins(panel, xs[0]), wins(panel, xs[-1])) for panel, xs, _ in SWEEPS[:2]}
    gaps = [p.mean for p in points if p.quantity == GAP]
    everywhere = [(panel, x) for panel, xs, _ in SWEEPS for x in xs]
    lead = [min(at(points, panel, name, x, LATEST).mean for name in ("NL only", "KV only"))
            / at(points, panel, "JMSRA", x, LATEST).mean for panel, x in everywhere]
    used = [at(points, bandwidth, "JMSRA", x, USED).mean for x in SWEEPS[0][1]]
    return [
        Finding("neither medium is uniformly best: bandwidth", "yes", f"{ends[bandwidth][0]} at {SWEEPS[0][1][0]} MHz, "
                f"{ends[bandwidth][1]} at {SWEEPS[0][1][-1]} MHz", ends[bandwidth] == ("NL only", "KV only")),
        Finding("neither medium is uniformly best: compute", "yes",
                f"{ends[decoding][0]} at {SWEEPS[1][1][0]} ms/token, "
                f"{ends[decoding][1]} at {SWEEPS[1][1][-1]} ms/token", ends[decoding] == ("NL only", "KV only")),
        Finding("JMSRA is never worse than the better single medium", "yes", f"{min(lead):.2f}x to {max(lead):.2f}x "
                "lower", min(lead) >= 1.0 - 1e-9),
        Finding("JMSRA is close to the optimum", "low-complexity, near-optimal", f"mean gap at most {max(gaps):.2f} %",
                max(gaps) < 1.0),
        Finding("more bandwidth, more agents send their cache", "yes", f"{used[0]:.0f} % to {used[-1]:.0f} %",
                bool(np.all(np.diff(used) >= 0))),
    ]


NOTES = """
The model is ours (kvroam/agents/jmsra.py): latency is prefill plus decoding plus bits over rate plus what the receiver
does; agents whose computers differ by a factor of four and links between 0.5 and 6 bit/s/Hz share one band.
"""
