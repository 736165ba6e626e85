"""`train.algorithm: evolution`: the numbers by which a planner judges are learned by a search strategy (CMA-ES).

Each generation draws some sets of numbers, plays the same episodes with all of them, in all worlds, and moves towards
those that cost least. No gradient is needed, and what a plan does to others counts, since whole episodes are compared.
Every generation has new seeds, so what the present mean costs in it is measured in episodes that had no say in it.
Episodes differ much, so the mean wanders; the policy is the average of the means of the second half of the generations.
Source: Hansen and Ostermeier, Evolutionary Computation 9 (2001); the implementation is pycma.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..agents import policy_file
from ..agents.actor import Network
from ..agents.learned import LAST
from ..agents.policy_file import PolicyFile
from ..agents.registry import catalogue
from ..envs.base.core import Core
from ..envs.base.make import make_core
from ..errors import ConfigError, PolicyError
from ..evaluation.rollout import episodes
from ..experiment import EvaluateConfig, Experiment
from ..files import write_whole
from ..processes import pool
from .algorithm import environments
from .held_out import target_metric, write_curve
from .stopping import StopRequest

HISTORY = "evolution.json"
_FIRST_SEED = 3_000_000_000  # far from those of all others
_WIDEST = 4.0  # in standard deviations at the start: no number goes further
_TINY = 1e-9  # where nothing is to be paid, nobody pays more


class Job(NamedTuple):
    """One world of one generation, for a worker."""

    config: Any
    points: np.ndarray  # [candidates, numbers]
    seeds: tuple[int, ...]
    goals: EvaluateConfig


class Generation(NamedTuple):
    """What is kept of a generation."""

    values: list[float]  # of the candidates: cost over that of the numbers set by hand, mean over the worlds
    mean: float  # of the mean before the generation, likewise
    worlds: list[float]  # of that mean in every world, as a cost
    seconds: float


def train(experiment: Experiment[Any], out: Path, quiet: bool, resume: bool) -> Path:
    """Search, and write the policy after every generation.

    Args:
        experiment: `train.generations`, `population`, `evolution_episodes`, `sigma`, `workers`.
        out: run folder that has begun.
        quiet: no progress bar.
        resume: go on with the generations that the folder knows.

    Returns:
        The path of the policy.

    Raises:
        ConfigError: the task has nothing that could be learned in this way.
        PolicyError: the history of the folder is not that of this configuration.
        KeyboardInterrupt: a signal asked to stop; everything so far is kept.
    """
    import cma

    options, task = experiment.train, experiment.environment.task
    tunable = catalogue(task).tunable
    if tunable is None:
        raise ConfigError(f"train.algorithm is evolution: task {task} has no policy whose numbers can be learned")
    configs = environments(experiment)
    count = len(tunable.names)
    search = cma.CMAEvolutionStrategy(np.zeros(count), options.sigma, {
        "popsize": options.population, "seed": options.seed + 1, "verbose": -9, "bounds": [-_WIDEST, _WIDEST]})
    known: list[Generation] = []
    means: list[np.ndarray] = []
    for kept in _read(out) if resume else ():
        # The search is deterministic: it is where it was once it has been told the same again.
        search.tell(search.ask(), kept.values)
        known.append(kept)
        means.append(search.mean.copy())
    began = time.perf_counter() - (known[-1].seconds if known else 0.0)
    path = out / LAST
    with StopRequest() as stop, _players(options.workers) as played, tqdm(
            total=options.generations, initial=len(known), unit="generation", disable=quiet,
            dynamic_ncols=True) as bar:
        while len(known) < options.generations:
            mean, points = search.mean.copy(), search.ask()
            first = _FIRST_SEED + (options.seed * 10_000 + len(known)) * options.evolution_episodes
            seeds = tuple(first + k for k in range(options.evolution_episodes))
            jobs = [Job(config, np.stack([np.zeros(count), mean, *points]), seeds, experiment.evaluate)
                    for config in configs.values()]
            costs = np.array(played(jobs))  # [worlds, 2 + population]
            ratios = ((costs + _TINY) / (costs[:, :1] + _TINY)).mean(axis=0)
            search.tell(points, ratios[2:].tolist())
            means.append(search.mean.copy())
            known.append(Generation(ratios[2:].tolist(), float(ratios[1]), costs[:, 1].tolist(),
                                    time.perf_counter() - began))
            _write(out, known, list(configs), options)
            policy_file.write(path, _policy(experiment, tunable.names, means))
            bar.update()
            bar.set_postfix_str(f"mean costs {ratios[1]:.3f} of the numbers set by hand")
            if stop.asked and len(known) < options.generations:
                raise KeyboardInterrupt
    policy_file.write(path, _policy(experiment, tunable.names, means))
    return path


def play(given: Job) -> list[float]:
    """Mean cost of every candidate in one world, over the same seeds."""
    config, points, seeds, goals = given
    core = _core(config, len(points) * len(seeds))
    tunable = catalogue(config.task).tunable
    assert tunable is not None
    policy = tunable.make(np.repeat(points, len(seeds), axis=0), config)
    *_, outcomes = episodes(core, policy, list(seeds) * len(points), goals)
    metric = target_metric(config.task)
    costs = np.array([metrics[metric] for metrics, _ in outcomes or ()])
    return costs.reshape(len(points), -1).mean(axis=1).tolist()


_CORES: dict[str, Core] = {}


def _core(config: Any, num_envs: int) -> Core:
    """A core of this process, made once for every world."""
    key = f"{config!r} {num_envs}"
    if key not in _CORES:
        _CORES[key] = make_core(config, num_envs)
    return _CORES[key]


@contextmanager
def _players(workers: int) -> Iterator[Callable[[list[Job]], list[list[float]]]]:
    """A function that plays jobs, in some processes; the results do not depend on how many."""
    if workers == 1:
        yield lambda jobs: [play(job) for job in jobs]
        return
    with pool(workers) as processes:
        yield lambda jobs: list(processes.map(play, jobs))


def _policy(experiment: Experiment[Any], names: tuple[str, ...], means: list[np.ndarray]) -> PolicyFile:
    """The average of the means of the second half of the generations."""
    point = np.mean(means[len(means) // 2:], axis=0)
    return policy_file.assemble(experiment, Network("numbers", (), "Tanh", names=names), {"numbers": point},
                                algorithm="evolution", decisions=False, masked=False, steps=len(means))


def _write(out: Path, known: list[Generation], worlds: list[str], options: Any) -> None:
    text = json.dumps([generation._asdict() for generation in known], indent=0) + "\n"
    write_whole(out / HISTORY, lambda draft: draft.write_text(text, encoding="utf-8"))
    played = (options.population + 2) * options.evolution_episodes * len(worlds)
    write_curve(out, ["steps", "seconds", "relative_cost", "avoidable_cost", *worlds],
                [(number * played, it.seconds, (it.mean, float(np.mean(it.worlds)), *it.worlds))
                 for number, it in enumerate(known)])


def _read(out: Path) -> list[Generation]:
    try:
        return [Generation(**one) for one in json.loads((out / HISTORY).read_text(encoding="utf-8"))]
    except FileNotFoundError as error:
        raise PolicyError(f"run {str(out)!r} cannot go on: it has no {HISTORY} yet; train it anew") from error
    except (ValueError, TypeError) as error:
        raise PolicyError(f"run {str(out)!r} cannot go on: {HISTORY} is damaged; train it anew") from error
