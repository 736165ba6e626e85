"""How much there is to gain: `python -m kvroam.benchmarks.headroom --out docs/headroom` plays every constant plan and
every named policy in every scenario, and searches what hindsight could do, with all levers and without each.

A killed run goes on where it was when it is started again with the same options. `--rows FILE ...` plays nothing, and
makes the page, the table and the figure of runs that were made apart.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kvroam import commands
from kvroam.benchmarks.headroom.figure import draw
from kvroam.benchmarks.headroom.jobs import HINDSIGHT, Job, policies, rows
from kvroam.benchmarks.headroom.page import page, table
from kvroam.benchmarks.headroom.store import PROGRAM, Source, Store, read
from kvroam.benchmarks.headroom.verdicts import Gate, gather, judge
from kvroam.errors import ConfigError
from kvroam.evaluation.players import by_name
from kvroam.experiment import GRID, scenarios
from kvroam.files import make_folder, write_whole


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    commands.add_scenarios(parser, scenarios(GRID), "the grid")
    parser.add_argument("--budget", type=float, default=1000.0,
                        help="of the search of one episode, in simulated episodes (default: %(default)g)")
    parser.add_argument("--lever-budget", type=float, default=400.0,
                        help="of each search without a lever; 0: none (default: %(default)g)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)),
                        help="that work side by side (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", type=Path, metavar="FILE",
                        help="play nothing: make the page of the rows.jsonl of these runs")
    commands.add_episodes(parser, 16, 7000)
    commands.add_out(parser, "runs/headroom", "headroom.md, .csv and .png, and the rows so far")


def execute(args: argparse.Namespace) -> None:
    """Play and search what is missing, then write the page, the table and the figure."""
    sources = read(args.rows) if args.rows else [_run(args)]
    make_folder(args.out)
    rows = [row for source in sources for row in source.rows]
    summary, gate = gather(rows), Gate()
    text = page(summary, gate, sources)
    for name, write in (("headroom.md", partial(Path.write_text, data=text, encoding="utf-8")),
                        ("headroom.csv", partial(Path.write_text, data=table(rows), encoding="utf-8")),
                        ("headroom.png", partial(draw, summary))):
        write_whole(args.out / name, write)
    print(text)
    passed = bool(summary) and all(holds for _, holds, _ in judge(summary, gate))
    print("the gate is", "passed" if passed else "not passed")


def _run(args: argparse.Namespace) -> Source:
    """Play and search what is missing; the rows that the options ask for."""
    for name, least in (("episodes", 1), ("budget", 1e-9), ("lever_budget", 0), ("processes", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name):g}: give at least {max(least, 1):g}")
    files = by_name(args.scenarios, "--scenarios")
    make_folder(args.out)
    made_by = {"budget": args.budget, "lever_budget": args.lever_budget, "set": args.overrides}
    store = Store(args.out / "rows.jsonl", made_by)
    todo = list(missing(files, args, store.rows))
    with tqdm(total=len(todo), unit="job", leave=False, dynamic_ncols=True, disable=args.quiet) as bar:
        for job, found in done(todo, args.processes):
            store.add(found)
            bar.set_description_str(job.scenario, refresh=False)
            bar.update()
    wanted = range(args.seed, args.seed + args.episodes)
    return Source(made_by, [row for row in store.rows if row["scenario"] in files and row["seed"] in wanted])


def missing(files: dict[str, str], args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> Iterator[Job]:
    """The jobs whose rows are not there: searches first, which take longest."""
    seeds = range(args.seed, args.seed + args.episodes)
    there = {(row["scenario"], row["kind"], row["name"], row["seed"]) for row in rows}
    common = (tuple(args.overrides),)
    for seed in seeds:
        for scenario, path in files.items():
            if (scenario, HINDSIGHT, "hindsight", seed) not in there:
                yield Job(scenario, path, *common, None, HINDSIGHT, (seed,), args.budget, args.lever_budget)
    for scenario, path in files.items():
        for kind, name in policies(path, args.overrides):
            left = tuple(seed for seed in seeds if (scenario, kind, name, seed) not in there)
            if left:
                yield Job(scenario, path, *common, name, kind, left, args.budget, args.lever_budget)


def done(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, list[dict[str, Any]]]]:
    """The rows of every job, as soon as they are there."""
    if processes == 1 or len(jobs) < 2:
        yield from ((job, rows(job)) for job in jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[list[dict[str, Any]]], Job] = {pool.submit(rows, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


command = commands.Command(PROGRAM, __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
