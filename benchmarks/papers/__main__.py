"""Reproduce the figures of the papers: `python -m kvroam.benchmarks.papers --out docs/papers` (or one: `... ctho`)."""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial

from tqdm import tqdm

from kvroam import commands
from kvroam.benchmarks.papers.rows import from_csv, report, save, to_csv
from kvroam.benchmarks.papers.summary import summarise
from kvroam.errors import ConfigError
from kvroam.files import write_whole

PAPERS = ("ctho", "jmsra", "pallas", "token-aware")


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("papers", nargs="*", metavar="paper", help=f"of {', '.join(PAPERS)}; all by default")
    commands.add_out(parser, "runs/papers", "a CSV, a figure and a page per paper, and the summary README.md")
    parser.add_argument("--samples", type=int, help="random instances per point (default: each paper's own)")
    commands.add_seed(parser, what="seed of the instances")
    parser.add_argument("--measured", action="store_true", help="figures and pages of the CSV files that --out holds")
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Compute, and write the three files of each paper; then the summary of all that the folder holds."""
    for name in args.papers:
        if name not in PAPERS:
            raise ConfigError(f"paper {name!r} is unknown; choose among {', '.join(PAPERS)}")
    if args.samples is not None and args.samples < 2:
        raise ConfigError(f"--samples is {args.samples}: an interval needs at least 2")
    for name in args.papers or PAPERS:
        paper = importlib.import_module(f"kvroam.benchmarks.papers.{name.replace('-', '_')}")
        samples = args.samples or paper.SAMPLES
        if args.measured:
            text = (args.out / f"{name}.csv").read_text(encoding="utf-8")
        else:
            with tqdm(total=paper.STEPS, unit="point", desc=name, leave=False, disable=args.quiet) as bar:
                text = to_csv(paper.run(samples, args.seed, bar.update))
        points = from_csv(text)  # pages say what the files say
        line = f"python -m kvroam.benchmarks.papers {name} --samples {samples} --seed {args.seed}"
        page = report(paper.TITLE, line, points, paper.findings(points), paper.remarks(points), paper.tables(points),
                      paper.NOTES)
        files = save(args.out, name, points, page)
        picture = args.out / f"{name}.png"
        write_whole(picture, partial(paper.draw, points))
        print("written:", ", ".join(str(path) for path in [*files, picture]))
    print("written:", summarise(args.out, PAPERS))


command = commands.Command("python -m kvroam.benchmarks.papers", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
