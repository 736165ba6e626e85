"""Reproduce the figures of a paper: `python -m kvroam.benchmarks.papers ctho --out docs/papers`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from kvroam.benchmarks.papers.rows import report, save
from kvroam.errors import ConfigError, run_command
from kvroam.files import write_whole

PAPERS = ("ctho", "jmsra", "pallas", "token-aware")


def command(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m kvroam.benchmarks.papers", description=(__doc__ or "").strip())
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--out", default="runs/papers", help="folder for the CSV, the figure and the page")
    parser.add_argument("--samples", type=int, default=200, help="random instances per point (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.samples < 2:
        raise ConfigError(f"--samples is {args.samples}: an interval needs at least 2")
    paper = importlib.import_module(f"kvroam.benchmarks.papers.{args.paper.replace('-', '_')}")
    with tqdm(total=paper.STEPS, unit="point", leave=False) as bar:
        points = paper.run(args.samples, args.seed, bar.update)
    line = f"python -m kvroam.benchmarks.papers {args.paper} --samples {args.samples} --seed {args.seed}"
    page = report(paper.TITLE, line, points, paper.findings(points), paper.NOTES)
    files = save(Path(args.out), args.paper, points, page)
    picture = Path(args.out, f"{args.paper}.png")
    write_whole(picture, partial(paper.draw, points))
    print(page)
    print("written:", ", ".join(str(path) for path in [*files, picture]))


if __name__ == "__main__":
    sys.exit(run_command("kvroam-papers", command))
