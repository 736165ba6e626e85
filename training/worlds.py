"""The worlds that a policy is trained in, one after the other or side by side, asked at decision points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from ..envs.base.core import Core
from ..envs.base.decisions import DecisionView, Sight
from ..envs.base.meter import Meter
from ..envs.base.spaces import action_space, observation_space


class Asked(NamedTuple):
    """What a policy answers for N rows that decide."""

    actions: np.ndarray  # int64 [N, parts]
    values: np.ndarray  # float32 [N]
    log_prob: np.ndarray  # float32 [N]


class Batch(NamedTuple):
    """N decisions, each with its reward complete, in the order in which they were taken by each row."""

    rows: np.ndarray  # int64 [N], of all worlds
    observations: np.ndarray  # float32 [N, F]
    masks: np.ndarray  # bool [N, sum of the action sizes]
    actions: np.ndarray  # int64 [N, parts]
    values: np.ndarray  # float32 [N]
    log_prob: np.ndarray  # float32 [N]
    reward: np.ndarray  # float32 [N]
    discount: np.ndarray  # float32 [N], of what comes after; 0 where nothing does
    after: np.ndarray  # float32 [N], value of what comes after
    follows: np.ndarray  # bool [N], the row's next decision in the batch belongs to the same episode
    world: np.ndarray  # int64 [N], which of the worlds


class Worlds(VecEnv):
    """Decision views of several cores, whose rows stand one world after the other.

    A VecEnv in name, so that Stable-Baselines3 finds the spaces; it is played by `collect`, not by `step`.

    Args:
        cores: of tasks with the same spaces; their settings may differ in anything else.
        seeds: of the first environment of each core; its environment i gets seed + i.
        gamma: discount per interval.
        objectives: of `episode_metrics`.
        central: a row that decides also shows what a critic may know: the mean row of its environment, and its outlook.
        reward_scale: rewards in a batch are multiplied by this.
        credited: rewards are dealt out for learning (Task.credit).

    Attributes:
        seen: numbers of a row that a policy sees; those that follow are for the critic.
        terms: the reward terms of the intervals since `collect` began, summed, mean over the agents, float64 [T].
        intervals: how many those are.
        episode_metrics: of the episodes that ended in the last `collect`.
    """

    def __init__(self, cores: Sequence[Core], seeds: Sequence[int], gamma: float,
                 objectives: dict[str, float] | None = None, central: bool = False,
                 reward_scale: float = 1.0, credited: bool = True) -> None:
        sights = [Sight(core, central) for core in cores]
        self.views = [DecisionView(core, gamma, credited, sight) for core, sight in zip(cores, sights, strict=True)]
        self.sizes = [core.num_envs * core.num_agents for core in cores]
        self.first = np.concatenate([[0], np.cumsum(self.sizes)])
        self.seeds, self._objectives, self.render_mode = list(seeds), dict(objectives or {}), None
        self._reward_scale = reward_scale
        task = cores[0].task
        self.seen = sights[0].seen
        space = observation_space(task.features)
        free = np.full(max(sight.width for sight in sights) - self.seen, np.inf, np.float32)
        space = spaces.Box(np.concatenate([space.low, -free]), np.concatenate([space.high, free]))
        super().__init__(int(self.first[-1]), space, action_space(task.parts))
        self.meters: list[Meter] = [core.task.meter(**self._objectives) for core in cores]
        self.terms, self.intervals = np.zeros(len(task.terms)), 0
        self.episode_metrics: list[dict[str, float]] = []
        self.features, self.parts = space.shape[0], len(task.parts)
        self.choices = sum(part.size for part in task.parts)
        self._held = self._blank()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for view, meter in zip(self.views, self.meters, strict=True):
            meter.task = view.core.task

    def _blank(self) -> dict[str, np.ndarray]:
        """The decision that each row is following."""
        rows = self.num_envs
        return {"observations": np.zeros((rows, self.features), np.float32),
                "masks": np.zeros((rows, self.choices), bool), "actions": np.zeros((rows, self.parts), np.int64),
                "values": np.zeros(rows, np.float32), "log_prob": np.zeros(rows, np.float32)}

    def reset(self) -> np.ndarray:
        """Begin new episodes everywhere; observations float32 [rows, F]."""
        for view, seed in zip(self.views, self.seeds, strict=True):
            view.reset([seed + i for i in range(view.core.num_envs)])
        self.meters = [view.core.task.meter(**self._objectives) for view in self.views]
        return self._everything()

    def _everything(self) -> np.ndarray:
        """What all rows see now, float32 [rows, F]."""
        return np.concatenate([view.observe(np.arange(size))
                               for view, size in zip(self.views, self.sizes, strict=True)])

    def collect(self, count: int, ask: Callable[[np.ndarray, np.ndarray], Asked],
                value: Callable[[np.ndarray], np.ndarray]) -> Batch:
        """Play until `count` decisions are complete in every world together.

        Args:
            count: at least so many.
            ask: what to do, from observations [N, F] and masks [N, M].
            value: of observations [N, F], for what comes after.
        """
        self.terms[:], self.intervals, self.episode_metrics = 0.0, 0, []
        found: list[dict[str, np.ndarray]] = []
        complete = 0
        while complete < count:
            self._decide(ask)
            for number, view in enumerate(self.views):
                more = self._advance(number, view, value)
                if more is not None:
                    found.append(more)
                    complete += len(more["rows"])
            self.intervals += 1
        return self._batch(found, value)

    def _decide(self, ask: Callable[[np.ndarray, np.ndarray], Asked]) -> None:
        """Ask for all rows that are due in all worlds at once, and note what they were told."""
        observations = [view.observe(view.due) for view in self.views]
        masks = [view.masks()[view.due] for view in self.views]
        rows = self._due()
        if not len(rows):
            return
        seen, allowed = np.concatenate(observations), np.concatenate(masks)
        told = ask(seen, allowed)
        held = self._held
        held["observations"][rows], held["masks"][rows] = seen, allowed
        held["actions"][rows], held["values"][rows], held["log_prob"][rows] = told

    def _due(self) -> np.ndarray:
        """Rows of all worlds whose turn it is."""
        return np.concatenate([view.due + start for view, start in zip(self.views, self.first, strict=False)])

    def _advance(self, number: int, view: DecisionView, value: Callable[[np.ndarray], np.ndarray],
                 ) -> dict[str, np.ndarray] | None:
        """Let an interval pass in one world; the decisions that are complete with it, with what they led to."""
        start = self.first[number]
        due, core = view.due, view.core
        # What the rows held is complete once their next decision comes, so it is copied before that overwrites it.
        ended, last, envs = view.step(self._held["actions"][start + due], lambda: self._count(number))
        if len(envs):
            self.episode_metrics += [self.meters[number].result(int(e)) for e in envs]
            self.meters[number].forget(envs)
        if not len(ended.rows):
            return None
        rows = start + ended.rows
        after = np.full(len(rows), np.nan, np.float32)  # of those that go on: known when the row decides next
        after[ended.over] = 0.0
        if last is not None:
            agents = core.num_agents
            place = np.searchsorted(envs, ended.rows[ended.over] // agents) * agents + ended.rows[ended.over] % agents
            after[ended.over] = np.where(ended.truncated[ended.over], value(last[place]), 0.0)
        held = {name: array[rows].copy() for name, array in self._held.items()}
        return {"rows": rows, **held, "reward": (self._reward_scale * ended.reward).astype(np.float32),
                "discount": ended.discount.astype(np.float32), "after": after, "over": ended.over}

    def _count(self, number: int) -> None:
        """Add the interval that has passed in one world to what is reported."""
        core = self.views[number].core
        self.meters[number].add(core)
        self.terms += core.terms.mean(axis=(0, 1)) / len(self.views)

    def _batch(self, found: list[dict[str, np.ndarray]], value: Callable[[np.ndarray], np.ndarray]) -> Batch:
        all_of = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        rows, n = all_of["rows"], len(all_of["rows"])
        order = np.lexsort((np.arange(n), rows))
        nxt = np.full(n, -1)
        same = rows[order[1:]] == rows[order[:-1]]
        nxt[order[:-1][same]] = order[1:][same]
        over, after = all_of["over"], all_of["after"]
        goes_on = (nxt >= 0) & ~over
        after[goes_on] = all_of["values"][nxt[goes_on]]
        open_ended = np.flatnonzero((nxt < 0) & ~over)
        if len(open_ended):
            # Their next decision is not complete: it has a value already, or is due now.
            due = np.zeros(self.num_envs, bool)
            due[self._due()] = True
            asked, new = (open_ended[due[rows[open_ended]] == is_due] for is_due in (False, True))
            after[asked] = self._held["values"][rows[asked]]
            if len(new):
                after[new] = value(self._everything()[rows[new]])
        by_row = {name: all_of[name][order] for name in ("rows", "observations", "masks", "actions", "values",
                                                         "log_prob", "reward", "discount", "after")}
        world = np.searchsorted(self.first, by_row["rows"], side="right") - 1
        return Batch(**by_row, follows=goes_on[order], world=world)

    # What a VecEnv must have
    def step_async(self, actions: np.ndarray) -> None:
        """Refused: rows decide at times of their own."""
        raise NotImplementedError("rows decide at times of their own: use collect()")

    def step_wait(self) -> Any:
        """Refused."""
        raise NotImplementedError("rows decide at times of their own: use collect()")

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same attribute for every row."""
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: rows are no separate environments."""
        raise AttributeError(f"{attr_name!r} cannot be set on single rows")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refused: rows are no separate environments."""
        raise AttributeError(f"{method_name!r} cannot be called on single rows")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No wrappers inside."""
        return [False] * self.num_envs


def advantages(batch: Batch, gae_lambda: float) -> np.ndarray:
    """Generalised advantage estimates of a batch, float32 [N], with lambda per decision and the discounts of the batch.

    Source: Schulman et al., arXiv 1506.02438, over decisions of different length.
    """
    delta = batch.reward + batch.discount * batch.after - batch.values
    carry = np.where(batch.follows, batch.discount * gae_lambda, 0.0).astype(np.float32)
    found, last = np.empty_like(delta), np.float32(0.0)
    for i in range(len(delta) - 1, -1, -1):
        last = found[i] = delta[i] + carry[i] * last
    return found
