"""What `radio.phy: exact` costs: `python -m kvroam.benchmarks.exact_phy [--seconds N]`, table beside it, one thread."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from kvroam.benchmarks.throughput import make_core, physics, rate
from kvroam.errors import run_command

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


def command(arguments: list[str] | None = None) -> None:
    """Measure and print one line per number of environments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per case [s]")
    for envs, table_ms, exact_ms in measure(parser.parse_args(arguments).seconds):
        print(f"{envs:5d} environments: {table_ms:8.3f} ms per step with the table, {exact_ms:8.3f} ms with exact "
              f"({1000.0 * envs / exact_ms:.0f} environment-steps/s)")


if __name__ == "__main__":
    sys.exit(run_command("exact_phy", command))
