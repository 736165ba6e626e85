"""What the rows say: who comes how near to hindsight, which lever matters where, and whether the gate is passed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...envs.base.meter import ratio
from ...evaluation.estimates import Ratio, paired_ratio
from ...experiment import GRID
from ...experiment import scenarios as shipped
from .jobs import CONSTANT, HINDSIGHT, LEVER, NAMED

PAPERS = ("ctho", "jmsra", "pallas", "token-aware")  # named policies that stand for a paper, with all their variants
EVERY, EVEN, ODD = slice(None), slice(0, None, 2), slice(1, None, 2)  # of the episodes


@dataclass(frozen=True)
class Gate:
    """What a grid of scenarios must show to be worth learning in.

    Args:
        constant: avoidable cost of the best constant plan over that of hindsight, in all but `easy` scenarios.
        named: the same of the best named policy, in the same scenarios.
        easy: scenarios that may be easier than that.
        winners: different constant plans that win somewhere.
        single: what the best single constant plan costs more than the winner of each scenario, on average, as a share.
        lever: avoidable cost of hindsight without a lever over that of hindsight, for every lever.
        lever_scenarios: in so many scenarios at least.
    """

    constant: float = 1.6
    named: float = 1.3
    easy: int = 2
    winners: int = 3
    single: float = 0.5
    lever: float = 1.08
    lever_scenarios: int = 2


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

    def best(self, kind: str, among: Sequence[str] | None = None, episodes: slice = EVERY) -> str:
        """The name with the lowest mean among those of a kind, or among some of them."""
        found = self.avoidable[kind]
        # Plans that do the same in this world cost the same: the shortest name stands for them.
        return min(found if among is None else among,
                   key=lambda name: (float(found[name][episodes].mean()), len(name), name))

    def over_hindsight(self, kind: str, name: str) -> Ratio:
        """Avoidable cost of a policy over hindsight's."""
        return paired_ratio(self.avoidable[kind][name], self.hindsight)

    def paper(self, name: str) -> str | None:
        """The best variant of a paper's policy, or None where none played."""
        variants = [one for one in self.avoidable[NAMED] if one == name or one.startswith(f"{name}-")]
        return self.best(NAMED, variants) if variants else None

    def levers(self) -> dict[str, tuple[str, Ratio]]:
        """For every lever: the level that hindsight does best with when held to it, and what that costs over it."""
        held: dict[str, list[str]] = defaultdict(list)
        for name in self.avoidable.get(LEVER, ()):
            held[name.partition(": ")[0]].append(name)
        found = {}
        for lever, names in held.items():
            best = self.best(LEVER, names)
            found[lever] = best.partition(": ")[2], self.over_hindsight(LEVER, best)
        return found


@dataclass(frozen=True)
class Single:
    """One constant plan everywhere, against the winner of each scenario.

    Args:
        name: of the plan.
        more: its avoidable cost over the winner's, minus 1, mean over the scenarios.
        unseen: the same when plan and winners are picked on every second episode and judged on the others; NaN where
            there is only one episode.
    """

    name: str
    more: float
    unseen: float


def gather(rows: Sequence[Mapping[str, Any]]) -> list[Scenario]:
    """The scenarios in which hindsight was searched and others have played, with the episodes that all of them had."""
    by_scenario: dict[str, dict[tuple[str, str], dict[int, Mapping[str, Any]]]] = {}
    for row in rows:
        by_scenario.setdefault(row["scenario"], {}).setdefault((row["kind"], row["name"]), {})[row["seed"]] = row
    found = []
    for name, players in by_scenario.items():
        if not {HINDSIGHT, CONSTANT, NAMED} <= {kind for kind, _ in players}:
            continue
        seeds = tuple(sorted(set.intersection(*(set(played) for played in players.values()))))
        avoidable: dict[str, dict[str, np.ndarray]] = {}
        for (kind, player), played in players.items():
            avoidable.setdefault(kind, {})[player] = np.array(
                [played[seed]["cost"] - played[seed]["unavoidable"] for seed in seeds])
        floor = [players[HINDSIGHT, "hindsight"][seed]["unavoidable"] for seed in seeds]
        if seeds:
            found.append(Scenario(name, seeds, float(np.mean(floor)), avoidable))
    grid = [*shipped(GRID), *(one.name for one in found)]
    return sorted(found, key=lambda one: grid.index(one.name))


def single(scenarios: Sequence[Scenario]) -> Single:
    """The constant plan that costs least over the winners on average, of those that played everywhere."""
    def more(name: str, pick: slice, judged: slice) -> float:
        pairs = ((one.avoidable[CONSTANT][name], one.avoidable[CONSTANT][one.best(CONSTANT, None, pick)])
                 for one in scenarios)
        times = [ratio(float(mine[judged].mean()), float(best[judged].mean())) for mine, best in pairs]
        return float(np.mean(times)) - 1.0

    names = [name for name in scenarios[0].avoidable[CONSTANT]
             if all(name in one.avoidable[CONSTANT] for one in scenarios)]
    best = min(names, key=lambda name: (more(name, EVERY, EVERY), len(name), name))
    unseen = np.nan
    if all(len(one.seeds) > 1 for one in scenarios):
        unseen = more(min(names, key=lambda name: (more(name, EVEN, EVEN), len(name), name)), EVEN, ODD)
    return Single(best, more(best, EVERY, EVERY), unseen)


def judge(scenarios: Sequence[Scenario], gate: Gate) -> list[tuple[str, bool, str]]:
    """The gate's conditions: (condition, whether it holds, what was found)."""
    light = [one.name for one in scenarios if easy(one, gate)]
    hard, wanted = len(scenarios) - len(light), max(1, len(scenarios) - gate.easy)
    result = [(f"the best constant plan costs at least {gate.constant:g} times, and the best named policy at least "
               f"{gate.named:g} times, what hindsight does, in {wanted} of {len(scenarios)} scenarios",
               hard >= wanted, f"in {hard}" + (f"; not in {_list(light)}" if light else ""))]
    winners = {one.best(CONSTANT) for one in scenarios}
    result.append((f"at least {gate.winners} different constant plans win somewhere", len(winners) >= gate.winners,
                   f"{len(winners)}"))
    plan = single(scenarios)
    result.append((f"the best single constant plan costs at least {gate.single:.0%} more than the winner of each "
                   "scenario, on average", plan.more >= gate.single, f"{plan.more:.0%} more"))
    for lever, where in matters(scenarios, gate).items():
        result.append((f"hindsight with {lever} costs at least {gate.lever - 1.0:.0%} more in "
                       f"{gate.lever_scenarios} scenarios", len(where) >= gate.lever_scenarios,
                       f"in {len(where)}: {_list(where)}" if where else "in none"))
    return result


def easy(one: Scenario, gate: Gate) -> bool:
    """Whether the best constant plan or the best named policy comes nearer to hindsight than the gate wants."""
    return not (one.over_hindsight(CONSTANT, one.best(CONSTANT)).ratio >= gate.constant
                and one.over_hindsight(NAMED, one.best(NAMED)).ratio >= gate.named)


def matters(scenarios: Sequence[Scenario], gate: Gate) -> dict[str, list[str]]:
    """For every lever, the scenarios where hindsight without it costs as much more as the gate wants, surely more."""
    found: dict[str, list[str]] = {}
    for one in scenarios:
        for lever, (_, over) in one.levers().items():
            found.setdefault(lever, [])
            # An interval that cannot be told (one episode, or all alike) does not count against it.
            if over.ratio >= gate.lever and not over.low <= 1.0:
                found[lever].append(one.name)
    return found


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
