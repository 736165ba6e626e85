"""What the rows say: who comes how near to hindsight, which lever matters where, and whether the gate is passed."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...envs.base.meter import ratio
from .jobs import CONSTANT, HINDSIGHT, LEVER, NAMED, PREDICTED
from ...evaluation.estimates import Ratio, paired_ratio


@dataclass(frozen=True)
class Gate:
    """What a world must show to be worth learning in.

    Args:
        avoidable: share of what the best constant plan costs that is avoidable, in every scenario.
        constant: avoidable cost of the best constant plan over that of hindsight, in every scenario.
        named: the same of the best named policy.
        lever: the same of hindsight without a lever, in some scenario, for every lever.
        winners: different constant plans that win somewhere.
    """

    avoidable: float = 0.5
    constant: float = 1.5
    named: float = 1.3
    lever: float = 1.05
    winners: int = 3


@dataclass(frozen=True)
class Scenario:
    """The rows of one scenario, by kind and name: avoidable cost of each episode, in the order of the seeds."""

    name: str
    seeds: tuple[int, ...]
    unavoidable: float  # mean over the episodes
    avoidable: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def hindsight(self) -> np.ndarray:
        """Of hindsight, [episodes]."""
        return self.avoidable[HINDSIGHT]["hindsight"]

    def best(self, kind: str) -> str:
        """The name with the lowest mean among those of a kind."""
        return min(self.avoidable[kind], key=lambda name: float(self.avoidable[kind][name].mean()))

    def over_hindsight(self, kind: str, name: str) -> Ratio:
        """Avoidable cost of a policy over hindsight's."""
        return paired_ratio(self.avoidable[kind][name], self.hindsight)

    def levers(self) -> dict[str, tuple[str, Ratio]]:
        """For every lever: the level that hindsight does best with when held to it, and what that costs over it."""
        held: dict[str, list[str]] = defaultdict(list)
        for name in self.avoidable.get(LEVER, ()):
            held[name.partition(": ")[0]].append(name)
        found = {}
        for lever, names in held.items():
            best = min(names, key=lambda name: float(self.avoidable[LEVER][name].mean()))
            found[lever] = best.partition(": ")[2], self.over_hindsight(LEVER, best)
        return found


def gather(rows: Sequence[Mapping[str, Any]]) -> list[Scenario]:
    """The scenarios in which hindsight was searched, with the episodes in which everybody has played."""
    by_scenario: dict[str, dict[tuple[str, str], dict[int, Mapping[str, Any]]]] = {}
    for row in rows:
        by_scenario.setdefault(row["scenario"], {}).setdefault((row["kind"], row["name"]), {})[row["seed"]] = row
    found = []
    for name, players in by_scenario.items():
        if (HINDSIGHT, "hindsight") not in players:
            continue
        seeds = tuple(sorted(set.intersection(*(set(played) for played in players.values()))))
        avoidable: dict[str, dict[str, np.ndarray]] = {}
        for (kind, player), played in players.items():
            avoidable.setdefault(kind, {})[player] = np.array(
                [played[seed]["cost"] - played[seed]["unavoidable"] for seed in seeds])
        floor = [players[HINDSIGHT, "hindsight"][seed]["unavoidable"] for seed in seeds]
        if seeds:
            found.append(Scenario(name, seeds, float(np.mean(floor)), avoidable))
    return found


