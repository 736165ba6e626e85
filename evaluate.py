"""Evaluate policies on the same users in the same city: tables, a JSON file, figures and a page.

    python evaluate.py --config configs/handover.yaml --policies cho ctho runs/ppo --episodes 32 --out runs/evaluate
    python evaluate.py --config grid --policies ctho first=runs/a/ppo second=runs/b/ppo --out runs/grid --workers 4
    python evaluate.py --policies ctho --episodes 1 --video ctho.gif --video-start 20 --video-seconds 6

Every policy sees exactly the same worlds: episode k has seed `seed + k`. With several configurations (`grid`: all
scenarios that ship) each of them gets that many episodes, and there is a table for each and one over all.

Finished episodes are kept in the folder of `--out`. An evaluation that was stopped goes on where it was when it is
started again; what has changed since (a setting, a checkpoint, kvroam itself) is played again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from kvroam import commands
from kvroam.evaluation import folder, leaderboard
from kvroam.evaluation.players import by_name, gather, run_folders
from kvroam.evaluation.report import terminal_table, write_results
from kvroam.evaluation.results import Progress, evaluate
from kvroam.evaluation.store import Store
from kvroam.experiment import Experiment, load_experiment, scenarios

__all__ = ["command", "evaluate", "main"]

OUT = "runs/evaluate"


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--config", nargs="+", default=["handover"], metavar="NAME",
                        help="YAML files, NAME=FILE, or shipped names; grid: all scenarios of Handover, "
                             "grid:TASK: of another task (default: handover)")
    parser.add_argument("--policies", nargs="+", metavar="NAME",
                        help="policy names, checkpoints, or NAME=CHECKPOINT (default: evaluate.policies)")
    parser.add_argument("--episodes", type=int, help="episodes per policy (default: evaluate.episodes)")
    commands.add_seed(parser, None, "seed of the first episode (default: evaluate.seed)")
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help="folder for results.json, table.md, report.html, the figures and the finished episodes "
                             f"(default: {OUT}, whatever is in it)")
    parser.add_argument("--fresh", action="store_true",
                        help="play all episodes anew, and replace the results of another evaluation")
    parser.add_argument("--workers", type=int, default=1, metavar="N",
                        help="processes side by side; the results are the same for any number (default: %(default)s)")
    commands.add_set(parser)
    parser.add_argument("--leaderboard", type=Path, metavar="FILE.json",
                        help="also put a row per scenario and policy into this file "
                             "(python -m kvroam.evaluation.leaderboard makes a page of it)")
    parser.add_argument("--video", type=Path, metavar="FILE",
                        help="then play the first episode again and film it: .gif, or .mp4 with imageio[ffmpeg]")
    parser.add_argument("--video-policy", metavar="NAME", help="who plays in it (default: the last of --policies)")
    parser.add_argument("--video-start", type=float, default=0.0, metavar="S",
                        help="time of the first frame [s] (default: %(default)s)")
    parser.add_argument("--video-seconds", type=float, metavar="S", help="length [s] (default: the whole episode)")
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Evaluate as the command line says."""
    files = by_name((name for given in args.config for name in scenarios(given)), "--config")
    experiments = {name: load_experiment(path, args.overrides) for name, path in files.items()}
    first = next(iter(experiments.values()))
    policies = list(args.policies or first.evaluate.policies)
    episodes = first.evaluate.episodes if args.episodes is None else args.episodes
    seed = first.evaluate.seed if args.seed is None else args.seed
    out = args.out or Path(OUT)
    folder.check_writable(out)
    players = gather(policies, first.environment, seed)
    if args.out is not None and not args.fresh:
        folder.check_same(out, experiments, players)
    if args.leaderboard is not None:
        leaderboard.read(args.leaderboard)
    film = prepare_film(args, first, policies, seed) if args.video else None

    store = Store(out, args.fresh, lambda line: print(line, flush=True))
    with progress_bar(args.quiet) as progress:
        results = evaluate(first if len(experiments) == 1 else experiments, policies, episodes, seed, progress,
                           args.workers, store)
    if len(experiments) == 1:
        results["scenario"] = next(iter(experiments))
    results["command"] = shlex.join(["python", "evaluate.py", *args.given])
    written = list(write_results(out, results, run_folders(players)).values())
    if args.leaderboard is not None:
        leaderboard.add(args.leaderboard, results)
        written.append(args.leaderboard)
    if film is not None:
        film()
        written.append(args.video)

    print(terminal_table(results))
    if results["scoring"] == "none":
        print("scoring: none, so drift and recall were not measured")
    print("written:", ", ".join(str(path) for path in written))


def prepare_film(args: argparse.Namespace, experiment: Experiment, policies: Sequence[str],
                 seed: int) -> Callable[[], None]:
    """Check everything about `--video` now, and return what writes it."""
    from kvroam.envs.render import video
    from kvroam.evaluation.film import film

    video.check_target(args.video)
    environment = experiment.environment
    first, last = video.frames_of(environment, args.video_start, args.video_seconds)
    players = gather(policies, environment, seed)
    name = args.video_policy or list(players)[-1]
    player = (players.get(name) or next(iter(gather([name], environment, seed).values()))).policy

    def write() -> None:
        frames = film(environment, player, seed, args.video_start, args.video_seconds)
        shown = tqdm(frames, total=last + 1 - first, unit="frame", disable=args.quiet, dynamic_ncols=True, leave=False)
        video.write(args.video, shown, 1.0 / environment.interval_s)

    return write


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A bar that appears with the first step, so that a refused argument prints its own line and nothing else."""
    bar: tqdm | None = None

    def show(name: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, unit="step", disable=quiet, dynamic_ncols=True, leave=False)
        bar.set_description_str(name, refresh=False)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


command = commands.Command("kvroam-evaluate", __doc__, options, execute)


def main() -> None:
    """Entry point of `kvroam-evaluate`."""
    sys.exit(command.main())


if __name__ == "__main__":
    main()
