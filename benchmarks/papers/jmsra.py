"""JMSRA (Dai, Xiang, Yang, arXiv 2605.25422), a reconstruction: NL only, KV only, JMSRA and the optimum.

We know the paper's abstract, not its equations, parameters and numbers: model and values are ours, and only what it
states in words is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kvroam.agents.handover import jmsra
from kvroam.benchmarks.papers.rows import (
    AGREES,
    DIFFERS,
    UNCHECKED,
    Finding,
    Point,
    Remark,
    at,
    curves,
    point,
    ratio,
    spread,
)

TITLE = "JMSRA, a reconstruction: media selection and resource allocation for many agents (arXiv 2605.25422)"
SAMPLES = 200
CURVES = ("NL only", "KV only", "JMSRA", "optimum")
TIMES = "times the latency of JMSRA"
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
            points += [ratio(panel, x, name, TIMES, [f[name] for f in found], [f["JMSRA"] for f in found])
                       for name in CURVES[:2]]
            points += [point(panel, x, "JMSRA", quantity, [f[quantity] for f in found]) for quantity in (GAP, USED)]
            tick()
    return points


def draw(points: list[Point], path: Path) -> None:
    """The figure; latencies on a logarithmic axis."""
    curves([p for p in points if p.quantity == LATEST], path, TITLE, log_y=True)


def findings(points: list[Point]) -> list[Finding]:
    """What the paper states in words."""
    lead = [min((at(points, panel, name, x, TIMES) for name in CURVES[:2]), key=lambda p: p.mean)
            for panel, xs, _ in SWEEPS for x in xs]
    found = []
    for what, (panel, xs, _) in zip(("bandwidth", "compute"), SWEEPS[:2], strict=True):
        first, last = ({name: at(points, panel, name, x, LATEST) for name in CURVES[:2]} for x in (xs[0], xs[-1]))
        crossed = first["NL only"].high < first["KV only"].low and last["KV only"].high < last["NL only"].low
        found.append(Finding(
            f"neither medium is uniformly best: {what}", "yes",
            f"at {xs[0]:g}: NL {spread(first['NL only'], ' s')}, KV {spread(first['KV only'], ' s')}; "
            f"at {xs[-1]:g}: NL {spread(last['NL only'], ' s')}, KV {spread(last['KV only'], ' s')} ({panel})",
            "another one wins at either end, intervals apart", AGREES if crossed else DIFFERS,
            "" if crossed else "in our model one medium wins over the whole range"))
    low, high = min(lead, key=lambda p: p.mean), max(lead, key=lambda p: p.mean)
    return [
        *found,
        Finding("latency against NL only and KV only", "markedly reduced",
                f"against the better of both, from {spread(low, 'x')} to {spread(high, 'x')} lower", "no number known",
                UNCHECKED, "the gains and the settings behind them are not known to us"),
        Finding("the algorithm has low complexity", "yes", "at most K flips from either end, K candidates each",
                "no number known", UNCHECKED, "the paper's own count is not known to us; ours grows with K squared"),
        Finding("switching the medium over several rounds", "evaluated", "-", "-", UNCHECKED, "not reconstructed"),
    ]


def remarks(points: list[Point]) -> list[Remark]:
    """What is no evidence about the paper."""
    gap = max((p for p in points if p.quantity == GAP), key=lambda p: p.mean)
    bandwidth, xs, _ = SWEEPS[0]
    used = [at(points, bandwidth, "JMSRA", x, USED) for x in (xs[0], xs[-1])]
    return [
        Remark("JMSRA is never worse than the better single medium", "-", "at every point",
               "by construction: the search starts from both"),
        Remark("gap of the greedy search to the optimum", "-", f"at most {spread(gap, ' %')} on average",
               "the search and the costs are ours"),
        Remark("agents that send their cache", "-", f"{spread(used[0], ' %', 0)} at {xs[0]} MHz, "
               f"{spread(used[1], ' %', 0)} at {xs[-1]} MHz", "a property of our model"),
    ]


def tables(points: list[Point]) -> str:
    """The figure."""
    return "![Latest message over bandwidth, decoding time and agents](jmsra.png)"


NOTES = """
This is a reconstruction, not a reproduction: we know the abstract only, so "agrees" means that our model shows what the
paper says in words. The model (kvroam/agents/handover/jmsra.py): latency is prefill plus decoding plus bits over rate
plus what the receiver does; agents whose computers differ by a factor of four and links between 0.5 and 6 bit/s/Hz
share one band. The ranges of the sweeps are ours too.
"""
