"""Do choices matter? `python -m kvroam.evaluation.plans --out docs/plans` plays every constant plan in every scenario.

They matter if different plans win in different scenarios, and if taking one plan everywhere costs something.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import commands
from ..agents.handover.constant import ConstantPlan
from ..envs.base.make import make_core
from ..errors import ConfigError
from ..experiment import GRID, Experiment, load_experiment, scenarios
from ..files import make_folder, write_whole
from .metrics import metric, metrics_of
from .players import by_name
from .report import difference, scenario_table, summarise
from .results import by_metric
from .rollout import episodes


def constant_plans() -> list[ConstantPlan]:
    """Every constant plan that is played: media, keep ratios and precisions at every moment; and, where the rest of a
    cache may follow or tokens be forwarded, the settings that say so."""
    moments: list[dict[str, Any]] = [{"when": "early"}, {"when": "at"}, {"when": "after"}]
    predicted: list[dict[str, Any]] = [{"when": "predicted", "lead_s": lead_s} for lead_s in (1.0, 3.0, 5.0)]
    arrivals: list[dict[str, Any]] = [{"backfill": 0.25, "arrival": "resume"}, {"arrival": "forward"}]
    plans = [ConstantPlan("detour")]
    for moment in (*moments, *predicted):
        plans.append(ConstantPlan("token", **moment))
        plans += [ConstantPlan(medium, keep, bits, **moment) for medium, keep, bits
                  in itertools.product(("kv", "split"), (1.0, 0.5, 0.25), (16, 4))]
    for moment in ({"when": "early"}, *predicted):
        plans += [ConstantPlan(medium, keep, 4, backfill=0.25, **moment) for medium, keep
                  in itertools.product(("kv", "split"), (0.5, 0.25, 0.1))]
        plans += [ConstantPlan(medium, keep, 4, **arrival, **moment) for medium, keep, arrival
                  in itertools.product(("kv", "split"), (1.0, 0.25), arrivals)]
    return plans


def costs(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean cost of each plan in each scenario: {scenario: {plan: cost}}."""
    return {scenario: {name: policy["summary"]["cost"]["mean"] for name, policy in part["policies"].items()}
            for scenario, part in results["by_scenario"].items()}


def verdict(found: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, str], str, float]:
    """The winner of each scenario, the best single plan, and how much more it costs than the winners on average."""
    winners = {scenario: min(plans, key=plans.__getitem__) for scenario, plans in found.items()}
    plans = next(iter(found.values()))
    excess = {plan: sum(found[s][plan] / found[s][winners[s]] - 1.0 for s in found) / len(found) for plan in plans}
    single = min(excess, key=excess.__getitem__)
    return winners, single, excess[single]


class SideBySide:
    """Several policies in one core: the first acts in the first `count` environments, and so on."""

    def __init__(self, policies: Sequence[Any], count: int) -> None:
        self.policies, self.count = policies, count

    def reset(self, view: Any) -> None:
        """A new episode begins everywhere."""
        for policy in self.policies:
            policy.reset(view)

    def act(self, view: Any) -> np.ndarray:
        """Plans for the coming decision interval, PLAN [E, U]."""
        return np.concatenate([policy.act(view)[i * self.count:(i + 1) * self.count]
                               for i, policy in enumerate(self.policies)])


def play(experiment: Experiment[Any], plans: Sequence[ConstantPlan], seeds: Sequence[int],
         tick: Callable[[], object]) -> dict[str, Any]:
    """Every plan on every seed, all side by side in one core: the more sessions share a forward pass, the cheaper.

    Returns:
        `policies.NAME.episodes.METRIC`, `policies.NAME.summary.METRIC` and `seeds`, as `evaluate` has them.
    """
    core = make_core(experiment.environment, len(plans) * len(seeds))
    outcomes: list[dict[str, float]] = []
    for found in episodes(core, SideBySide(plans, len(seeds)), [*seeds] * len(plans), experiment.evaluate):
        if found is None:
            tick()
        else:
            outcomes = found
    policies = {}
    for i, plan in enumerate(plans):
        mine = by_metric(outcomes[i * len(seeds):(i + 1) * len(seeds)])
        policies[plan.name] = {"episodes": mine, "summary": summarise(mine)}
    return {"policies": policies, "seeds": list(seeds)}


def page(results: Mapping[str, Any], command: str) -> str:
    """The Markdown page: verdict first, then the cost of every plan in every scenario."""
    winners, single, excess = verdict(costs(results))
    distinct = len(set(winners.values()))
    episodes = len(next(iter(results["by_scenario"].values()))["seeds"])
    lines = [
        "# Constant plans", "", f"Made by `{command}`: {len(results['policies'])} plans, {episodes} episodes per "
        "scenario, the same worlds for all of them.", "",
        f"* {distinct} different plans win somewhere.",
        f"* The best single plan over the grid, `{single}`, costs {100 * excess:.0f} % more than the winner of each "
        "scenario, on average.", "",
        "| scenario | winner | its cost | the best single plan's | more, episode by episode [95 % interval] |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    table, cost = costs(results), metric("cost", metrics_of(results))
    for s, part in results["by_scenario"].items():
        of = {name: policy["episodes"]["cost"] for name, policy in part["policies"].items()}
        more = "-" if single == winners[s] else difference(of[single], of[winners[s]], cost)
        lines.append(f"| {s} | {winners[s]} | {table[s][winners[s]]:.3f} | {table[s][single]:.3f} | {more} |")
    return "\n".join([*lines, "", "## Every plan\n", scenario_table(results)])


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--scenarios", nargs="+", default=scenarios(GRID), metavar="NAME",
                        help="shipped names, YAML files or NAME=FILE (default: the grid)")
    parser.add_argument("--episodes", type=int, default=4, help="per plan and scenario (default: %(default)s)")
    commands.add_seed(parser, 500)
    commands.add_out(parser, "runs/plans", "plans.md")
    commands.add_set(parser)
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Play, and write the page."""
    files = by_name(args.scenarios, "--scenarios")
    if len(files) < 2:
        raise ConfigError("--scenarios needs at least two different ones to compare")
    experiments = {name: load_experiment(path, args.overrides) for name, path in files.items()}
    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}: at least 1 is needed")
    plans, seeds = constant_plans(), range(args.seed, args.seed + args.episodes)
    total, found = sum(one.environment.max_steps for one in experiments.values()), {}
    with tqdm(total=total, unit="step", leave=False, dynamic_ncols=True, disable=args.quiet) as bar:
        for name, experiment in experiments.items():
            bar.set_description_str(name)
            found[name] = play(experiment, plans, seeds, bar.update)
    results = {"by_scenario": found, "policies": next(iter(found.values()))["policies"]}
    line = (f"python -m kvroam.evaluation.plans --episodes {args.episodes} --seed {args.seed}"
            f"{commands.settings_of(args.overrides)}")
    text = page(results, line)
    make_folder(args.out)
    write_whole(args.out / "plans.md", partial(Path.write_text, data=text, encoding="utf-8"))
    print(text)


command = commands.Command("python -m kvroam.evaluation.plans", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
