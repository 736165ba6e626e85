"""What the rest of a cache is worth: `python -m kvroam.benchmarks.progressive [--scripts N] [--json FILE]`.

Sessions of the embedded model move at token 320 with a share of their cache, read some tokens on it, get the rest, and
read on. The last columns are those of the same sessions if the rest never comes. Intervals are 95 % over the scripts.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np

from kvroam import commands
from kvroam.errors import ConfigError
from kvroam.evaluation.estimates import mean_interval
from kvroam.files import write_whole

MOVED, JUDGED = 320, 128  # [tokens]
KEEPS, WAITS = (0.5, 0.25, 0.1), (0, 8, 32, 96)
COLUMNS = {
    "during": "KL while the rest is missing",
    "after": "KL once it has come",
    "never": "KL at these tokens if it never comes",
    "after_wrong": "wrong answers, it has come",
    "never_wrong": "wrong answers, it never comes",
}


def measure(scripts: int, seed: int = 3) -> list[dict[str, Any]]:
    """One row per share that is sent first and number of tokens that are read meanwhile; see COLUMNS.

    Args:
        scripts: sessions per row.

    Returns:
        KL in nats per token with a 95 % interval, wrong answers per 100 tokens of the 128 after the rest has come.
    """
    from kvroam.kvbackend import KVBackend, TransferPlan
    from kvroam.kvbackend.embedded.scripts import script_bank

    backend = KVBackend.load(device="cpu")
    references = backend.references(script_bank(scripts, MOVED + max(WAITS) + JUDGED + 1, seed))
    rows = []
    for keep in KEEPS:
        for wait in WAITS:
            row: dict[str, Any] = {"keep": keep, "wait": wait}
            for rest in (True, False):
                sessions = [backend.open(reference, MOVED) for reference in references]
                backend.migrate(sessions, [TransferPlan(keep=keep, rest=rest)] * scripts)
                during = backend.advance(sessions, [wait] * scripts)
                if rest:
                    backend.backfill(sessions)
                    row["during"] = estimate(during.kl / np.maximum(during.tokens, 1)) if wait else None
                judged = backend.measure(sessions, JUDGED)
                name = "after" if rest else "never"
                row[name] = estimate(judged.kl / judged.tokens)
                row[f"{name}_wrong"] = 100.0 * float(judged.wrong.sum() / judged.tokens.sum())
                for session in sessions:
                    backend.close(session)
            rows.append(row)
    return rows


def estimate(values: np.ndarray) -> list[float]:
    """The mean of one value per script, and its interval."""
    interval = mean_interval(values)
    # Values that are all equal have no interval.
    low, high = (values.mean() if np.isnan(end) else end for end in (interval.low, interval.high))
    return [float(values.mean()), float(low), float(high)]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| sent first | tokens read meanwhile | " + " | ".join(COLUMNS.values()) + " |", "|---" * 7 + "|"]
    for row in rows:
        shown = [shown_as(row[name]) for name in COLUMNS]
        lines.append(f"| {row['keep']:g} | {row['wait']} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def shown_as(value: Any) -> str:
    """A number of the table: a mean with its interval, a rate, or nothing."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    middle, low, high = value
    return f"{middle:.4f} [{low:.4f}, {high:.4f}]"


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--scripts", type=int, default=40, help="sessions per row (default: %(default)s)")
    commands.add_json(parser)


def execute(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    if args.scripts < 2:
        raise ConfigError(f"--scripts is {args.scripts}: an interval needs at least 2")
    rows = measure(args.scripts)
    print(table(rows))
    if args.json:
        text = json.dumps(rows, indent=1) + "\n"
        write_whole(args.json, lambda draft: draft.write_text(text, encoding="utf-8"))


command = commands.Command("python -m kvroam.benchmarks.progressive", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
