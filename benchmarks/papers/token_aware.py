"""Token-aware mobility plane (clawRxiv 2604.01548): is 90 % lower migration latency free, and when?

Caches of the embedded model are handed over while the situations of kvroam.kvbackend.embedded.training.pruning hold,
cut to the most salient tokens, to random or recent ones, or quantised instead. Latency is what the bytes take: their
share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kvroam.benchmarks.papers.rows import Finding, Point, at, curves

TITLE = "Token-aware mobility plane: what a lower migration latency costs (clawRxiv 2604.01548)"
KEEPS = (1.0, 0.75, 0.5, 0.35, 0.2, 0.1, 0.05)
SCORERS = {"window": "window attention", "attention-sum-raw": "attention sum (the paper's)", "streaming": "recency",
           "random": "random"}
PRECISIONS = {"int8": "int8, all tokens", "int4": "int4, all tokens", "int2": "int2, all tokens"}
SITUATIONS = ("pending", "answered", "adverse", "text")
DRIFT, HOT, COLD = "drift [nats/token]", "right about facts in use [%]", "right about other facts [%]"
STEPS = len(SITUATIONS) * (len(SCORERS) * len(KEEPS) + len(PRECISIONS))


def axis(situation: str) -> str:
    """The label of a panel."""
    return f"latency left, {situation} [%]"


def run(samples: int, seed: int, tick: Callable[[], object]) -> list[Point]:
    """All points, of `samples` scripts per situation; `tick` is called after each."""
    import torch

    from kvroam.kvbackend import KVBackend
    from kvroam.kvbackend.embedded.model import load_model
    from kvroam.kvbackend.embedded.training.pruning import Bench

    backend = KVBackend(load_model("cpu", torch.float32)[0])
    points: list[Point] = []
    for situation in SITUATIONS:
        bench = Bench(backend, situation, samples, 20_000 + seed)
        whole = bench.sizes["fp16"].mean()
        jobs = [(name, scorer, "fp16", keep) for scorer, name in SCORERS.items() for keep in KEEPS]
        jobs += [(name, "window", precision, 1.0) for precision, name in PRECISIONS.items()]
        for name, scorer, precision, keep in jobs:
            row = bench.row(scorer, precision, keep)
            share = round(100.0 * row["bytes"] / whole, 2)
            for quantity, key, scale in ((DRIFT, "kl", 1.0), (HOT, "hot", 100.0), (COLD, "cold", 100.0)):
                if row[key] is not None and np.isfinite(row[key]):
                    points.append(Point(axis(situation), share, name, quantity, scale * row[key],
                                        scale * row[f"{key}_low"], scale * row[f"{key}_high"], samples))
            tick()
    return points


def draw(points: list[Point], path: Path) -> None:
    """The figure: a row per quantity, a column per situation."""
    order = [DRIFT, HOT, COLD]
    shown = [p for p in points if not (p.panel == axis("text") and p.quantity != DRIFT)]
    curves(sorted(shown, key=lambda p: (order.index(p.quantity), SITUATIONS.index(p.panel.split()[2]))), path, TITLE,
           columns=len(SITUATIONS))


def findings(points: list[Point]) -> list[Finding]:
    """The claim, in each situation; and what the same bytes buy otherwise."""
    window, chance, summed = SCORERS["window"], SCORERS["random"], SCORERS["attention-sum-raw"]

    def near(situation: str, curve: str, share: float, quantity: str) -> Point:
        mine = [p for p in points if (p.panel, p.curve, p.quantity) == (axis(situation), curve, quantity)]
        return min(mine, key=lambda p: abs(p.x - share))

    found = []
    for situation in SITUATIONS[:3]:
        hot, cold, kl = (near(situation, window, 10.0, quantity) for quantity in (HOT, COLD, DRIFT))
        found.append(Finding(
            f"90 % less latency, negligible effect: {situation}", "yes",
            f"{hot.mean:.0f} % of hot and {cold.mean:.0f} % of cold answers right, {kl.mean:.2f} nats/token",
            hot.mean >= 95 and cold.mean >= 95,
            "what is in use survives where the last tokens point at it; other facts are lost in every situation"
            if situation == SITUATIONS[0] else ""))
    text = near("text", window, 10.0, DRIFT)
    found.append(Finding("90 % less latency, negligible effect: text", "yes", f"{text.mean:.2f} nats/token",
                         text.mean < 0.05))
    best = near("pending", window, 20.0, HOT).mean, near("pending", chance, 20.0, HOT).mean
    found.append(Finding("saliency beats chance at the paper's keep of 0.2 (pending, hot)", "yes",
                         f"{best[0]:.0f} % against {best[1]:.0f} %", best[0] > best[1] + 10))
    plain = near("pending", summed, 20.0, HOT).mean
    found.append(Finding("the paper's saliency is the best choice (pending, hot)", "implied",
                         f"attention sum {plain:.0f} %, window attention {best[0]:.0f} %", plain >= best[0],
                         "a sum over all queries favours old tokens; the last window with max-pooling does not"))
    int4 = at(points, axis("pending"), PRECISIONS["int4"], quantity=COLD)
    same = near("pending", window, int4.x, COLD)
    found.append(Finding("pruning is the way to fewer bytes (pending, cold)", "implied",
                         f"int4 sends {int4.x:.0f} % of the bytes and keeps {int4.mean:.0f} % of the answers; pruning "
                         f"to {same.x:.0f} % keeps {same.mean:.0f} %", same.mean >= int4.mean,
                         "quantise first, prune second"))
    return found


NOTES = """
Hot: a question named the fact within the last 128 tokens before the handover. Points are means over scripts with 95 %
intervals; the horizontal axis is the share of the whole 16-bit cache that crosses the link, header and scales included.
Text has too few questions for recall. All scorers and fractions: [pruning.md](../pruning.md).
"""
