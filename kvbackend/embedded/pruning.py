"""What pruning does to the embedded model: `python -m kvroam.kvbackend.embedded.pruning --out docs`.

Hands sessions of every situation over by every scorer, the oracle among them, at every kept fraction; and at equal
bytes by every precision. Writes `pruning.csv` with 95 % intervals over scripts, the figure `pruning.png` and the page
`pruning.md`.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ...errors import ConfigError, KvroamError
from ...files import write_whole
from ..settings import TransferPlan
from ..sweep import ORACLE, PER_HEAD, PRECISIONS, hand_over, ranking
from .intervals import drift_columns
from .scripts import SITUATIONS, Script, script_bank

if TYPE_CHECKING:
    from ..backend import KVBackend
    from ..reference import Reference

SCORERS = ("window", "window-raw", "attention-sum", "attention-sum-raw", "key-norm", "streaming", "random")
# Recency is the same in every head.
HEADWISE = tuple(name + PER_HEAD for name in SCORERS if name != "streaming")
KEEPS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
EQUAL_SCORERS = ("window", ORACLE)
EQUAL_PRECISIONS = ("fp16", "int8", "int4", "int2")
CONTEXT, HORIZON = 512, 160
MEASURES = ("kl", "top1", "hot", "cold")
COLUMNS = (
    "situation", "budget", "scorer", "precision", "keep", "bytes",
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")), "hot_count", "cold_count",
)  # fmt: skip
Row = dict[str, Any]


class Bench:
    """Sessions of one situation, ready to be handed over again and again.

    Args:
        backend: With the embedded model.
        situation: One of SITUATIONS.
        count: Scripts.
        seed: Seed of the scripts.
    """

    def __init__(self, backend: KVBackend, situation: str, count: int, seed: int) -> None:
        self.backend, self.situation = backend, situation
        self.scripts: list[Script] = script_bank(count, CONTEXT + HORIZON, seed, situation)
        self.references: list[Reference] = backend.references(self.scripts)

    def row(self, scorer: str, precision: str, plan: TransferPlan, budget: str = "") -> Row:
        """Hand all sessions over and measure: one line of the table."""
        before = self.backend.settings
        try:
            self.backend.settings = ranking(before, scorer, self.references, self.scripts)
            sizes, kept, drift = hand_over(self.backend, self.references, CONTEXT, HORIZON, plan)
        finally:
            self.backend.settings = before
        return {
            "situation": self.situation,
            "budget": budget,
            "scorer": scorer,
            "precision": precision,
            "keep": plan.keep if not budget else round(float(kept.mean()) / CONTEXT, 4),
            "bytes": round(float(sizes.mean()), 1),
            **drift_columns(drift, len(self.scripts)),
        }

    def fractions(self) -> Iterator[Row]:
        """Every scorer at every kept fraction, at 16 bits."""
        for scorer in (*SCORERS, *HEADWISE, ORACLE):
            for keep in KEEPS:
                yield self.row(scorer, "fp16", TransferPlan(keep=keep))

    def equal_bytes(self) -> Iterator[Row]:
        """Every precision at the bytes that the whole cache takes at a lower one, and below the lowest."""
        for budget, limit in budgets(self.backend, self.references).items():
            # A precision that needs less than the budget for everything is compared at a smaller one.
            lowest = EQUAL_PRECISIONS.index(budget.partition("/")[0])
            for scorer, precision in product(EQUAL_SCORERS, EQUAL_PRECISIONS[: lowest + 1]):
                plan = TransferPlan(bits=PRECISIONS[precision].bits, budget_bytes=limit)
                yield self.row(scorer, precision, plan, budget)


def budgets(backend: KVBackend, references: Sequence[Reference]) -> dict[str, int]:
    """Bytes that are compared: of a whole cache at 8, 4 and 2 bits, then a half and a quarter of the last one."""
    sessions = [backend.open(reference, CONTEXT) for reference in references]
    # The header's length depends a little on the script; the longest one has to fit.
    limits = {
        name: max(len(backend.encode(session, PRECISIONS[name])) for session in sessions)
        for name in EQUAL_PRECISIONS[1:]
    }
    for session in sessions:
        backend.close(session)
    return {**limits, "int2/2": limits["int2"] // 2, "int2/4": limits["int2"] // 4}


def measure(backend: KVBackend, count: int, seed: int, quiet: bool = False) -> list[Row]:
    """The whole table.

    Args:
        backend: With the embedded model.
        count: Scripts per situation.
        seed: Seed of the scripts.
        quiet: No progress bar.
    """
    per_bench = (len(SCORERS) + len(HEADWISE) + 1) * len(KEEPS) + len(EQUAL_SCORERS) * (2 + 3 + 3 * len(EQUAL_PRECISIONS))
    rows = []
    with tqdm(total=len(SITUATIONS) * per_bench, unit="plan", disable=quiet, dynamic_ncols=True, leave=False) as bar:
        for situation in SITUATIONS:
            bench = Bench(backend, situation, count, seed)
            for part in (bench.fractions(), bench.equal_bytes()):
                for row in part:
                    rows.append(row)
                    bar.update()
    return rows


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the table as CSV, all of it or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda draft: draft.write_text(text.getvalue(), encoding="utf-8"))
