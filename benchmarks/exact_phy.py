"""What `radio.phy: exact` costs: `python -m kvroam.benchmarks.exact_phy [--seconds N]`, table beside it, one thread."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from kvroam import commands
from kvroam.benchmarks.throughput import make_core, physics, rate

SIZES = (1, 64, 1024)


def measure(seconds: float) -> list[tuple[int, float, float]]:
    """Environments, and milliseconds of one step of all of them with the table and with Sionna in the step."""
    rows = []
    for envs in SIZES:
        spent_ms = []
        for phy in ("table", "exact"):
            config = physics()
            _, step = make_core(replace(config, radio=replace(config.radio, phy=phy)), envs)
            spent_ms.append(1000.0 / rate(step, seconds))
        rows.append((envs, spent_ms[0], spent_ms[1]))
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--seconds", type=float, default=2.0, help="per case [s]")


def execute(args: argparse.Namespace) -> None:
    """Measure and print one line per number of environments."""
    for envs, table_ms, exact_ms in measure(args.seconds):
        print(f"{envs:5d} environments: {table_ms:8.3f} ms per step with the table, {exact_ms:8.3f} ms with exact "
              f"({1000.0 * envs / exact_ms:.0f} environment-steps/s)")


command = commands.Command("python -m kvroam.benchmarks.exact_phy", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
