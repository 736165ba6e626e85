"""Reproduce the figures of a paper: `python -m kvroam.benchmarks.papers ctho --out docs/papers`."""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial

from tqdm import tqdm

from kvroam import commands
from kvroam.benchmarks.papers.rows import report, save
from kvroam.errors import ConfigError
from kvroam.files import write_whole

PAPERS = ("ctho", "jmsra", "pallas", "token-aware")


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("paper", choices=PAPERS)
    commands.add_out(parser, "runs/papers", "the CSV, the figure and the page")
    parser.add_argument("--samples", type=int, default=200, help="random instances per point (default: %(default)s)")
    commands.add_seed(parser, what="seed of the instances")
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Compute, and write the three files."""
    if args.samples < 2:
        raise ConfigError(f"--samples is {args.samples}: an interval needs at least 2")
    paper = importlib.import_module(f"kvroam.benchmarks.papers.{args.paper.replace('-', '_')}")
    with tqdm(total=paper.STEPS, unit="point", leave=False, disable=args.quiet) as bar:
        points = paper.run(args.samples, args.seed, bar.update)
    line = f"python -m kvroam.benchmarks.papers {args.paper} --samples {args.samples} --seed {args.seed}"
    page = report(paper.TITLE, line, points, paper.findings(points), paper.NOTES)
    files = save(args.out, args.paper, points, page)
    picture = args.out / f"{args.paper}.png"
    write_whole(picture, partial(paper.draw, points))
    print(page)
    print("written:", ", ".join(str(path) for path in [*files, picture]))


command = commands.Command("python -m kvroam.benchmarks.papers", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
