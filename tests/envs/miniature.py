"""The smallest complete task: who guesses the next number of a counter pays nothing. It shows what a task needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from kvroam.envs.base.config import TaskConfig
from kvroam.envs.base.declare import Feature, Part, price, terms_of
from kvroam.envs.base.pricing import priced
from kvroam.envs.base.task import Task
from kvroam.envs.views.aec import AECView
from kvroam.envs.views.central import CentralVectorView, CentralView
from kvroam.envs.views.ego import EgoVectorView, EgoView
from kvroam.envs.views.parallel import ParallelView
from kvroam.envs.views.sb3 import StableBaselinesView


@dataclass(frozen=True)
class Reward:
    """What a wrong guess costs."""

    miss: float = price(1.0, "wrong guess")


@dataclass(frozen=True)
class Settings(TaskConfig):
    """Players, the horizon, and when the counter ends the episode by itself."""

    task: ClassVar[str] = "counting"
    players: int = 2
    interval_s: float = 1.0  # [s]
    episode_s: float = 6.0  # [s]
    stop_at: int = 100  # an environment terminates when its counter gets here
    reward: Reward = field(default_factory=Reward)


class Counting(Task):
    """A counter begins at a number that the seed decides, and goes up by one in each step."""

    name, title, Config, terms = "counting", "Counting", Settings, terms_of(Reward)

    def __init__(self, config: Settings, num_envs: int = 1, threads: int = 1) -> None:
        super().__init__(config, num_envs, threads)
        self.agents = tuple(f"player_{i}" for i in range(config.players))
        self.count = np.zeros(num_envs, np.int64)
        self.missed = np.zeros((num_envs, config.players))

    @classmethod
    def layout(cls, config: Settings) -> tuple[tuple[Part, ...], tuple[Feature, ...]]:
        """A guess among four; the counter's last digit in base four."""
        return (Part("guess", ("0", "1", "2", "3")),), (Feature("digit", "the counter modulo 4", "1", 0, 3),)

    def reset(self, envs: np.ndarray, seeds: Sequence[int], episodes: Sequence[int]) -> None:
        """A new start for each environment."""
        self.count[envs] = [np.random.default_rng([seed, n]).integers(0, 50)
                            for seed, n in zip(seeds, episodes, strict=True)]
        self.missed[envs] = 0.0

    def advance(self, plans: np.ndarray) -> None:
        """Compare the guesses with the next number."""
        self.count += 1
        self.missed = (plans[..., 0] != self.count[:, None] % 4).astype(float)

    def price(self) -> np.ndarray:
        """A price for each miss."""
        return priced(self.missed[..., None], np.array([self.config.reward.miss]))

    def terminated(self) -> np.ndarray:
        """Environments whose counter has reached the end."""
        return self.count >= self.config.stop_at

    def observe(self) -> np.ndarray:
        """The digit, the same for all players."""
        digit = (self.count % 4).astype(np.float32)
        return np.repeat(digit[:, None, None], len(self.agents), axis=1)


class CountingEnv(ParallelView):
    """PettingZoo parallel."""

    task = Counting


class CountingAEC(AECView):
    """PettingZoo AEC."""

    parallel = CountingEnv


class CountingCentralEnv(CentralView):
    """Gymnasium, one controller."""

    task = Counting


class CountingCentralVectorEnv(CentralVectorView):
    """The same, vectorised."""

    task = Counting


def perfect(view: Counting) -> np.ndarray:
    """Always guess right, int [E, A, 1]."""
    return np.repeat((view.count + 1)[:, None, None] % 4, view.num_agents, axis=1)


class CountingEgoEnv(EgoView):
    """Gymnasium, one player among others that guess right."""

    task = Counting


class CountingEgoVectorEnv(EgoVectorView):
    """The same, vectorised."""

    task = Counting


class CountingVecEnv(StableBaselinesView):
    """Stable-Baselines3."""

    task = Counting
