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
from typing import Any, Generic, Literal, TypeVar

from .envs.base import registry
from .errors import ConfigError, require
from .settings.environment import DEFAULT_TASK, TASK, without_sections
from .settings.fields import build, show
from .settings.loader import read, to_dict

C = TypeVar("C")
GRID = "grid"  # as a name: all scenarios of a task


@dataclass(frozen=True)
class TrainConfig:
    """How one policy that all agents share is trained.

    A step is a decision of one agent; with `decisions: false`, where everybody decides in every interval, it is an
    interval of one agent.
    """

    algorithm: Literal["ppo", "maskable-ppo", "recurrent-ppo", "mappo", "bc", "evolution"] = "maskable-ppo"
    engine: Literal["sb3", "rllib"] = "sb3"  # the library that trains
    decisions: bool = True  # agents are asked at their decision points only (kvroam.envs.base.decisions)
    # Trained in side by side: files or shipped names, each with its changes: "rush_hour scene=umi-04 num_ues=24". None:
    # the environment of this file.
    worlds: tuple[str, ...] = ()
    scoring: Literal["table", "kv", "none"] = "table"  # scoring.mode while training and in its evaluations
    start: str | None = None  # a policy to start from: a policy file, a run folder, or the name of a shipped policy
    imitate: str | None = None  # a named policy to imitate before anything else, such as greedy-planner or hindsight
    imitate_episodes: int = 8  # of each world and round
    imitate_rounds: int = 4  # the expert plays in the first one; then the learner plays, and the expert says what to do
    imitate_epochs: int = 6  # passes over all lessons so far, after each round
    openness: float = 0.15  # weight of the entropy while imitating, so that the policy stays ready to try other things
    generations: int = 40  # of evolution
    population: int = 15  # sets of numbers that a generation tries
    evolution_episodes: int = 4  # that each of them plays in each world
    sigma: float = 0.6  # how far from the present numbers the first generation looks
    workers: int = 2  # processes that play; the numbers do not depend on it
    critic_first: int = 0  # rollouts at the start from which only the value function learns
    total_steps: int = 1_000_000
    num_envs: int = 8  # environments of each world; of one with more than 16 agents as many fewer
    seed: int = 0
    rollout_steps: int = 128  # per agent and update, on average
    batch_size: int = 2048  # steps per gradient step
    epochs: int = 6  # passes over a rollout
    learning_rate: float = 1e-3  # at the start; it falls linearly to 0
    gamma: float = 0.997  # discount per decision interval
    gae_lambda: float = 0.97
    entropy: float = 0.001  # weight of the entropy bonus
    clip: float = 0.2  # PPO's clipping range
    neutral_bias: float = 3.0  # logit bonus at the start for: prepare nothing, keep all, 16 bit, equal share
    reward_scale: float = 5.0  # rewards are multiplied by this for PPO only
    credit: bool = True  # at decision points: rewards are dealt out to whose decisions they follow from (Task.credit)
    hidden: tuple[int, ...] = (128, 128)  # units per layer, of the policy and of the value function
    activation: Literal["Tanh", "ReLU", "ELU", "LeakyReLU", "GELU", "SiLU"] = "ReLU"
    checkpoint_every: int = 100_000  # steps between checkpoints
    evaluate_every: int = 100_000  # steps between evaluations on held-out seeds; 0: none
    evaluate_episodes: int = 16  # of each world, in each of these evaluations
    patience: int | None = None  # stop after so many evaluations without improvement; None: never
    runners: int = 2  # rllib: processes that play, which share the environments
    scorers: int = 1  # rllib: processes with a language model, for scoring.mode kv; 0: every runner has its own
    ray_address: str | None = None  # rllib: of a Ray cluster, such as ray://host:10001 or auto; null: this machine

    def __post_init__(self) -> None:
        for name in ("learning_rate", "gae_lambda", "entropy", "clip", "neutral_bias", "reward_scale",
                     "openness"):
            require(math.isfinite(getattr(self, name)), f"{name} is {getattr(self, name)}: it must be finite")
        for name in ("total_steps", "num_envs", "rollout_steps", "batch_size", "epochs", "learning_rate",
                     "checkpoint_every", "reward_scale", "imitate_episodes", "imitate_rounds", "imitate_epochs",
                     "generations", "evolution_episodes", "sigma", "workers"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be above 0")
        require(self.batch_size >= 2,
                f"batch_size is {self.batch_size}: it must be at least 2, PPO normalises the advantages of a batch")
        require(self.population >= 4, f"population is {self.population}: it must be at least 4")
        require(self.runners >= 1, f"runners is {self.runners}: it must be at least 1")
        require(self.scorers >= 0, f"scorers is {self.scorers}: it must not be negative")
        require(0 <= self.gamma <= 1, f"gamma is {self.gamma}: it must lie in [0, 1]")
        for name in ("seed", "evaluate_every", "critic_first", "openness"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")
        require(self.evaluate_episodes >= 2,
                f"evaluate_episodes is {self.evaluate_episodes}: it must be at least 2, for an interval")
        require(self.patience is None or self.patience >= 1,
                f"patience is {self.patience}: it must be at least 1, or null for never")
        require(self.patience is None or self.evaluate_every > 0,
                "patience needs evaluations: set evaluate_every above 0")
        require(len(set(self.worlds)) == len(self.worlds), f"worlds {list(self.worlds)} names one twice")
        require(self.decisions or len(self.worlds) < 2,
                f"worlds are {len(self.worlds)}: several need decisions: true")
        require(not (self.decisions and self.algorithm == "recurrent-ppo"),
                "algorithm recurrent-ppo remembers from interval to interval: set decisions: false")
        require(self.algorithm != "bc" or self.imitate is not None,
                "algorithm bc imitates and does nothing else: say whom by imitate")
        require(self.decisions or self.imitate is None, "imitate needs decision points: set decisions: true")
        require(self.decisions or self.algorithm not in ("mappo", "bc"),
                f"algorithm {self.algorithm} trains at decision points only: set decisions: true")
        require(self.algorithm not in ("recurrent-ppo", "mappo") or len(self.hidden) > 0,
                f"hidden is []: {self.algorithm} needs at least one layer")


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
