"""Does a policy hold outside its training? `python -m kvroam.benchmarks.robustness --policies roamer --out docs`.

One thing at a time is changed in a scenario: the links, the model, the city, the speed, the number of users. Every
policy plays the same episodes, and pays so many times what the planner does. A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kvroam import agents, commands
from kvroam.benchmarks.headroom.page import brief, markdown, shown
from kvroam.benchmarks.headroom.store import Store
from kvroam.benchmarks.playing import outcomes
from kvroam.errors import ConfigError
from kvroam.evaluation.estimates import Ratio, mean, paired_ratio
from kvroam.evaluation.players import split_name
from kvroam.experiment import load_experiment
from kvroam.files import make_folder, write_whole
from kvroam.palette import COLOURS, SHAPES

PROGRAM = "python -m kvroam.benchmarks.robustness"
REFERENCE = "greedy-planner"
BASE = "as it is"
FACTORS = {"x 1/4": 0.25, "x 1/2": 0.5, "x 2": 2.0, "x 4": 4.0}
SPEEDS = {"x 1/2": 0.5, "x 1.5": 1.5, "x 2": 2.0, "x 3": 3.0}
MODELS = ("qwen2.5-7b", "llama-3-8b", "qwen3-32b")
CITIES = ("florence", "etoile", "san_francisco", "uma-06")
USERS = (4, 8, 32, 48, 64)


@dataclass(frozen=True)
class Case:
    """One change of the scenario.

    Args:
        axis: what is changed.
        level: to what.
        changes: KEY=VALUE.
    """

    axis: str
    level: str
    changes: tuple[str, ...]


def cases(config: Any) -> list[Case]:
    """The scenario as it is, and every change of it."""
    slow, fast = config.mobility.vehicle_speed_mps
    return [
        Case("scenario", BASE, ()),
        *(Case("link capacity", text, (f"backhaul.capacity_bps={factor * config.backhaul.capacity_bps!r}",))
          for text, factor in FACTORS.items()),
        *(Case("model", name, (f"serving.preset={name}",)) for name in MODELS if name != config.serving.preset),
        *(Case("city", name, (f"scene={name}",)) for name in CITIES if name != config.scene),
        *(Case("speed of vehicles", text, (f"mobility.vehicle_speed_mps=[{factor * slow!r},{factor * fast!r}]",))
          for text, factor in SPEEDS.items()),
        *(Case("users", str(count), (f"num_ues={count}",)) for count in USERS if count != config.num_ues),
    ]


def ratio(rows: Sequence[Mapping[str, Any]], case: tuple[str, str], policy: str, reference: str) -> Ratio:
    """What a policy pays over what the reference does in the same episodes of a case."""
    def costs(name: str) -> dict[int, float]:
        return {row["seed"]: row["avoidable_cost"] for row in rows
                if (row["axis"], row["level"]) == case and row["policy"] == name}

    mine, theirs = costs(policy), costs(reference)
    seeds = [seed for seed in theirs if seed in mine]
    return paired_ratio([mine[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def page(rows: Sequence[Mapping[str, Any]], policies: Sequence[str], reference: str, scenario: str, episodes: int,
         command: str) -> str:
    """The Markdown page."""
    levels = list(dict.fromkeys((row["axis"], row["level"]) for row in rows))
    found = {(case, name): ratio(rows, case, name, reference) for case in levels for name in policies}
    lines = []
    for case in levels:
        paid = mean([row["avoidable_cost"] for row in rows if (row["axis"], row["level"]) == case
                     and row["policy"] == reference])
        lines.append((*case, f"{paid:.3f}", *(shown(found[case, name]) for name in policies)))
    told = "".join(f"* {line}\n" for name in policies for line in reading(
        name, reference, {case: found[case, name] for case in levels}))
    return (
        "# Robustness\n\nDoes a policy hold outside of what it was made for, or trained in? One thing at a time is "
        f"changed in the scenario `{scenario}`, and every policy plays the same {episodes} episodes of each change.\n\n"
        "The numbers say how many times the **avoidable cost** of "
        f"`{brief(reference)}` a policy pays: the price of everything that it caused, less what the radio itself "
        "interrupts; harm to answers is taken from the measured table. In brackets, a 95 % interval over pairs of "
        "episodes. Below 1, the policy is cheaper.\n\n"
        f"## In short\n\n{told}\n![Cost over that of {brief(reference)}, change by change](robustness.png)\n\n"
        "## The numbers\n\n"
        + markdown(("changed", "to", f"cost of `{brief(reference)}`", *(f"`{brief(name)}`" for name in policies)),
                   lines, "l l r" + " r" * len(policies))
        + f"\nEvery episode is in [robustness.csv](robustness.csv).\n\n## How it was made\n\n```\n{command}\n```\n")


def reading(policy: str, reference: str, found: Mapping[tuple[str, str], Ratio]) -> list[str]:
    """Where a policy is cheaper than the reference, where it is dearer, and what its worst case is."""
    name, other = f"`{brief(policy)}`", f"`{brief(reference)}`"
    if all(one.ratio == 1.0 for one in found.values()):
        return [f"{name} pays exactly what {other} does, everywhere."]
    cheaper = [case for case, one in found.items() if one.high < 1.0]
    dearer = [case for case, one in found.items() if one.low > 1.0]
    known = {case: one for case, one in found.items() if not math.isnan(one.ratio)}
    lines = [f"{name} is cheaper than {other} in {len(cheaper)} of {len(found)} cases, dearer in {len(dearer)}, and "
             f"cannot be told apart in {len(found) - len(cheaper) - len(dearer)}."]
    if dearer:
        lines.append(f"{name} is dearer with {_listed(dearer)}.")
    if known:
        worst = max(known, key=lambda case: known[case].ratio)
        lines.append(f"The worst case of {name} is {_listed([worst])}: {shown(known[worst])} times {other}.")
    return lines


def _listed(given: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{axis} {level}" for axis, level in given)


def draw(rows: Sequence[Mapping[str, Any]], policies: Sequence[str], reference: str, path: Path) -> None:
    """Write the figure as PNG: a line per change, a mark and an interval per policy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels = list(dict.fromkeys((row["axis"], row["level"]) for row in rows))
    figure = Figure(figsize=(8.0, 1.6 + 0.32 * len(levels)), layout="constrained", dpi=140)
    FigureCanvasAgg(figure)
    axes, y = figure.subplots(), np.arange(len(levels))[::-1]
    for i, name in enumerate(policies):
        found = [ratio(rows, case, name, reference) for case in levels]
        at, colour = y + 0.3 * ((i + 0.5) / len(policies) - 0.5), COLOURS[i % len(COLOURS)]
        axes.hlines(at, [one.low for one in found], [one.high for one in found], color=colour, lw=1.5)
        axes.plot([one.ratio for one in found], at, SHAPES[i % len(SHAPES)], color=colour, ms=5, label=brief(name))
    axes.axvline(1.0, color="0.6", lw=1, zorder=0)
    axes.set(xscale="log", xlabel=f"avoidable cost, times that of {brief(reference)}; 95 % intervals")
    axes.set_yticks(y, [f"{axis}: {level}" for axis, level in levels], fontsize=8)
    axes.grid(alpha=0.3, axis="x", which="both")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", which="both", labelsize=8)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.savefig(path)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All episodes as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ("axis", "level", "policy", "seed", "avoidable_cost", "cost")
    writer.writerow(columns)
    writer.writerows([f"{row[key]:.6g}" if isinstance(row[key], float) else row[key] for key in columns]
                     for row in rows)
    return out.getvalue()


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--policies", nargs="+", default=["roamer", "deadline"], metavar="NAME",
                        help="as evaluate.py takes them, or NAME=POLICY (default: %(default)s)")
    parser.add_argument("--against", default=REFERENCE, metavar="NAME",
                        help="what they are compared with (default: %(default)s)")
    parser.add_argument("--scenario", default="default", metavar="NAME",
                        help="that is changed: a shipped name or YAML file (default: %(default)s)")
    parser.add_argument("--axes", nargs="+", metavar="AXIS",
                        help="what is changed, such as 'link capacity' or users (default: everything)")
    parser.add_argument("--levels", nargs="+", metavar="LEVEL", help="to what (default: every level)")
    parser.add_argument("--rows", type=Path, default=Path("runs/robustness/rows.jsonl"), metavar="FILE",
                        help="keeps what was played (default: %(default)s)")
    commands.add_episodes(parser, 32, 9000, "case")
    commands.add_out(parser, "runs/robustness", "robustness.md, .csv and .png")


