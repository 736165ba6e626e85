"""Write envs/handover/harm/drift_numbers.py from docs/sweep.csv: `python docs/make_drift_table.py`.

After `python -m kvroam.kvbackend.sweep --out docs`, when the embedded model or a scorer has changed.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from kvroam.commands import Command

SWEEP = Path(__file__).with_name("sweep.csv")
TABLE = Path(__file__).parents[1] / "envs" / "handover" / "harm" / "drift_numbers.py"
SCORERS = ("window", "reconstruction", "reconstruction@head")
BITS = {"fp16": 16, "int8": 8, "int4": 4}
_HEAD = '"""What pruning and quantising cost: made by `python docs/make_drift_table.py` from docs/sweep.csv."""\n\n'


def numbers(column: str) -> dict[str, dict[tuple[float, int], float]]:
    """Scorer -> (keep, bits) -> a column of the sweep, three significant digits."""
    with SWEEP.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["precision"] in BITS]
    return {
        name: {
            (float(row["keep"]), BITS[row["precision"]]): float(f"{float(row[column]):.3g}")
            for row in rows
            if row["scorer"] == name
        }
        for name in SCORERS
    }


def module() -> str:
    """The module's text."""
    parts = [_HEAD]
    for name, column, what in (
        ("KL", "kl", "mean KL from the whole cache over the tokens that follow [nat per token]"),
        ("WRONG", "wrong", "answers that are wrong, and right with the whole cache [per token]"),
    ):
        parts.append(f"# Scorer, (keep, bits): {what}.\n{name}: dict[str, dict[tuple[float, int], float]] = {{\n")
        for scorer, table in numbers(column).items():
            parts.append(f'    "{scorer}": {{\n')
            keeps = list(dict.fromkeys(keep for keep, _ in table))
            for keep in keeps:
                cells = (f"({keep}, {bits}): {table[keep, bits]}" for bits in BITS.values())
                parts.append(f"        {', '.join(cells)},\n")
            parts.append("    },\n")
        parts.append("}\n\n")
    return "".join(parts).rstrip("\n") + "\n"


def execute(args: argparse.Namespace) -> None:
    """Write the module."""
    TABLE.write_text(module(), encoding="utf-8")
    print(TABLE)


command = Command("python docs/make_drift_table.py", __doc__, lambda parser: None, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
