"""One batched core behind every interface: it keeps seeds, episodes and the order of a step for any task."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .pricing import total
from .spaces import check_actions
from .task import Task


class Core:
    """E environments of A agents that step together; PettingZoo, Gymnasium and Stable-Baselines3 are views of it.

    Environment i seeded s + i equals a single one seeded s + i.

    Args:
        task: what the environments are (`envs.base.make.make_core` finds it by the settings).

    Attributes:
        task: the task.
        reward: of the last step, float64 [E, A].
        terms: of the last step, float64 [E, A, len(task.terms)]; they sum to the reward.
        terminated: environments that ended in the last step by themselves, bool [E].
    """

    def __init__(self, task: Task) -> None:
        self.task, self.config = task, task.config
        self.num_envs, self.num_agents = task.num_envs, task.num_agents
        self._seeds: list[int | None] = [None] * self.num_envs
        self._episode = [0] * self.num_envs
        self._begun = False
        self.reward = np.zeros((self.num_envs, self.num_agents))
        self.terms = np.zeros((self.num_envs, self.num_agents, len(task.terms)))
        self.terminated = np.zeros(self.num_envs, bool)

    @property
    def view(self) -> Any:
        """What policies read."""
        self.require_reset()
        return self.task.view

    def reset(self, seeds: Sequence[int | None] | None = None, envs: Sequence[int] | np.ndarray | None = None) -> None:
        """Begin new episodes.

        Args:
            seeds: one per environment that is reset, whole numbers that are not negative; None goes on with the next
                episode of the last seed, so that a run is reproducible from its first seed (a fresh one is drawn
                where none was ever given).
            envs: the environments, default all; the first reset needs all.

        Raises:
            ValueError: a seed that is no whole number, or a number of seeds that differs from the environments.
            RuntimeError: some environments only, before the first reset of all.
        """
        which = np.arange(self.num_envs) if envs is None else np.asarray(envs, np.int64)
        if len(which) < self.num_envs:
            self.require_reset()
        if seeds is not None and len(seeds) != len(which):
            raise ValueError(f"{len(seeds)} seeds were given for {len(which)} environments: give one each")
        given = [None] * len(which) if seeds is None else [None if seed is None else whole_seed(seed) for seed in seeds]
        for e, seed in zip(which, given, strict=True):
            if seed is None and self._seeds[e] is not None:
                self._episode[e] += 1
            else:
                fresh = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
                self._seeds[e], self._episode[e] = fresh, 0
        self.task.reset(which, [self._seeds[e] or 0 for e in which], [self._episode[e] for e in which])
        self._begun = True
        self.reward[which], self.terms[which], self.terminated[which] = 0.0, 0.0, False

    def require_reset(self) -> None:
        """Raise RuntimeError before the first reset."""
        if not self._begun:
            raise RuntimeError("the episode has not begun: call reset() first")

    def step(self, plans: np.ndarray) -> None:
        """Advance every environment by one decision interval under `plans` [E, A].

        Raises:
            RuntimeError: before reset.
            ValueError: plans that the task cannot follow; nothing has changed then.
        """
        self.require_reset()
        self.task.advance(plans)
        self.terms = self.task.price()
        self.reward = total(self.terms)
        self.terminated = self.task.terminated()

    def decode(self, actions: Any) -> np.ndarray:
        """Plans [E, A] from MultiDiscrete actions, int [E, A, parts].

        Raises:
            RuntimeError: before reset.
            ValueError: shape or values outside the action space.
        """
        self.require_reset()
        return self.task.decode(check_actions(actions, self.task.parts, self.task.agents, self.num_envs))

    def masks(self) -> np.ndarray:
        """Which choices can have an effect, bool [E, A, sum of the action sizes]."""
        self.require_reset()
        return self.task.masks()

    def observe(self) -> np.ndarray:
        """Observations, float32 [E, A, F], a fresh array."""
        self.require_reset()
        return self.task.observe()

    def digest(self) -> str:
        """A hash of everything that changes and the last rewards: equal traces have equal digests."""
        h = hashlib.sha256()
        for name, array in sorted({**self.task.arrays(), "reward": self.reward}.items()):
            h.update(name.encode() + b"\0" + np.ascontiguousarray(array).tobytes())
        return h.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain data; what the settings determine is made anew."""
        task = self.task
        return {
            "task": (type(task), task.config, task.num_envs, task.threads), "begun": self._begun,
            "seeds": list(self._seeds), "episode": list(self._episode),
            "reward": self.reward, "terms": self.terms, "terminated": self.terminated,
            "arrays": {name: _same_bytes(array) for name, array in task.arrays().items()}, "saved": task.save(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on bit for bit from where the pickled core stood."""
        kind, config, num_envs, threads = state["task"]
        self.__init__(kind(config, num_envs, threads))  # type: ignore[misc]
        self._begun, self._seeds, self._episode = state["begun"], state["seeds"], state["episode"]
        self.reward, self.terms, self.terminated = state["reward"], state["terms"], state["terminated"]
        for name, array in self.task.arrays().items():
            array[...] = state["arrays"][name]
        self.task.restore(state["saved"])


def _same_bytes(array: np.ndarray) -> np.ndarray:
    """A copy with the bytes between the fields of a record, too, which numpy's own copy leaves to chance."""
    return np.frombuffer(bytearray(array.tobytes()), array.dtype).reshape(array.shape)


def seeds_from(seed: int, num_envs: int) -> list[int | None]:
    """The seeds of a batch: environment i gets seed + i.

    Raises:
        ValueError: `seed` is not a whole number of at least 0.
    """
    first = whole_seed(seed)
    return [first + i for i in range(num_envs)]


def whole_seed(seed: Any) -> int:
    """A seed as Python's whole number; a bool, a text or a fraction is a mistake of its giver.

    Raises:
        ValueError: it is not a whole number of at least 0.
    """
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed!r}: it must be a whole number of at least 0, or None")
    return int(seed)
