"""What does each part of the training bring? `python -m kvroam.benchmarks.ablations --out docs` trains without each.

Every training has the same budget and plays the same held-out episodes; results are ratios to the training with
everything. A killed run goes on where it was when it is started again with the same options: trainings are resumed,
and what was played is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kvroam import commands
from kvroam.benchmarks.ablations_page import page, table
from kvroam.benchmarks.headroom.store import Store
from kvroam.benchmarks.playing import outcomes
from kvroam.errors import ConfigError
from kvroam.evaluation.players import by_name
from kvroam.experiment import Experiment, load_experiment
from kvroam.files import make_folder, write_whole

PROGRAM = "python -m kvroam.benchmarks.ablations"
FULL = "full"
HELD_OUT = ("held_out_city", "held_out_edge_box", "held_out_long_context", "held_out_rush_hour", "held_out_starved")


@dataclass(frozen=True)
class Variant:
    """One training.

    Args:
        says: what is missing, in a sentence.
        actions: KEY=VALUE of the environments, in training and when it is evaluated.
        train: KEY=VALUE of the training.
        one_world: trained in one world only.
        beside: the variant that it is compared with.
        planner: it makes sense for `train.algorithm: evolution`, too, which learns the numbers of the planner.
    """

    says: str
    actions: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    one_world: bool = False
    beside: str = FULL
    planner: bool = False


_ALONE = ("train.imitate=null", "train.critic_first=0")
VARIANTS = {
    FULL: Variant("Nothing is missing.", planner=True),
    "no lead time": Variant("Nothing is prepared before the handover.", ("actions.prepare=false",), planner=True),
    "no compression": Variant("Caches are sent whole, at 16 bit.", ("actions.keep=[1.0]", "actions.bits=[16]"),
                              planner=True),
    "no shares": Variant("Every transfer has the same share of a link; the rest of a cache gets as much, or nothing.",
                         ("actions.weight=[1.0]", "actions.backfill=[0.0,1.0]")),
    "no backfill": Variant("The rest of a cache never follows.", ("actions.backfill=[0.0]",), planner=True),
    "no prefix": Variant("A split is always balanced.", ("actions.prefix=[]",)),
    "no mask": Variant("Choices that can have no effect stay open.", train=("train.algorithm=ppo",)),
    "no credit": Variant("Costs are charged to who suffers them, not to whose decision they follow from.",
                         train=("train.credit=false",)),
    "no imitation": Variant("It begins from scratch.", train=_ALONE),
    "imitation alone": Variant("It imitates and never learns by itself.", train=("train.algorithm=bc",)),
    "one world": Variant("It begins from scratch, and is trained in one world.", train=_ALONE, one_world=True),
    "no decision points": Variant("As *one world*, and it decides in every interval.",
                                  train=(*_ALONE, "train.decisions=false"), one_world=True, beside="one world"),
}


@dataclass(frozen=True)
class Plan:
    """What is trained: the experiment, the budget, and what else rows depend on."""

    config: str
    steps: int
    world: str
    overrides: tuple[str, ...]

    def experiment(self, name: str, seed: int) -> Experiment[Any]:
        """The experiment of a variant."""
        variant = VARIANTS[name]
        full = load_experiment(self.config, self.overrides).train
        worlds = full.worlds
        if variant.one_world and worlds:
            # As many environments in one world as there were in all of them.
            worlds = (self.world,)
        envs = full.num_envs * max(1, len(full.worlds)) // max(1, len(worlds))
        named = [" ".join([world, *variant.actions]) for world in worlds]
        found = load_experiment(self.config, [*self.overrides, *variant.train, *variant.actions,
                                              f"train.worlds={json.dumps(named)}", f"train.num_envs={envs}"])
        # The curve is drawn four times on the way, so that a policy that becomes worse is not taken at its end.
        every = max(1, self.steps // 4)
        return replace(found, train=replace(found.train, total_steps=self.steps, seed=seed, evaluate_every=every,
                                            checkpoint_every=every))

    def played_in(self, name: str, path: str) -> Experiment[Any]:
        """The held-out scenario in which a variant is evaluated: with its own actions, harm from the table."""
        return load_experiment(path, ["scoring.mode=table", *self.overrides, *VARIANTS[name].actions])


def possible(plan: Plan) -> list[str]:
    """The variants that make sense: without imitation there is none to leave out, and a planner has no network."""
    options = load_experiment(plan.config, plan.overrides).train
    if options.algorithm == "evolution":
        return [name for name, variant in VARIANTS.items() if variant.planner]
    return [name for name in VARIANTS
            if options.imitate is not None or name not in ("no imitation", "imitation alone")]


def trained(experiment: Experiment[Any], folder: Path, quiet: bool) -> None:
    """Train into a folder, or go on, or do nothing where it is done.

    Raises:
        ConfigError: the folder holds another experiment.
        KvroamError: what `train` raises.
    """
    from kvroam.train import train
    from kvroam.training import checkpoints, evolution
    from kvroam.training import folder as run

    there = (folder / checkpoints.POLICY).is_file()
    begun, history = (folder / checkpoints.STATE).is_file(), folder / evolution.HISTORY
    if experiment.train.algorithm == "evolution" and there:
        begun = len(json.loads(history.read_text(encoding="utf-8"))) < experiment.train.generations
    if begun or there:
        if run.configuration(folder) != experiment:
            raise ConfigError(f"{str(folder)!r} holds a training of other settings: give another --runs, or delete it")
        if not begun:
            return
    train(experiment, folder, quiet, resume=begun, overwrite=not begun)


def rows(plan: Plan, name: str, policy: str, seed: int, scenario: str, path: str,
         seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Play held-out episodes: one row for each."""
    found = outcomes(policy, plan.played_in(name if name in VARIANTS else FULL, path), seeds)
    for episode, metrics in zip(seeds, found, strict=True):
        yield {"variant": name, "train_seed": seed, "scenario": scenario, "seed": episode,
               "avoidable_cost": metrics["avoidable_cost"], "cost": metrics["cost"]}


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--config", default="roamer_ppo", metavar="NAME",
                        help="the experiment: YAML file or shipped name (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1_000_000,
                        help="budget of each training: decisions, or intervals of a UE; evolution has "
                             "train.generations instead (default: %(default)s)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help=f"among {', '.join(VARIANTS)} (default: all)")
    parser.add_argument("--train-seeds", nargs="+", type=int, default=[0], metavar="N",
                        help="one training of each variant for each of them (default: 0)")
    parser.add_argument("--world", default="mix", metavar="NAME",
                        help="where a training in one world takes place (default: %(default)s)")
    commands.add_scenarios(parser, HELD_OUT, "the held-out ones")
    parser.add_argument("--rivals", nargs="*", default=["greedy-planner"], metavar="NAME",
                        help="policies that play the same episodes (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), metavar="FOLDER",
                        help="folder for the trainings, and for the rows so far (default: %(default)s)")
    commands.add_episodes(parser, 32, 8000)
    commands.add_out(parser, "runs/ablations", "ablations.md and ablations.csv")