def execute(args: argparse.Namespace) -> None:
    """Play what is missing, and write the page, the table and the figure."""
    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}: at least 1 is needed")
    overrides = ["scoring.mode=table", *args.overrides]
    every = cases(load_experiment(args.scenario, overrides).environment)
    for option, name in (("axes", "axis"), ("levels", "level")):
        known = [getattr(case, name) for case in every]
        if stranger := set(getattr(args, option) or ()) - set(known):
            raise ConfigError(f"--{option} names {', '.join(sorted(stranger))}: choose among "
                              f"{', '.join(dict.fromkeys(known))}")
    chosen = [case for case in every if case.axis in (args.axes or (case.axis,))
              and case.level in (args.levels or (case.level,))]
    make_folder(args.out)
    make_folder(args.rows.parent)
    store = Store(args.rows, {"scenario": args.scenario, "set": args.overrides})
    seeds = range(args.seed, args.seed + args.episodes)
    wanted: list[Mapping[str, Any]] = []
    given = [split_name(text) for text in (args.against, *args.policies)]
    names: list[str] = []
    for case in tqdm(chosen, unit="case", leave=False, dynamic_ncols=True, disable=args.quiet):
        experiment = load_experiment(args.scenario, [*overrides, *case.changes])
        names = []
        for name, text in given:
            player = agents.make(text, experiment.environment, args.seed)
            name = player.name if name is None else name
            if name in names:
                raise ConfigError(f"two policies are called {name!r}: tell them apart with NAME=POLICY")
            names.append(name)
            # A policy that was trained anew under the same name has other numbers.
            who = {"axis": case.axis, "level": case.level, "policy": name, "given": text,
                   "made": getattr(getattr(player, "about", None), "about_sha256", "")}
            there = {row["seed"]: row for row in store.rows if all(row[key] == who[key] for key in who)}
            left = [seed for seed in seeds if seed not in there]
            if left:
                found = outcomes(text, experiment, left)
                store.add([{**who, "seed": seed, "avoidable_cost": metrics["avoidable_cost"], "cost": metrics["cost"]}
                           for seed, metrics in zip(left, found, strict=True)])
                there |= {row["seed"]: row for row in store.rows[-len(left):]}
            wanted += [there[seed] for seed in seeds]
    text = page(wanted, names[1:], names[0], args.scenario, args.episodes, _command(args))
    for name, write in (("robustness.md", partial(Path.write_text, data=text, encoding="utf-8")),
                        ("robustness.csv", partial(Path.write_text, data=table(wanted), encoding="utf-8")),
                        ("robustness.png", partial(draw, wanted, names[1:], names[0]))):
        write_whole(args.out / name, write)
    print(text)


def _command(args: argparse.Namespace) -> str:
    """The command that makes the same page again."""
    line = " ".join([PROGRAM, "--policies", *args.policies, "--against", args.against, "--scenario", args.scenario])
    for option in ("axes", "levels"):
        if given := getattr(args, option):
            line += " ".join([f" --{option}", *(f"'{one}'" if " " in one else one for one in given)])
    return f"{line} --episodes {args.episodes} --seed {args.seed}" + commands.settings_of(args.overrides)


command = commands.Command(PROGRAM, __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
