"""Evaluations on seeds that training does not see: the learning curve, the best policy, the early stop."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..agents import policy_file
from ..agents.learned import BEST, LearnedPolicy
from ..agents.policy_file import PolicyFile
from ..envs.base import registry
from ..envs.base.core import Core
from ..envs.base.make import make_core
from ..evaluation.estimates import mean_interval
from ..evaluation.rollout import episodes
from ..experiment import Experiment
from ..files import write_whole
from .algorithm import environments

CURVE = "learning_curve.csv"
# Far from the seeds of trainings (train.seed on) and of published evaluations (evaluate.seed on).
FIRST_SEED = 1_000_000
_METRICS = ("avoidable_cost", "cost")  # the first that a task has


class Row(NamedTuple):
    """One evaluation."""

    steps: int
    seconds: float  # of training, evaluations included [s]
    cost: float  # mean over all episodes
    ci_low: float
    ci_high: float
    worlds: tuple[float, ...]  # means of the single worlds


@dataclass
class History:
    """What a resumed run has to know of its evaluations so far."""

    rows: list[Row] = field(default_factory=list)
    best: float = np.inf
    waited: int = 0  # evaluations since the best one


def target_metric(task: str) -> str:
    """What the policies of a task are judged by while they are trained; lower is better."""
    known = {metric.name for metric in registry.task(task).metrics}
    return next(name for name in _METRICS if name in known)


def write_curve(out: Path, head: Sequence[str], rows: Iterable[tuple[int, float, Iterable[float]]]) -> None:
    """Write a run's learning curve: steps, seconds, and what was measured after them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for steps, seconds, numbers in rows:
        writer.writerow([steps, f"{seconds:.1f}", *(f"{number:.6g}" for number in numbers)])
    write_whole(out / CURVE, lambda draft: draft.write_bytes(text.getvalue().encode()))


class HeldOut:
    """Plays the policy of a training in environments of its own.

    Args:
        experiment: what is trained.
        out: run folder, which gets `learning_curve.csv` and `best.safetensors`.
        history: of a run that goes on.

    Attributes:
        metric: name of what is measured; lower is better.
    """

    def __init__(self, experiment: Experiment[Any], out: Path, history: History | None = None) -> None:
        self.experiment, self.out, self.history = experiment, out, history or History()
        self.configs = environments(experiment)
        self._cores: dict[str, Core] = {}
        self.metric = target_metric(experiment.environment.task)

    @property
    def seeds(self) -> list[int]:
        """Of the episodes, the same in all worlds."""
        first = FIRST_SEED + self.experiment.train.seed
        return [first + k for k in range(self.experiment.train.evaluate_episodes)]

    def due(self, steps: int) -> bool:
        """Whether it is time for an evaluation."""
        every, rows = self.experiment.train.evaluate_every, self.history.rows
        return every > 0 and (not rows or steps - rows[-1].steps >= every)

    def evaluate(self, found: PolicyFile, seconds: float) -> Row:
        """Play all held-out episodes, and write the curve and, if it is the best so far, the policy."""
        costs = {name: self._play(name, config, found) for name, config in self.configs.items()}
        values = np.concatenate(list(costs.values()))
        labels = [name for name, of in costs.items() for _ in of]
        low, high, _ = mean_interval(values, strata=labels)
        row = Row(found.about.steps, seconds, float(np.mean(values)), low, high,
                  tuple(float(np.mean(of)) for of in costs.values()))
        history = self.history
        history.rows.append(row)
        if row.cost < history.best:
            history.best, history.waited = row.cost, 0
            policy_file.write(self.out / BEST, found)
        else:
            history.waited += 1
        self._write()
        return row

    @property
    def enough(self) -> bool:
        """Whether `train.patience` evaluations have passed without improvement."""
        patience = self.experiment.train.patience
        return patience is not None and self.history.waited >= patience

    def _play(self, name: str, config: Any, found: PolicyFile) -> np.ndarray:
        if name not in self._cores:
            self._cores[name] = make_core(config, len(self.seeds))
        player = LearnedPolicy(found, config)
        *_, outcomes = episodes(self._cores[name], player, self.seeds, self.experiment.evaluate)
        return np.array([metrics[self.metric] for metrics, _ in outcomes or ()])

    def _write(self) -> None:
        several = list(self.configs) if len(self.configs) > 1 else []
        rows = [(row.steps, row.seconds, (row.cost, row.ci_low, row.ci_high, *(row.worlds if several else ())))
                for row in self.history.rows]
        write_curve(self.out, ["steps", "seconds", self.metric, "ci_low", "ci_high", *several], rows)