def execute(args: argparse.Namespace) -> None:
    """Train and play what is missing, then write the page and the table."""
    for name in ("episodes", "steps"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} is {getattr(args, name)}: at least 1 is needed")
    plan = Plan(args.config, args.steps, args.world, tuple(args.overrides))
    names = args.variants or possible(plan)
    if stranger := set(names) - set(VARIANTS):
        raise ConfigError(f"--variants names {', '.join(sorted(stranger))}: choose among {', '.join(VARIANTS)}")
    names = list(dict.fromkeys([FULL, *names, *(VARIANTS[name].beside for name in names)]))
    files, seeds = by_name(args.scenarios, "--scenarios"), range(args.seed, args.seed + args.episodes)
    make_folder(args.runs)
    make_folder(args.out)
    store = Store(args.runs / "rows.jsonl", {"config": args.config, "steps": args.steps, "world": args.world,
                                             "set": args.overrides})
    jobs = [(name, seed) for seed in args.train_seeds for name in names] + [(name, 0) for name in args.rivals]
    with tqdm(total=len(jobs), unit="policy", leave=False, dynamic_ncols=True, disable=args.quiet) as bar:
        for name, seed in jobs:
            bar.set_description_str(name)
            policy = name
            if name in VARIANTS:
                folder = args.runs / f"{name.replace(' ', '-')}-{seed}"
                trained(plan.experiment(name, seed), folder, True)
                policy = str(folder)
            for scenario, path in files.items():
                left = [one for one in seeds if not _there(store.rows, name, seed, scenario, one)]
                if left:
                    store.add(rows(plan, name, policy, seed, scenario, path, left))
            bar.update()
    wanted = [row for row in store.rows if (row["variant"], row["train_seed"]) in jobs and row["scenario"] in files
              and row["seed"] in seeds]
    options = plan.experiment(FULL, 0).train
    budget = f"{args.steps:,} decisions of one user"
    if options.algorithm == "evolution":
        budget = f"{options.generations} generations of {options.population} candidates"
    text = page(wanted, {name: VARIANTS[name] for name in names}, budget, _command(args), args)
    for suffix, content in (("md", text), ("csv", table(wanted))):
        write_whole(args.out / f"ablations.{suffix}", partial(Path.write_text, data=content, encoding="utf-8"))
    print(text)


def _there(found: Sequence[dict[str, Any]], *key: Any) -> bool:
    return any((row["variant"], row["train_seed"], row["scenario"], row["seed"]) == key for row in found)


def _command(args: argparse.Namespace) -> str:
    """The command that makes the same page again."""
    line = f"{PROGRAM} --config {args.config} --steps {args.steps} --episodes {args.episodes} --seed {args.seed}"
    for option, usual in (("train_seeds", [0]), ("variants", None), ("scenarios", list(HELD_OUT)),
                          ("rivals", ["greedy-planner"])):
        if (given := getattr(args, option)) != usual:
            shown = " ".join(f"'{one}'" if " " in str(one) else str(one) for one in given)
            line += f" --{option.replace('_', '-')} {shown}"
    return line + commands.settings_of(args.overrides)


command = commands.Command(PROGRAM, __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
