"""What does a policy do? `python -m kvroam.benchmarks.behaviour --policy roamer --out docs` watches it and its rivals.

When a preparation begins, what is sent over which link, who is served first, what follows and what is wasted; and
at which changes of cell the policy pays less, or more, than the planner.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from kvroam import commands
from kvroam.benchmarks.behaviour.figures import figures
from kvroam.benchmarks.behaviour.page import page, table
from kvroam.benchmarks.behaviour.watch import Watch, watch
from kvroam.benchmarks.headroom.page import brief
from kvroam.errors import ConfigError
from kvroam.evaluation.players import by_name, gather, warn_of_training_seeds
from kvroam.experiment import GRID, load_experiment, scenarios
from kvroam.files import make_folder, write_whole

PROGRAM = "python -m kvroam.benchmarks.behaviour"
# The best single constant plan of the grid (docs/headroom.md).
CONSTANT = "constant:medium=split,keep=0.1,bits=4,when=predicted,lead_s=1,backfill=0.25"


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--policy", default="roamer", metavar="NAME",
                        help="that is watched, as evaluate.py takes it (default: %(default)s)")
    parser.add_argument("--against", default="greedy-planner", metavar="NAME",
                        help="what it is compared with (default: %(default)s)")
    parser.add_argument("--beside", nargs="*", default=[CONSTANT], metavar="NAME",
                        help="who is watched besides (default: the best single constant plan)")
    commands.add_scenarios(parser, scenarios(GRID), "the grid")
    commands.add_episodes(parser, 16, 7000)
    commands.add_out(parser, "runs/behaviour", "behaviour.md, .csv and four figures")


def execute(args: argparse.Namespace) -> None:
    """Play, and write the page, the table and the figures."""
    if args.episodes < 2:
        raise ConfigError(f"--episodes is {args.episodes}: at least 2 are needed, for an interval")
    make_folder(args.out)
    seeds = range(args.seed, args.seed + args.episodes)
    played: dict[str, dict[str, Watch]] = {}
    files = by_name(args.scenarios, "--scenarios")
    for scenario, path in tqdm(files.items(), unit="scenario", leave=False, dynamic_ncols=True, disable=args.quiet):
        experiment = load_experiment(path, ["scoring.mode=table", *args.overrides])
        if experiment.environment.actions.trigger != "a3":
            raise ConfigError(f"{scenario}: actions.trigger is {experiment.environment.actions.trigger}: changes of "
                              "cell must be the same whoever plays; set it to a3")
        players = gather([args.policy, args.against, *args.beside], experiment.environment, args.seed)
        warn_of_training_seeds(players, seeds)
        for name, player in players.items():
            played.setdefault(name, {})[scenario] = watch(player.policy, experiment, seeds)
    names = {name: _brief(name) for name in played}
    against = list(played)[1]
    text = page(played, names, against, _command(args))
    for name, write in (("behaviour.md", partial(Path.write_text, data=text, encoding="utf-8")),
                        ("behaviour.csv", partial(Path.write_text, data=table(played, against), encoding="utf-8")),
                        *figures(played, names, against).items()):
        write_whole(args.out / name, write)
    print(text)


def _brief(name: str) -> str:
    """How tables and figures call a policy: a constant plan by its own words."""
    return brief(name) if name.startswith("constant:") else name


def _command(args: argparse.Namespace) -> str:
    """The command that makes the same page again."""
    line = f"{PROGRAM} --policy {args.policy} --against {args.against}"
    for option, usual in (("beside", [CONSTANT]), ("scenarios", list(scenarios(GRID)))):
        if (given := getattr(args, option)) != usual:
            line += " ".join([f" --{option}", *given])
    return f"{line} --episodes {args.episodes} --seed {args.seed}" + commands.settings_of(args.overrides)


command = commands.Command(PROGRAM, __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
