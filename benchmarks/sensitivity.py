"""Do the prices decide who wins? `python -m kvroam.benchmarks.sensitivity --out docs` halves and doubles each of them.

Every policy plays once per scenario, its amounts are kept, and then priced anew. Policies that decide by the prices
(greedy-planner, foresight) play at the shipped ones, unless `--replan` names them: they then play again at each change.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kvroam import commands
from kvroam.benchmarks.playing import totals
from kvroam.benchmarks.repricing import Played, Ranking, changes, rank, summary
from kvroam.envs.handover.harm.charges import TableAmounts, prices_of
from kvroam.errors import ConfigError
from kvroam.evaluation.estimates import Ratio
from kvroam.evaluation.players import by_name
from kvroam.experiment import load_experiment
from kvroam.files import make_folder, write_whole

SCENARIOS = ("default", "rush_hour", "edge_box")
CONSTANTS = (
    "constant:medium=kv,bits=4", "constant:medium=kv,bits=4,when=early", "constant:medium=split,bits=4,when=early",
    "constant:medium=kv,bits=4,when=predicted,lead_s=1", "constant:medium=kv,bits=4,when=predicted,lead_s=3",
    "constant:medium=split,bits=4,when=predicted,lead_s=3", "constant:medium=kv,bits=4,when=predicted,lead_s=5",
    "constant:medium=kv,keep=0.5,bits=4,when=predicted,lead_s=3",
    "constant:medium=kv,keep=0.25,bits=4,when=predicted,lead_s=3,backfill=0.25",
    "constant:medium=kv,bits=4,when=predicted,lead_s=3,backfill=0.25,arrival=resume",
    "constant:medium=kv,keep=0.25,bits=4,when=predicted,lead_s=3,backfill=0.25,arrival=resume",
)
NAMED = ("tho", "cho", "split", "deadline", "pre-copy", "post-copy", "ctho", "ctho-int4", "jmsra", "jmsra-int4",
         "pallas", "pallas-int4", "token-aware", "token-aware-0.5", "greedy-planner", "foresight")
BEGIN, END = "<!-- made by python -m kvroam.benchmarks.sensitivity: begin -->", "<!-- end -->"
TOP = 5
BOUND = "foresight"


def play(policy: str, config: Any, seeds: Sequence[int], charged: Any = None) -> Played:
    """What a policy causes.

    Args:
        policy: as evaluate.py takes it.
        config: of the environment.
        seeds: of the episodes, all side by side.
        charged: the configuration that the policy is told, where its prices are others.
    """
    return Played(*totals(policy, config, seeds, TableAmounts(config, len(seeds)), charged))


def repriced(config: Any, price: str, factor: float) -> Any:
    """The configuration with one price multiplied."""
    return replace(config, reward=replace(config.reward, **{price: factor * getattr(config.reward, price)}))


def page(rankings: Sequence[Ranking], count: int, seeds: range, replanned: Sequence[str], command: str) -> str:
    """The Markdown of it, without a title."""
    told = (f"{', '.join(f'`{name}`' for name in replanned)} played again at every change, told the new prices."
            if replanned else "No policy played again: `greedy-planner` and `foresight` decide by the shipped prices "
                              "throughout, and would lose less if they were told.")
    lines = [
        f"Made by `{command}`: {count} policies, {len(seeds)} episodes per scenario, each of them played once and "
        f"priced anew by avoidable cost. {told}", "",
        "*Winner lost*: how much more who wins at the shipped prices costs than who wins at the changed ones, at most. "
        "*tau* is Kendall's rank correlation with the ranking at the shipped prices: 1 is the same order, 0 none.", "",
        "| price halved or doubled | least tau | another policy wins | winner lost |", "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {row['tau']:.2f} | {row['changed']} of {row['rankings']} | {max(0.0, row['lost']):.1%} |"
          for name, row in summary(rankings).items()), "",
        *((_competitors(rankings), "") if BOUND in rankings[0].costs else ()),
        "At the shipped prices:", "", f"| scenario | the first {TOP}, cheapest first | the second over the first |",
        "| --- | --- | ---: |",
        *(f"| {one.scenario} | {_top(one)} | {_shown(one.margin)} |" for one in rankings if not one.price), "",
        "Where another policy wins:", "", "| scenario | price | winner | the winner at the shipped prices over it |",
        "| --- | --- | --- | ---: |",
    ]
    first = {one.scenario: one.order[0] for one in rankings if not one.price}
    moved = [one for one in rankings if one.order[0] != first[one.scenario]]
    lines += [f"| {one.scenario} | {one.price} x {one.factor:g} | {_short(one.order[0])} | {_shown(one.kept)} |"
              for one in moved] or ["| nowhere | | | |"]
    return "\n".join(lines) + "\n\nEvery ranking is in [prices.csv](prices.csv).\n"


def _competitors(rankings: Sequence[Ranking]) -> str:
    """Who wins when the perfect predictor does not count."""
    pairs = [[(cost, name) for name, cost in one.costs.items() if name != BOUND][:2] for one in rankings]
    shipped = {one.scenario: pair[0][1] for one, pair in zip(rankings, pairs, strict=True) if not one.price}
    moved = sum(pair[0][1] != shipped[one.scenario] for one, pair in zip(rankings, pairs, strict=True))
    winners = ", ".join(_short(name) for name in dict.fromkeys(shipped.values()))
    least = min(pair[1][0] / pair[0][0] for pair in pairs)
    return (f"`{BOUND}` has a perfect predictor and is no competitor. Without it the winners at the shipped prices are "
            f"{winners}; at changed prices another policy wins in {moved} of {len(rankings) - len(shipped)} rankings, "
            f"and the second costs at least {least:.2f} times what the first does.")


def _short(name: str) -> str:
    return f"`{name.removeprefix('constant:')}`"


def _top(one: Ranking) -> str:
    return ", ".join(f"{_short(name)} {one.costs[name]:.3f}" for name in one.order[:TOP])


def _shown(found: Ratio) -> str:
    return f"{found.ratio:.3f}" + ("" if np.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]")


def table(rankings: Sequence[Ranking]) -> str:
    """All rankings as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["scenario", "price", "factor", "tau", "rank", "policy", "avoidable"])
    for one in rankings:
        for k, (name, cost) in enumerate(one.costs.items(), 1):
            writer.writerow([one.scenario, one.price, f"{one.factor:g}", f"{one.tau:.4f}", k, name, f"{cost:.6g}"])
    return out.getvalue()


