"""An experiment: an environment, how policies are trained in it, and how they are evaluated.

In a YAML file the keys of the environment stand at the top, beside the sections `train` and `evaluate`, and `task`,
which names the environment.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .envs.base import registry
from .errors import ConfigError, require
from .settings.environment import DEFAULT_TASK, TASK, without_sections
from .settings.fields import build, show
from .settings.loader import read, to_dict

C = TypeVar("C")
GRID = "grid"  # as a name: all scenarios of a task


@dataclass(frozen=True)
class TrainConfig:
    """Stable-Baselines3 PPO with parameters shared by all UEs."""

    total_steps: int = 1_000_000  # agent-steps (environment steps times UEs)
    num_envs: int = 8  # environments side by side
    seed: int = 0
    rollout_steps: int = 128  # per environment and update
    batch_size: int = 2048  # agent-steps per gradient step
    epochs: int = 6  # passes over a rollout
    learning_rate: float = 1e-3  # at the start; it falls linearly to 0
    gamma: float = 0.997  # discount per decision interval
    gae_lambda: float = 0.97
    entropy: float = 0.001  # weight of the entropy bonus
    clip: float = 0.2  # PPO's clipping range
    neutral_bias: float = 3.0  # logit bonus at the start for: prepare nothing, keep all, 16 bit, equal share
    reward_scale: float = 5.0  # rewards are multiplied by this for PPO only
    hidden: tuple[int, ...] = (128, 128)  # units per layer, of the policy and of the value function
    checkpoint_every: int = 100_000  # agent-steps between checkpoints

    def __post_init__(self) -> None:
        for name in ("learning_rate", "gae_lambda", "entropy", "clip", "neutral_bias", "reward_scale"):
            require(math.isfinite(getattr(self, name)), f"{name} is {getattr(self, name)}: it must be finite")
        for name in ("total_steps", "num_envs", "rollout_steps", "batch_size", "epochs", "learning_rate",
                     "checkpoint_every", "reward_scale"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be above 0")
        require(self.batch_size >= 2,
                f"batch_size is {self.batch_size}: it must be at least 2, PPO normalises the advantages of a batch")
        require(0 <= self.gamma <= 1, f"gamma is {self.gamma}: it must lie in [0, 1]")


@dataclass(frozen=True)
class EvaluateConfig:
    """What evaluate.py does when the command line does not say otherwise."""

    policies: tuple[str, ...] = ("random", "tho", "cho", "ctho", "token-aware")
    episodes: int = 32
    seed: int = 1000  # of the first episode; training uses those from train.seed on
    ttft_objective_s: float = 0.5  # a handover, or a request, meets its objective below this [s]
    tpot_objective_s: float = 0.1  # and if tokens then come faster than this [s]

    @property
    def objectives(self) -> dict[str, float]:
        """What a task's meter judges by."""
        return {"ttft_objective_s": self.ttft_objective_s, "tpot_objective_s": self.tpot_objective_s}


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """An environment's configuration, and how it is trained on and evaluated: one YAML file is one experiment."""

    environment: C
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def load_experiment(path_or_name: str | Path = "handover", overrides: Iterable[str] = ()) -> Experiment[Any]:
    """The experiment of a YAML file, or of a shipped one.

    Args:
        path_or_name: path of a YAML file (a run's config.json is one), or the name of a shipped one ("handover").
        overrides: "key.sub=value" strings, the value read as YAML; later ones win, all win over the file.

    Raises:
        ConfigError: there is no such file or task, an unknown key, or a value that cannot be used.
    """
    return build_experiment(read(path_or_name, overrides), where=str(path_or_name))


def build_experiment(mapping: Mapping[str, Any], where: str = "config") -> Experiment[Any]:
    """The experiment that a flat mapping describes; the reverse of `flat`.

    Args:
        mapping: as a YAML file has it.
        where: what messages start with, such as the file name.

    Raises:
        ConfigError: as `load_experiment`.
    """
    task = mapping.get(TASK, DEFAULT_TASK)
    if not isinstance(task, str):
        raise ConfigError(f"{where}: task is {show(task)}; expected one of {', '.join(registry.names())}")
    # Built as one, so that an unknown key is compared with those of all sections.
    whole = build(file_class(task), mapping, where=where)
    settings = build(registry.config_class(task), without_sections(mapping), where=where)
    return Experiment(settings, whole.train, whole.evaluate)


def flat(experiment: Experiment[Any]) -> dict[str, Any]:
    """The flat mapping, of dicts, lists and scalars, that `build_experiment` makes an equal experiment of."""
    return {TASK: experiment.environment.task, **to_dict(experiment.environment),
            "train": to_dict(experiment.train), "evaluate": to_dict(experiment.evaluate)}


def scenarios(name: str) -> tuple[str, ...]:
    """The experiment files that a name stands for: `grid` and `grid:TASK` for all scenarios of a task.

    Raises:
        ConfigError: there is no such task, or it has no scenarios.
    """
    if name != GRID and not name.startswith(f"{GRID}:"):
        return (name,)
    task = name.partition(":")[2] or DEFAULT_TASK
    found: tuple[str, ...] = registry.task(task).scenarios
    if not found:
        raise ConfigError(f"{name}: task {task!r} has no scenarios; name YAML files")
    return found


@functools.cache
def file_class(task: str = DEFAULT_TASK) -> Any:
    """A dataclass of all keys that an experiment file of that environment may have."""
    config = registry.config_class(task)
    sections = [(TASK, str, field(default=task)), ("train", TrainConfig, field(default_factory=TrainConfig)),
                ("evaluate", EvaluateConfig, field(default_factory=EvaluateConfig))]
    return make_dataclass(f"{config.__name__}File", sections, bases=(config,), frozen=True)
