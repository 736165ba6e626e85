"""Rankings of policies that have played once, at other prices of the reward's terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from kvroam.envs.handover.config import TERMS
from kvroam.evaluation.estimates import Ratio, paired_ratio

NAMES = tuple(term.name for term in TERMS)
FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Played:
    """What a policy caused in each of N episodes, means over the UEs.

    Args:
        amounts: float64 [N, T], of the reward's terms in their order.
        unavoidable_s: float64 [N], seconds of interruption that nobody can avoid.
    """

    amounts: np.ndarray
    unavoidable_s: np.ndarray

    def avoidable(self, prices: np.ndarray) -> np.ndarray:
        """Avoidable cost of each episode at some prices [T], float64 [N]."""
        return self.amounts @ prices - prices[NAMES.index("interruption")] * self.unavoidable_s


@dataclass(frozen=True)
class Ranking:
    """Who comes how far at some prices.

    Args:
        scenario: its name.
        price: the term whose price was changed; empty: none.
        factor: by which.
        costs: mean avoidable cost of each policy, cheapest first.
        tau: Kendall's rank correlation with the ranking at the shipped prices.
        margin: avoidable cost of the second over that of the first.
        kept: avoidable cost of who wins at the shipped prices over that of the first.
    """

    scenario: str
    price: str
    factor: float
    costs: Mapping[str, float]
    tau: float
    margin: Ratio
    kept: Ratio

    @property
    def order(self) -> list[str]:
        """The policies, cheapest first."""
        return list(self.costs)


def changed(prices: np.ndarray, price: str, factor: float) -> np.ndarray:
    """The prices with one of them multiplied."""
    return np.where(np.array(NAMES) == price, factor, 1.0) * prices


def changes(prices: np.ndarray) -> Iterable[tuple[str, float]]:
    """Every change of one price; a price of 0 stays 0 and is left out."""
    return [(name, factor) for name, price in zip(NAMES, prices, strict=True) if price > 0.0 for factor in FACTORS]


def rank(scenario: str, played: Mapping[str, Played], prices: np.ndarray, price: str = "", factor: float = 1.0,
         again: Mapping[str, Played] | None = None) -> Ranking:
    """The ranking with one price multiplied.

    Args:
        scenario: its name.
        played: the episodes of each policy at the shipped prices, the same for all.
        prices: the shipped ones [T].
        price, factor: which one is multiplied by what.
        again: episodes of the policies that decide by the prices, played at the changed ones.
    """
    here = changed(prices, price, factor)
    before = {name: float(one.avoidable(prices).mean()) for name, one in played.items()}
    cost = {name: one.avoidable(here) for name, one in {**played, **(again or {})}.items()}
    mean = {name: float(values.mean()) for name, values in cost.items()}
    order = sorted(mean, key=lambda name: (mean[name], name))
    was = min(before, key=lambda name: (before[name], name))
    tau = float(kendalltau([before[name] for name in order], [mean[name] for name in order]).statistic)
    return Ranking(scenario, price, factor, {name: mean[name] for name in order}, tau,
                   paired_ratio(cost[order[1]], cost[order[0]]), paired_ratio(cost[was], cost[order[0]]))


def summary(rankings: Sequence[Ranking]) -> dict[str, dict[str, float]]:
    """Of each price: the least tau, how often another policy wins, and the most that the winner at the shipped prices
    then costs more than it, as a share."""
    shipped = {one.scenario: one.order[0] for one in rankings if not one.price}
    found: dict[str, dict[str, float]] = {}
    for one in rankings:
        if one.price:
            row = found.setdefault(one.price, {"tau": 1.0, "rankings": 0, "changed": 0, "lost": 0.0})
            row["tau"] = min(row["tau"], one.tau)
            row["rankings"] += 1
            row["changed"] += one.order[0] != shipped[one.scenario]
            row["lost"] = max(row["lost"], one.kept.ratio - 1.0)
    return found
