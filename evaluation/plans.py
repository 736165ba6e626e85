"""Do choices matter? `python -m kvroam.evaluation.plans --out docs/plans` plays every constant plan in every scenario.

They matter if different plans win in different scenarios, and if whoever must take one plan everywhere pays for it.
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

from kvroam.agents.handover.constant import ConstantPlan
from kvroam.configs import GRID
from kvroam.envs.handover.config import Experiment
from kvroam.errors import ConfigError, run_command
from kvroam.files import write_whole
from kvroam.settings.loader import load


def constant_plans() -> list[ConstantPlan]:
    """Every constant plan: media, keep ratios and precisions of the default action, and the three moments."""
    plans = [ConstantPlan("detour")]
    for when in ("early", "at", "after"):
        plans.append(ConstantPlan("token", when=when))
        plans += [ConstantPlan(medium, keep, bits, when) for medium, keep, bits
                  in itertools.product(("kv", "split"), (1.0, 0.5, 0.25), (16, 8, 4))]
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


def play(config: Experiment, plans: Sequence[ConstantPlan], seeds: Sequence[int],
         tick: Callable[[], object]) -> dict[str, Any]:
    """Every plan on every seed, all side by side in one core: the more sessions share a forward pass, the cheaper.

    Returns:
        `policies.NAME.episodes.METRIC`, `policies.NAME.summary.METRIC` and `seeds`, as `evaluate` has them.
    """
    import torch

    from kvroam.envs import make_core
    from kvroam.evaluation.report import summarise

    torch.set_num_threads(1)
    core = make_core(config, len(plans) * len(seeds))
    core.reset([*seeds] * len(plans))
    goals = config.evaluate
    meter = core.task.meter(**goals.objectives)
    for _ in range(config.max_steps):
        core.step(np.concatenate([plan.act(core.view)[i * len(seeds):(i + 1) * len(seeds)]
                                  for i, plan in enumerate(plans)]))
        meter.add(core)
        tick()
    outcomes = [meter.result(e) for e in range(core.num_envs)]
    policies = {}
    for i, plan in enumerate(plans):
        mine = outcomes[i * len(seeds):(i + 1) * len(seeds)]
        episodes = {metric: [outcome[metric] for outcome in mine] for metric in mine[0]}
        policies[plan.name] = {"episodes": episodes, "summary": summarise(episodes)}
    return {"policies": policies, "seeds": list(seeds)}


def page(results: Mapping[str, Any], command: str) -> str:
    """The Markdown page: verdict first, then the cost of every plan in every scenario."""
    from kvroam.evaluation.report import scenario_table

    winners, single, excess = verdict(costs(results))
    distinct = len(set(winners.values()))
    episodes = len(next(iter(results["by_scenario"].values()))["seeds"])
    lines = [
        "# Constant plans", "", f"Made by `{command}`: {len(results['policies'])} plans, {episodes} episodes per "
        "scenario, the same worlds for all of them.", "",
        f"* {distinct} different plans win somewhere.",
        f"* The best single plan over the grid, `{single}`, costs {100 * excess:.0f} % more than the winner of each "
        "scenario, on average.", "", "| scenario | winner | its cost | the best single plan's |",
        "| --- | --- | ---: | ---: |",
    ]
    table = costs(results)
    lines += [f"| {s} | {winners[s]} | {table[s][winners[s]]:.3f} | {table[s][single]:.3f} |" for s in table]
    return "\n".join([*lines, "", "## Every plan\n", scenario_table(results)])


def command(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m kvroam.evaluation.plans",
                                     description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenarios", nargs="+", default=list(GRID), help="names or YAML files (default: the grid)")
    parser.add_argument("--episodes", type=int, default=4, help="per plan and scenario (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=500)
    parser.add_argument("--out", default="runs/plans", help="folder for plans.md (default: %(default)s)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(arguments)
    if len(set(args.scenarios)) < 2:
        raise ConfigError("--scenarios needs at least two different ones to compare")
    configs = {Path(name).stem: load(Experiment, name, args.overrides) for name in args.scenarios}
    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}: at least 1 is needed")
    plans, seeds = constant_plans(), range(args.seed, args.seed + args.episodes)
    found = {}
    with tqdm(total=sum(c.max_steps for c in configs.values()), unit="step", leave=False, dynamic_ncols=True) as bar:
        for name, config in configs.items():
            bar.set_description_str(name)
            found[name] = play(config, plans, seeds, bar.update)
    results = {"by_scenario": found, "policies": next(iter(found.values()))["policies"]}
    changed = "".join(f" --set {override}" for override in args.overrides)
    line = f"python -m kvroam.evaluation.plans --episodes {args.episodes} --seed {args.seed}{changed}"
    text = page(results, line)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "plans.md", partial(Path.write_text, data=text, encoding="utf-8"))
    print(text)


if __name__ == "__main__":
    sys.exit(run_command("kvroam-plans", command))
