"""What pruning does to the embedded model: `python -m kvroam.kvbackend.embedded.training.pruning --out docs`.

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
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ....commands import Command, add_out, add_quiet, add_seed
from ....errors import ConfigError
from ....files import make_folder, write_whole
from ...backend import KVBackend
from ...scorers.table import SCORERS as SCORER_TABLE
from ...settings import TransferPlan
from ...sweep.choices import ORACLE, PER_HEAD, PRECISIONS
from ...sweep.measure import hand_over, ranking
from ..scripts import SITUATIONS, script_bank
from .cases import judged_at, moment
from .intervals import drift_columns
from .pruning_page import draw, page, read_csv

SCORERS = tuple(SCORER_TABLE)
# Recency is the same in every head.
HEADWISE = tuple(name + PER_HEAD for name in SCORERS if name != "streaming")
KEEPS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
EQUAL_SCORERS = ("window", "reconstruction", "reconstruction" + PER_HEAD, ORACLE)
EQUAL_PRECISIONS = ("fp16", "int8", "int4", "int2")
# What is compared at the bytes of a whole cache at 8, 4 and 2 bits, and at a half and a quarter of the latter.
BUDGETS = {
    "int8": EQUAL_PRECISIONS[:2],
    "int4": EQUAL_PRECISIONS[:3],
    **dict.fromkeys(("int2", "int2/2", "int2/4"), EQUAL_PRECISIONS),
}
START, HORIZON, LENGTH = 448, 160, 896
MEASURES = ("kl", "top1", "hot", "cold")
COLUMNS = (
    "situation", "budget", "scorer", "precision", "keep", "bytes",
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")), "hot_count", "cold_count",
)  # fmt: skip
Row = dict[str, Any]


class Bench:
    """Sessions of one situation at its telling moments, ready to be handed over again and again.

    Args:
        backend: With the embedded model.
        situation: One of SITUATIONS.
        count: Scripts.
        seed: Seed of the scripts.
    """

    def __init__(self, backend: KVBackend, situation: str, count: int, seed: int) -> None:
        self.backend, self.situation = backend, situation
        scripts = script_bank(count, LENGTH, seed, situation)
        self.contexts = [moment(script, situation, START) for script in scripts]
        self.scripts = [judged_at(*item) for item in zip(scripts, self.contexts, strict=True)]
        self.references = backend.references(self.scripts)
        # Bytes of each whole cache at each precision.
        self.sizes = {name: self._bytes(PRECISIONS[name]) for name in EQUAL_PRECISIONS}

    def _bytes(self, plan: TransferPlan) -> np.ndarray:
        sizes = []
        for reference, context in zip(self.references, self.contexts, strict=True):
            session = self.backend.open(reference, context)
            sizes.append(len(self.backend.encode(session, plan)))
            self.backend.close(session)
        return np.array(sizes)

    def row(self, scorer: str, precision: str, keep: float, budget: str = "") -> Row:
        """Hand all sessions over and measure: one line of the table.

        Args:
            scorer: As in a sweep.
            precision: One of PRECISIONS.
            keep: Kept fraction, 1 where there is a budget.
            budget: Precision whose whole cache's bytes are the limit, `/2` or `/4` behind it for a part of them.
        """
        plan = replace(PRECISIONS[precision], keep=keep)
        plans = [plan] * len(self.scripts)
        if budget:
            name, _, divisor = budget.partition("/")
            limits = self.sizes[name] // int(divisor or 1)
            plans = [replace(plan, budget_bytes=int(limit)) for limit in limits]
        before = self.backend.settings
        try:
            self.backend.settings = ranking(before, scorer, self.references, self.scripts)
            sizes, kept, drift = hand_over(self.backend, self.references, self.contexts, HORIZON, plans)
        finally:
            self.backend.settings = before
        return {
            "situation": self.situation,
            "budget": budget,
            "scorer": scorer,
            "precision": precision,
            "keep": round(float(np.mean(kept / np.array(self.contexts))), 4) if budget else keep,
            "bytes": round(float(sizes.mean()), 1),
            **drift_columns(drift, len(self.scripts)),
        }

    def rows(self) -> Iterator[Row]:
        """Every scorer at every kept fraction at 16 bits; then every precision at equal bytes."""
        for scorer, keep in product((*SCORERS, *HEADWISE, ORACLE), KEEPS):
            yield self.row(scorer, "fp16", keep)
        for (budget, precisions), scorer in product(BUDGETS.items(), EQUAL_SCORERS):
            for precision in precisions:
                yield self.row(scorer, precision, 1.0, budget)


def measure(backend: KVBackend, count: int, seed: int, quiet: bool = False) -> list[Row]:
    """The whole table.

    Args:
        backend: With the embedded model.
        count: Scripts per situation.
        seed: Seed of the scripts.
        quiet: No progress bar.
    """
    equal = len(EQUAL_SCORERS) * sum(map(len, BUDGETS.values()))
    per_bench = (len(SCORERS) + len(HEADWISE) + 1) * len(KEEPS) + equal
    rows = []
    with tqdm(total=len(SITUATIONS) * per_bench, unit="plan", disable=quiet, dynamic_ncols=True, leave=False) as bar:
        for situation in SITUATIONS:
            for row in Bench(backend, situation, count, seed).rows():
                rows.append(row)
                bar.update()
    return rows


def write_csv(rows: Sequence[Row], path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Write the table as CSV, all of it or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda draft: draft.write_text(text.getvalue(), encoding="utf-8"))


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    add_out(parser, "runs/pruning", "pruning.csv, pruning.png and pruning.md")
    parser.add_argument("--scripts", type=int, default=40, help="per situation (default: %(default)s)")
    add_seed(parser, 2028, "of the scripts; parameters of scorers were chosen on those of 2027")
    parser.add_argument("--measured", action="store_true", help="draw figure and page of the table that --out holds")
    add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Write table, figure and page."""
    if args.scripts < 1 or args.seed < 0:
        raise ConfigError(f"--scripts {args.scripts} or --seed {args.seed} is too low; give 1 and 0 or more")
    table, picture, text = (args.out / f"pruning.{end}" for end in ("csv", "png", "md"))
    if not args.measured:
        make_folder(args.out)
        write_csv(measure(KVBackend.load(device="cpu"), args.scripts, args.seed, args.quiet), table)
    elif not table.is_file():
        raise ConfigError(f"{str(table)!r} does not exist; measure without --measured first")
    rows = read_csv(table)
    write_whole(picture, lambda draft: draw(rows, draft))
    write_whole(text, lambda draft: draft.write_text(page(rows), encoding="utf-8"))
    print(f"{len(rows)} lines: {table}, {picture}, {text}")


command = Command("python -m kvroam.kvbackend.embedded.training.pruning", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