def insert(text: str, path: Path) -> str:
    """The page at `path` with its generated part replaced; a new one where there is none.

    Raises:
        ConfigError: the page has no such part.
    """
    part = f"{BEGIN}\n\n{text}\n{END}\n"
    if not path.exists():
        return f"# Prices\n\n{part}"
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"{str(path)!r} has no lines {BEGIN!r} and {END!r}: add them, or give another --out")
    return before + part + after.removeprefix("\n")


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    commands.add_scenarios(parser, SCENARIOS)
    parser.add_argument("--policies", nargs="+", default=[*CONSTANTS, *NAMED], metavar="NAME",
                        help="as evaluate.py takes them (default: some constant plans and the named ones)")
    parser.add_argument("--replan", nargs="+", default=[], metavar="NAME",
                        help="policies that play again at every change, told the prices (default: none)")
    commands.add_episodes(parser, 16, 7000)
    commands.add_out(parser, "runs/prices", "prices.md and prices.csv")


def execute(args: argparse.Namespace) -> None:
    """Play, price anew, and write the page and the table."""
    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}: at least 1 is needed")
    if len(set(args.policies)) < 2:
        raise ConfigError("--policies needs at least two different ones to rank")
    if stranger := set(args.replan) - set(args.policies):
        raise ConfigError(f"--replan names {', '.join(sorted(stranger))}: name it in --policies too")
    make_folder(args.out)
    seeds, rankings = range(args.seed, args.seed + args.episodes), []
    for scenario, path in by_name(args.scenarios, "--scenarios").items():
        config = load_experiment(path, ["scoring.mode=none", *args.overrides]).environment
        shown = partial(tqdm, desc=scenario, leave=False, dynamic_ncols=True, disable=args.quiet)
        played = {name: play(name, config, seeds) for name in shown(dict.fromkeys(args.policies))}
        prices = prices_of(config)
        rankings.append(rank(scenario, played, prices))
        for price, factor in shown(list(changes(prices))):
            told = repriced(config, price, factor)
            again = {name: play(name, config, seeds, told) for name in args.replan}
            rankings.append(rank(scenario, played, prices, price, factor, again))
    line = f"python -m kvroam.benchmarks.sensitivity --episodes {args.episodes} --seed {args.seed}"
    for option, usual in (("scenarios", list(SCENARIOS)), ("policies", [*CONSTANTS, *NAMED]), ("replan", [])):
        if (given := getattr(args, option)) != usual:
            line += f" --{option} {' '.join(given)}"
    line += commands.settings_of(args.overrides)
    text = page(rankings, len(set(args.policies)), seeds, args.replan, line)
    whole = insert(text, args.out / "prices.md")
    write_whole(args.out / "prices.md", partial(Path.write_text, data=whole, encoding="utf-8"))
    write_whole(args.out / "prices.csv", partial(Path.write_text, data=table(rankings), encoding="utf-8"))
    print(text)


command = commands.Command("python -m kvroam.benchmarks.sensitivity", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
