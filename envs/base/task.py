"""What an environment is: subclass `Task`, and every view, train.py and evaluate.py work with it.

tests/envs/miniature.py is a complete one in about thirty lines; envs/handover/task.py is the first real one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from .config import TaskConfig
from .declare import Feature, Metric, Part, Term
from .drawing import Drawing
from .meter import COST, Meter
from .spaces import check_actions


class Task(ABC):
    """One kind of environment, for E environments that step together: what its agents see, may do and pay.

    A task says what happens; envs.base.core.Core decides when: seeds, episodes, the order of a step, pickling.
    Everything that changes is a numpy array whose first axis is the environment, so that `arrays` finds it.

    Args:
        config: settings of the environment, an instance of `Config`.
        num_envs: environments side by side.
        threads: numba threads.

    Attributes:
        agents: names of the agents, the same in all environments and for the whole episode; a subclass sets them.
        parts: of one agent's action.
        features: of one agent's observation row.
    """

    name: ClassVar[str]  # in YAML files (`task: NAME`) and in the registry
    title: ClassVar[str]  # in ids: kvroam/TITLE-v0, kvroam/TITLECentral-v0, kvroam/TITLEEgo-v0
    version: ClassVar[int] = 0
    Config: ClassVar[type[TaskConfig]]
    terms: ClassVar[tuple[Term, ...]]  # of the reward
    metrics: ClassVar[tuple[Metric, ...]] = (COST,)  # of an episode
    headline: ClassVar[tuple[str, ...]] = ("cost",)  # names of the metrics that fit a terminal
    scenarios: ClassVar[tuple[str, ...]] = ()  # shipped YAML files that policies are compared over (`--config grid`)
    references: ClassVar[tuple[str, ...]] = ()  # policies that the others are compared with
    companion: ClassVar[str] = "random"  # who acts for the other agents in the ego view

    agents: tuple[str, ...]

    def __init__(self, config: Any, num_envs: int = 1, threads: int = 1) -> None:
        self.config, self.num_envs, self.threads = config, num_envs, threads
        self.parts, self.features = self.layout(config)

    @classmethod
    @abstractmethod
    def layout(cls, config: Any) -> tuple[tuple[Part, ...], tuple[Feature, ...]]:
        """The parts of an agent's action, and the features of its observation row."""

    @property
    def num_agents(self) -> int:
        """Agents of one environment."""
        return len(self.agents)

    @property
    def view(self) -> Any:
        """What policies read: by default the task itself. Its attribute `task` is the task."""
        return self

    @property
    def task(self) -> Task:
        """The task itself, so that it can be its own view."""
        return self

    # One step
    @abstractmethod
    def reset(self, envs: np.ndarray, seeds: Sequence[int], episodes: Sequence[int]) -> None:
        """Begin new episodes.

        Args:
            envs: the environments, int64 [N].
            seeds: one per environment.
            episodes: how many episodes each seed has had before, so that each has random numbers of its own.
        """

    @abstractmethod
    def advance(self, plans: np.ndarray) -> None:
        """Let one decision interval pass in every environment under `plans` [E, A]."""

    @abstractmethod
    def price(self) -> np.ndarray:
        """Reward terms of the last step, float64 [E, A, len(terms)]; an agent's reward is their sum."""

    def credit(self, reward: np.ndarray) -> np.ndarray:
        """The rewards of the last step, float64 [E, A], as a policy learns from them; by default as they are.

        A task may leave out what no decision changes, and charge what one agent does to others to that agent.
        """
        return reward

    def terminated(self) -> np.ndarray:
        """Environments that have come to an end of their own, before the horizon, bool [E]."""
        return np.zeros(self.num_envs, bool)

    # What agents may do and see
    def decode(self, actions: np.ndarray) -> np.ndarray:
        """Plans [E, A] from actions that have been checked, int [E, A, parts]; by default they are the plans."""
        return actions

    def encode(self, plans: np.ndarray) -> np.ndarray:
        """Actions int [E, A, parts] that come nearest to plans [E, A]; by default they are the plans."""
        return plans

    def masks(self) -> np.ndarray:
        """Which choices can have an effect, bool [E, A, sum of the part sizes]; by default all."""
        return np.ones((self.num_envs, self.num_agents, sum(part.size for part in self.parts)), bool)

    @abstractmethod
    def observe(self) -> np.ndarray:
        """Observation rows, float32 [E, A, len(features)], a fresh array."""

    def foresee(self) -> int:
        """Prepare for `outlook` from the next reset on; how many numbers it has, by default none."""
        return 0

    def outlook(self, which: np.ndarray) -> np.ndarray:
        """What no policy can know or change of the future of some agents, float32 [N, foresee()], for critics only.

        Args:
            which: int64 [N], environment * agents + agent.
        """
        return np.zeros((len(which), 0), np.float32)

    def occasions(self) -> np.ndarray | None:
        """What each agent's decision hangs on, in one number, int64 [E, A]: it may decide anew when that has changed.

        By default None: everybody decides in every interval. See envs/base/decisions.py.
        """
        return None

    def info(self) -> Mapping[str, np.ndarray]:
        """Further numbers for `info`, [E, A] each."""
        return {}

    def check_plans(self, plans: Any) -> np.ndarray:
        """Plans from outside, as an array of the shape and type that `decode` returns.

        Raises:
            ValueError: another shape or type.
        """
        return check_actions(plans, self.parts, self.agents, self.num_envs)

    # What an episode amounts to, what it looks like, and how it is kept
    def meter(self, **objectives: float) -> Meter:
        """An empty meter for the next episodes; `objectives` are those of the experiment's `evaluate` section."""
        return Meter(self)

    def drawing(self, env: int) -> Drawing:
        """What a picture of environment `env` shows.

        Raises:
            ValueError: this task draws nothing.
        """
        raise ValueError(f"{self.title} draws nothing: use render_mode None")

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, by name; by default all numpy arrays among the attributes."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def save(self) -> Any:
        """What the next step depends on besides `arrays`, as plain data."""
        return None

    def restore(self, saved: Any) -> None:  # noqa: B027
        """Take over what `save` returned; the arrays have been written back already."""
