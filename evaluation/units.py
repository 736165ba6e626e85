"""A unit of work: one policy in a block of consecutive episodes of one scenario, and how it is played.

What happens in an episode depends on its seed alone: the environments of a core do not know of each other, and every
block has a policy that was made for it. Its drift, though, is computed by matrix products over all sessions of a block,
whose last digits (some 1e-6 nats per token) depend on who stands beside whom. So blocks are cut in one way only, from
the first seed on, whoever plays them: then the numbers are the same to the last digit for any number of workers, and
after any interruption.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import agents
from ..envs.base.core import Core
from ..envs.base.make import make_core
from ..experiment import Experiment
from .rollout import episodes

# Episodes that run side by side. More share each forward pass of the language model but take more memory, and a stopped
# evaluation loses more of them.
SIDE_BY_SIDE = 8
# Cores that a process keeps for its next units.
_KEPT = 4

Amounts = dict[str, float]


@dataclass(frozen=True)
class Unit:
    """What one process plays at a time.

    Args:
        scenario: name of the experiment.
        policy: name of the policy in this evaluation.
        given: the policy, as kvroam.agents.make takes it.
        seed: that it is made with, where it takes one.
        seeds: of the episodes.
    """

    scenario: str
    policy: str
    given: Any
    seed: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Played:
    """What a unit measured.

    Args:
        metrics: of each episode, {METRIC: value}.
        parts: of the cost of each episode, {TERM: price paid, per agent}; they sum to the cost.
        wall_s: how long it took [s].
    """

    metrics: tuple[Amounts, ...]
    parts: tuple[Amounts, ...]
    wall_s: float


class Stage:
    """Plays units, and keeps the cores: units of one scenario and size share one.

    Args:
        experiments: the scenarios, by name.
    """

    def __init__(self, experiments: dict[str, Experiment[Any]]) -> None:
        self._experiments = experiments
        self._cores: OrderedDict[tuple[str, int], Core] = OrderedDict()

    def play(self, unit: Unit, tick: Callable[[], Any]) -> Played:
        """Play the episodes of a unit; `tick` is called after every step."""
        began = time.perf_counter()
        experiment = self._experiments[unit.scenario]
        player = agents.make(unit.given, experiment.environment, unit.seed)
        for outcome in episodes(self._core(unit), player, unit.seeds, experiment.evaluate):
            if outcome is None:
                tick()
            else:
                metrics, parts = zip(*outcome, strict=True)
        return Played(metrics, parts, time.perf_counter() - began)

    def _core(self, unit: Unit) -> Core:
        key = unit.scenario, len(unit.seeds)
        if key not in self._cores:
            while len(self._cores) >= _KEPT:
                self._cores.popitem(last=False)
            self._cores[key] = make_core(self._experiments[unit.scenario].environment, len(unit.seeds))
        self._cores.move_to_end(key)
        return self._cores[key]


def blocks(seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """The seeds in blocks of SIDE_BY_SIDE, the last of what is left."""
    return [tuple(seeds[k:k + SIDE_BY_SIDE]) for k in range(0, len(seeds), SIDE_BY_SIDE)]


def by_name(rows: Iterable[Amounts]) -> dict[str, list[float]]:
    """{NAME: one value per episode} from one {NAME: value} per episode."""
    listed = list(rows)
    return {name: [row[name] for row in listed] for name in listed[0]}
