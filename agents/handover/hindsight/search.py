"""The search: coordinate descent over a plan book, every move checked by the simulator itself.

It starts from the best of some books that say the same for every change of cell. Then it visits the changes in random
order, tries other options for each, simulating only the steps in which they make a difference, and keeps the best if a
replay of the rest of the episode confirms that the whole costs less. So the cost never rises, and what is returned is
the cost of one replay from the first step to the last.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ....envs.handover.config import HandoverConfig
from ....envs.handover.harm.charges import harm_table, prices_of
from ....envs.handover.world.simulator import Simulator, idle_plans
from ....envs.handover.world.state import KV, RESUME, SPLIT, TOKEN, WAIT
from ....errors import require
from . import replay
from .book import (
    ARRIVAL,
    BACKFILL,
    BITS,
    FETCH,
    KEEP,
    LEVELS,
    LEVERS,
    MEDIUM,
    STAY,
    WHEN,
    Limits,
    everything,
    level,
    row,
)
from .calendar import Calendar, alone, calendar

_AFTER_S = 15.0  # effects of an option are followed for so long after its change of cell, and after the next one
_ENOUGH = 1e-9  # a smaller gain is rounding
_NEAR_S = 5.0  # changes of cell that are no further apart are likely to interact
_MOST_AFTER_A_KICK = 20.0  # budget to settle after a kick [episodes]
_DEEPER, _DRAWN = 20, 12  # random rewritings between two kicks, and how many are tried of each


@dataclass
class Found:
    """What a search has found for one episode."""

    book: np.ndarray  # int8 [U, K, LEVERS]
    cost: float  # avoidable cost of the episode, mean over the UEs
    unavoidable: float  # the rest of its cost
    used: float  # simulated steps, in episodes
    curve: list[tuple[float, float]] = field(default_factory=list)  # (episodes used, cost) at every improvement


class Episode:
    """One episode that can be replayed: its calendar, and tapes.

    Args:
        sim: a simulator; it is not touched.
        env: which of its environments, whose keys say which episode.
        config: of the environment.
    """

    def __init__(self, sim: Simulator, env: int, config: HandoverConfig) -> None:
        self.config, self.steps, self._sim = config, config.max_steps, alone(sim, env)
        self.calendar: Calendar = calendar(self._sim, self.steps)
        ues, prices = config.num_ues, prices_of(config)
        self.rules = replay.Rules(self._sim.params, self._sim.tables, self.calendar, LEVELS, prices,
                                  harm_table(config), config.reward.interruption)
        at, rate, harm, share, least = (np.zeros(ues) for _ in range(5))
        self.desk = replay.Desk(self._sim.state, self._sim.scratch, idle_plans(1, ues), at, rate, harm, share, least,
                                np.zeros(ues), np.zeros((ues, len(prices))))
        self.tape, self.other, self.kept = (_blank_tape(self._sim, self.steps) for _ in range(3))
        self.remembered = False
        self.changes = [(u, k) for u in range(ues) for k in range(self.calendar.changes[u])]

    def book(self, levels: np.ndarray) -> np.ndarray:
        """The book that says the same for every change, int8 [U, K, LEVERS]."""
        return np.broadcast_to(levels, (*self.calendar.cell.shape, len(LEVERS))).copy()

    def cost(self, book: np.ndarray) -> float:
        """Avoidable cost of the whole episode under a book, mean over the UEs; `other` has the tape of it."""
        self._sim.reset()
        self.desk.rate[:], self.desk.at[:] = 0.0, self.desk.state.ue["context"][0]
        replay.play(0, book, self.rules, self.desk, self.other)
        return float(self.other.spent[-1])

    def keep(self) -> None:
        """The tape of the last `cost` becomes the one that options are compared with."""
        self.tape, self.other = self.other, self.tape

    def take(self, first: int) -> None:
        """The same for a tape that was recorded from step `first` on."""
        replay.copy_from(first, self.other, self.tape)

    def remember(self) -> None:
        """Keep the present tape, for `recall`."""
        replay.copy_from(0, self.tape, self.kept)
        self.remembered = True

    def recall(self) -> None:
        """The tape is again what it was when it was remembered."""
        self.tape, self.kept = self.kept, self.tape
        self.remembered = False

    def first(self, u: int, k: int, levels: np.ndarray) -> int:
        """The first step in which a row of the book may make a difference for the k-th change of UE u."""
        at, after = int(self.calendar.step[u, k]), int(self.calendar.step[u, k - 1]) + 1 if k else 0
        lead_s = max(0.0, float(LEVELS[WHEN, levels[WHEN]]))
        begins = int((self.calendar.time_s[u, k] - lead_s) / self.config.interval_s) - 1
        return min(at, max(after, begins, 0))

    def latest(self, u: int, k: int) -> int:
        """The step up to which its effects are followed."""
        until_s = self.calendar.time_s[u, k] + _AFTER_S
        if k + 1 < self.calendar.changes[u]:
            until_s = max(until_s, self.calendar.time_s[u, k + 1] + _AFTER_S)
        return min(self.steps, int(until_s / self.config.interval_s) + 1)


def search(episode: Episode, limits: Limits | None = None, budget: float = 300.0, starts: Sequence[np.ndarray] = (),
           seed: int = 0) -> Found:
    """The cheapest book that the budget finds.

    Args:
        episode: whose book.
        limits: the levels that it may use; default: all.
        budget: what may be simulated, in episodes.
        starts: books to begin from as well; what is not allowed in them is replaced.
        seed: of the order in which changes are visited and options drawn.

    Raises:
        ValueError: the budget is not above 0.
    """
    require(budget > 0.0, f"budget is {budget}: it must be above 0 episodes")
    limits = limits or everything(episode.config)
    searcher = _Searcher(episode, limits, budget, np.random.default_rng(seed))
    searcher.begin([*(limits.project(book) for book in starts), *map(episode.book, same_everywhere(limits))])
    searcher.descend()
    return searcher.found()


def same_everywhere(limits: Limits) -> list[np.ndarray]:
    """Rows with which a search begins: every moment and medium, a whole cache or a pruned one, finest or coarsest."""
    rows = [row(when, medium, keep, bits)
            for when, (medium, keep, bits) in itertools.product(
                (4.0, 1.0, 0.2, 0.0, FETCH),
                ((TOKEN, 1.0, 16), *itertools.product((KV, SPLIT), (1.0, 0.25), (16, 4))))]
    rows += [row(when, medium, 0.25, 4, 1.0, 0.25, arrival) for when, medium, arrival in itertools.product(
        (8.0, 4.0, 2.0, 1.0), (KV, SPLIT), (WAIT, RESUME))]
    rows = [*rows, row(STAY)]
    unique = {tuple(limits.project(one).tolist()): limits.project(one) for one in rows}
    return list(unique.values())


class _Searcher:
    """The state of one search."""

    def __init__(self, episode: Episode, limits: Limits, budget: float, rng: np.random.Generator) -> None:
        self.episode, self.limits, self.budget, self.rng = episode, limits, budget, rng
        self.steps, self.book, self.best = 0, np.empty(0), np.inf
        self.curve: list[tuple[float, float]] = []

    @property
    def used(self) -> float:
        """Episodes simulated so far."""
        return self.steps / self.episode.steps

    def begin(self, books: Sequence[np.ndarray]) -> None:
        """Take the best of some books."""
        for book in books:
            cost = self.episode.cost(book)
            self.steps += self.episode.steps
            if cost < self.best:
                self.episode.keep()
                self._took(book, cost)
            if self.used >= self.budget:
                break

    def _took(self, book: np.ndarray, cost: float) -> None:
        self.book, self.best = book.copy(), cost
        self.curve.append((self.used, cost))

    def descend(self) -> None:
        """Visit every change, and again those near one that was rewritten; then look deeper, and kick now and then."""
        everywhere = np.array(self.episode.changes).reshape(-1, 2)
        if not len(everywhere):
            return
        self._settle(everywhere, np.inf)
        while self.used < self.budget:
            for u, k in self.rng.choice(everywhere, _DEEPER):
                near = self._near(u, k, everywhere)
                others = self.rng.permutation(near[(near != (u, k)).any(axis=1)])[:self.rng.integers(3)]
                changes = np.concatenate([[(u, k)], others])
                if self._try(changes, self._random_rows(changes)):
                    self._settle(near, np.inf)
                if self.used >= self.budget:
                    return
            self._kick(everywhere)

    def _settle(self, changes: np.ndarray, most: float) -> None:
        """Visit changes until none of them can be improved alone, or a budget of `most` episodes is used."""
        waiting = deque(map(tuple, self.rng.permutation(changes).tolist()))
        ends = min(self.budget, self.used + most)
        while waiting and self.used < ends:
            u, k = waiting.popleft()
            if self._visit(u, k):
                near = map(tuple, self._near(u, k, changes).tolist())
                waiting.extend(other for other in near if other not in waiting)

    def _near(self, u: int, k: int, changes: np.ndarray, within_s: float = _NEAR_S) -> np.ndarray:
        """Those of `changes` that happen at about the same time."""
        time_s = self.episode.calendar.time_s
        return changes[np.abs(time_s[changes[:, 0], changes[:, 1]] - time_s[u, k]) <= within_s]

    def _kick(self, everywhere: np.ndarray) -> None:
        """Rewrite some changes at about the same time at once, settle around them, and go back if that was no gain."""
        episode, before, book = self.episode, self.best, self.book.copy()
        u, k = self.rng.choice(everywhere)
        near = self._near(u, k, everywhere)
        if self.rng.random() < 0.5:
            # The same level of one lever for all that go the same way.
            lever = self.rng.integers(len(LEVERS))
            number = self.rng.choice(self.limits.allowed[lever])
            cell = episode.calendar.cell
            chosen = near[cell[near[:, 0], near[:, 1]] == cell[u, k]]
            self.book[chosen[:, 0], chosen[:, 1], lever] = number
        else:
            chosen = self.rng.permutation(near)[:3]
            for v, i in chosen:
                for lever in self.rng.choice(len(LEVERS), 2, replace=False):
                    self.book[v, i, lever] = self.rng.choice(self.limits.allowed[lever])
        if np.array_equal(self.book, book):
            return
        first = min(min(episode.first(v, i, book[v, i]), episode.first(v, i, self.book[v, i])) for v, i in chosen)
        episode.remember()
        self.best = self._replay(first)
        episode.take(first)
        self._settle(near, _MOST_AFTER_A_KICK)
        if self.best < before - _ENOUGH:
            self.curve.append((self.used, self.best))
            episode.remembered = False
        else:
            self.book, self.best = book, before
            episode.recall()

    def _other_rows(self, u: int, k: int) -> np.ndarray:
        """All rows for a change that differ in one lever, int8 [N, 1, LEVERS]."""
        now, found = self.book[u, k], {}
        for lever, allowed in enumerate(self.limits.allowed):
            for number in allowed:
                one = now.copy()
                one[lever] = number
                found[_meaning(one)] = one
        found.pop(_meaning(now), None)
        return np.array(list(found.values()), np.int8).reshape(-1, 1, len(LEVERS))

    def _random_rows(self, changes: np.ndarray) -> np.ndarray:
        """Rows for some changes that differ at random, in two or three levers of each, int8 [N, M, LEVERS]."""
        now = self.book[changes[:, 0], changes[:, 1]]
        found = np.repeat(now[None], _DRAWN, axis=0)
        levers = self.rng.permuted(np.tile(np.arange(len(LEVERS)), (_DRAWN, len(changes), 1)), axis=-1)
        count = self.rng.integers(2 if len(changes) == 1 else 1, 4, (_DRAWN, len(changes)))
        for lever, allowed in enumerate(self.limits.allowed):
            drawn = self.rng.choice(np.array(allowed, np.int8), found.shape[:2])
            changed = levers[..., lever] < count
            found[..., lever] = np.where(changed, drawn, found[..., lever])
        kept = {tuple(map(_meaning, rows)): rows for rows in found}
        kept.pop(tuple(map(_meaning, now)), None)
        return np.array(list(kept.values()), np.int8).reshape(-1, *now.shape)

    def _visit(self, u: int, k: int) -> bool:
        """Try all rows for one change of cell that differ in one lever; whether the book is better now."""
        return self._try(np.array([(u, k)]), self._other_rows(u, k))

    def _try(self, changes: np.ndarray, options: np.ndarray) -> bool:
        """Try rows for some changes of cell and take the best, if the whole episode confirms it; whether it did.

        Args:
            changes: int64 [M, 2], UE and number of each.
            options: int8 [N, M, LEVERS].
        """
        episode, was = self.episode, self.book[changes[:, 0], changes[:, 1]]
        if not len(options):
            return False
        begins = min(episode.first(u, k, one) for (u, k), one in zip(changes, was, strict=True))
        firsts = np.array([min(begins, *(episode.first(u, k, one) for (u, k), one in zip(changes, rows, strict=True)))
                           for rows in options])
        latest, gain = max(episode.latest(u, k) for u, k in changes), np.empty(len(options))
        self.steps += replay.try_options(changes, options, firsts, latest, self.book, episode.rules,
                                         episode.desk, episode.tape, was, gain)
        best = int(gain.argmin())
        if gain[best] > -_ENOUGH:
            return False
        self.book[changes[:, 0], changes[:, 1]] = options[best]
        cost = self._replay(int(firsts[best]))
        if cost > self.best - _ENOUGH:
            self.book[changes[:, 0], changes[:, 1]] = was
            return False
        episode.take(int(firsts[best]))
        self.best = cost
        if not self.episode.remembered:
            self.curve.append((self.used, cost))
        return True

    def _replay(self, first: int) -> float:
        """The cost of the episode under the present book, which differs from step `first` on."""
        episode = self.episode
        replay.branch(first, self.book, episode.rules, episode.desk, episode.tape, episode.other)
        self.steps += episode.steps - first
        return float(episode.other.spent[-1])

    def found(self) -> Found:
        """The result; its cost is that of a replay of the whole episode."""
        cost = self.episode.cost(self.book)
        return Found(self.book, cost, float(self.episode.other.floor[-1]), self.used, self.curve)


def _meaning(levels: np.ndarray) -> tuple[int, ...]:
    """A row without the levers that mean nothing there: rows with the same meaning do the same."""
    one = levels.copy()
    if one[WHEN] == level(WHEN, STAY):
        one[WHEN + 1:] = 0
    elif one[MEDIUM] == level(MEDIUM, TOKEN):
        one[KEEP] = one[BITS] = one[BACKFILL] = 0
    elif one[KEEP] == level(KEEP, 1.0) and one[ARRIVAL] != level(ARRIVAL, RESUME):
        one[BACKFILL] = 0
    return tuple(one.tolist())


def _blank_tape(sim: Simulator, steps: int) -> replay.Tape:
    state, rows = sim.state, steps + 1
    by_ue = (rows, sim.num_ues)
    return replay.Tape(
        np.zeros(by_ue, state.ue.dtype), np.zeros((rows, sim.num_cells), state.cell.dtype),
        np.zeros(rows, state.world.dtype), np.zeros((*by_ue, sim.num_cells)), np.zeros((*by_ue, sim.num_cells)),
        np.zeros(by_ue), np.zeros(rows), np.zeros(rows), np.zeros(by_ue), np.ones(by_ue), np.zeros(by_ue))