def judge(scenarios: Sequence[Scenario], gate: Gate) -> list[tuple[str, bool, str]]:
    """The gate's conditions: (condition, whether it holds, what was found)."""
    share, constant, named = {}, {}, {}
    for one in scenarios:
        best = one.best(CONSTANT)
        paid = float(one.avoidable[CONSTANT][best].mean())
        share[one.name] = ratio(paid, paid + one.unavoidable)
        constant[one.name] = one.over_hindsight(CONSTANT, best).ratio
        named[one.name] = one.over_hindsight(NAMED, one.best(NAMED)).ratio
    levers: dict[str, dict[str, Ratio]] = defaultdict(dict)
    for one in scenarios:
        for lever, (_, over) in one.levers().items():
            levers[lever][one.name] = over
    winners = {one.best(CONSTANT) for one in scenarios}
    result = [
        _least("avoidable share of the best constant plan's cost", share, gate.avoidable),
        _least("best constant plan / hindsight", constant, gate.constant),
        _least("best named policy / hindsight", named, gate.named),
    ]
    for lever, ratios in levers.items():
        where = max(ratios, key=lambda name: np.nan_to_num(ratios[name].ratio, nan=-np.inf))
        most = ratios[where]
        holds = most.ratio >= gate.lever and most.low > 1.0
        result.append((f"hindsight with {lever} / hindsight is at least {gate.lever:g} somewhere", holds,
                       f"{shown(most)} in {where}"))
    result.append((f"at least {gate.winners} different constant plans win", len(winners) >= gate.winners,
                   f"{len(winners)}: {', '.join(sorted(winners))}"))
    return result


def _least(what: str, values: Mapping[str, float], limit: float) -> tuple[str, bool, str]:
    where = min(values, key=lambda name: np.nan_to_num(values[name], nan=-np.inf))
    return f"{what} is at least {limit:g} everywhere", values[where] >= limit, f"least {values[where]:.2f} in {where}"


def shown(found: Ratio) -> str:
    """`1.83 [1.60, 2.10]`."""
    return f"{found.ratio:.2f}" + ("" if np.isnan(found.low) else f" [{found.low:.2f}, {found.high:.2f}]")


def page(scenarios: Sequence[Scenario], gate: Gate, command: str) -> str:
    """The Markdown page: the gate, the rivals, the levers, and every policy."""
    if not scenarios:
        return "# Headroom\n\nNo scenario has been searched yet.\n"
    lines = ["# Headroom", "", f"Made by `{command}`: {len(scenarios[0].seeds)} episodes per scenario. Costs are means "
             "per user and episode; *unavoidable* is what no policy can avoid, *avoidable* the rest. Ratios are of "
             "avoidable costs over hindsight's, with 95 % intervals over the episodes.", "",
             "| the gate | passed | found |", "| --- | --- | --- |"]
    lines += [f"| {what} | {'yes' if holds else '**no**'} | {found} |" for what, holds, found in judge(scenarios, gate)]
    lines += ["", "| scenario | unavoidable | hindsight | best constant plan | / hindsight | best named policy | "
              "/ hindsight | perfect predictor / hindsight |", "| --- | ---: | ---: | --- | ---: | --- | ---: | ---: |"]
    for one in scenarios:
        constant, named = one.best(CONSTANT), one.best(NAMED)
        predicted = one.over_hindsight(PREDICTED, "foresight") if PREDICTED in one.avoidable else None
        cells = [one.name, f"{one.unavoidable:.3f}", f"{one.hindsight.mean():.3f}",
                 f"`{constant}`", shown(one.over_hindsight(CONSTANT, constant)),
                 f"`{named}`", shown(one.over_hindsight(NAMED, named)), shown(predicted) if predicted else ""]
        lines.append(f"| {' | '.join(cells)} |")
    levers = list(scenarios[0].levers())
    if levers:
        lines += ["", "Hindsight without one of its levers, over hindsight with all (a level: the best one to be held "
                  "to):", "", "| scenario | " + " | ".join(levers) + " |", "| --- |" + " ---: |" * len(levers)]
        for one in scenarios:
            cells = [f"{shown(over)}{f' ({at})' if at else ''}" for at, over in one.levers().values()]
            lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    lines += ["", "Avoidable cost of everybody:", "", "| policy | " + " | ".join(one.name for one in scenarios) + " |",
              "| --- |" + " ---: |" * len(scenarios)]
    for kind in (HINDSIGHT, PREDICTED, NAMED, CONSTANT):
        for name in scenarios[0].avoidable.get(kind, ()):
            values = (one.avoidable[kind].get(name) for one in scenarios)
            lines.append(f"| {name} | " + " | ".join("" if v is None else f"{v.mean():.3f}" for v in values) + " |")
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in sorted(rows, key=lambda row: (row["scenario"], row["kind"], row["name"], row["seed"])):
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return out.getvalue()
