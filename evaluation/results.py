"""`evaluate`: every policy in every experiment on the same seeds, summarised."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .. import __version__
from ..envs.base import registry
from ..envs.base.make import make_core
from ..errors import ConfigError
from ..experiment import Experiment, flat
from ..settings.fields import show
from .estimates import paired_difference, paired_ratio
from .players import gather, warn_of_training_seeds
from .report import FORMAT, machine, summarise, versions
from .rollout import episodes as play

# Episodes that run side by side; more share each forward pass but take more memory.
SIDE_BY_SIDE = 16

Progress = Callable[[str, int, int], Any]


def evaluate(experiments: Experiment[Any] | Mapping[str, Experiment[Any]], policies: Sequence[Any] | Mapping[str, Any],
             episodes: int, seed: int, progress: Progress | None = None) -> dict[str, Any]:
    """Run every policy on episodes seeded seed, seed + 1, ... and summarise.

    torch uses as many threads as it is set to; one is the fastest for models as small as the embedded one.

    Args:
        experiments: the experiment, or several by name.
        policies: names (kvroam.agents.names()), checkpoints, NAME=PATH, or Policy objects (kvroam.agents.Policy); or
            a mapping that names them.
        episodes: per policy and experiment, at least 1.
        seed: of the first episode.
        progress: called as progress(policy, steps done, steps in all) after every step.

    Returns:
        The results dictionary that kvroam.evaluation.report writes: `format`, `config`, `versions`, `machine`, `seeds`,
        `policies.NAME.episodes.METRIC` (a list over episodes), `policies.NAME.summary.METRIC` and `paired`. With
        several experiments `scenarios` names that of each episode, and `by_scenario.NAME` holds `config`, `policies`
        and `paired` of each.

    Raises:
        ConfigError, PolicyError, SceneError: something that cannot be used, named.
    """
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}: at least 1 is needed")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: it must not be negative")
    chosen = _by_scenario(experiments)
    seeds = list(range(seed, seed + episodes))
    teams = {name: gather(policies, experiment.environment, seed) for name, experiment in chosen.items()}
    warn_of_training_seeds(next(iter(teams.values())), seeds)
    rounds = -(-episodes // SIDE_BY_SIDE)
    total = sum(len(teams[name]) * rounds * one.environment.max_steps for name, one in chosen.items())
    done = 0

    def tick(label: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(label, done, total)

    found = {scenario: {name: _run(experiment, player, seeds, partial(tick, f"{scenario} {name}".strip()))
                        for name, player in teams[scenario].items()}
             for scenario, experiment in chosen.items()}
    shared = {"format": FORMAT, "kvroam": __version__, "versions": versions(), "machine": machine()}
    references = {name: registry.task(one.environment.task).references for name, one in chosen.items()}
    parts = {}
    for name, experiment in chosen.items():
        config = flat(experiment)
        # A task without a language model has no such setting.
        mode = config.get("scoring", {}).get("mode")
        parts[name] = {"config": config, "scoring": mode, "seeds": seeds, **summaries(found[name], references[name])}
    if isinstance(experiments, Experiment):
        return shared | parts[""]
    labels = [name for name in chosen for _ in seeds]
    joined = {name: {"episodes": {metric: [value for runs in found.values() for value in runs[name]["episodes"][metric]]
                                  for metric in first["episodes"]},
                     "wall_s": sum(runs[name]["wall_s"] for runs in found.values())}
              for name, first in next(iter(found.values())).items()}
    modes = {part["scoring"] for part in parts.values()}
    everyone = dict.fromkeys(itertools.chain(*references.values()))
    return shared | {"config": {}, "scoring": modes.pop() if len(modes) == 1 else "mixed",
                     "seeds": seeds * len(chosen), "scenarios": labels, **summaries(joined, everyone, labels),
                     "by_scenario": parts}


def _by_scenario(experiments: Any) -> dict[str, Experiment[Any]]:
    if isinstance(experiments, Experiment):
        return {"": experiments}
    chosen = dict(experiments) if isinstance(experiments, Mapping) else {"": experiments}
    wrong = [one for one in chosen.values() if not isinstance(one, Experiment)]
    if wrong or not chosen:
        name = wrong[0] if wrong and isinstance(wrong[0], str) else "handover"
        raise ConfigError(f"evaluate was given {show(wrong[0]) if wrong else 'no experiment'}: expected an Experiment, "
                          f"such as kvroam.experiment.load_experiment({name!r}), or several by name")
    return chosen


def _run(experiment: Experiment[Any], player: Any, seeds: Sequence[int], tick: Callable[[], Any]) -> dict[str, Any]:
    """All episodes of one policy: {"episodes": {METRIC: one value per seed}, "wall_s"}."""
    began = time.perf_counter()
    outcomes: list[dict[str, float]] = []
    for first in range(0, len(seeds), SIDE_BY_SIDE):
        chunk = seeds[first:first + SIDE_BY_SIDE]
        for outcome in play(make_core(experiment.environment, len(chunk)), player, chunk, experiment.evaluate):
            if outcome is None:
                tick()
            else:
                outcomes += outcome
    return {"episodes": by_metric(outcomes), "wall_s": time.perf_counter() - began}


def by_metric(outcomes: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """{METRIC: one value per episode} from the metrics of each episode."""
    return {metric: [outcome[metric] for outcome in outcomes] for metric in outcomes[0]}


def summaries(runs: Mapping[str, Any], references: Iterable[str],
              strata: Sequence[str] | None = None) -> dict[str, Any]:
    """Summaries and paired differences of {policy: {"episodes", "wall_s"}}.

    Args:
        runs: what each policy did.
        references: whom the others are compared with, episode by episode, when they take part.
        strata: a label per episode.
    """
    policies = {name: {"episodes": run["episodes"], "summary": summarise(run["episodes"], strata),
                       "wall_s": run["wall_s"]} for name, run in runs.items()}
    return {"policies": policies, "paired": {name: paired(policies, name, strata) for name in references
                                             if name in policies}}


def paired(policies: Mapping[str, Any], reference: str, strata: Sequence[str] | None = None) -> dict[str, Any]:
    """Differences of every other policy from the reference on the same seeds, and ratios, for every metric."""
    base = policies[reference]["episodes"]
    return {name: {metric: _compared(values, base[metric], strata) for metric, values in policy["episodes"].items()}
            for name, policy in policies.items() if name != reference}


def _compared(a: Sequence[float], b: Sequence[float], strata: Sequence[str] | None) -> dict[str, float]:
    ratio = paired_ratio(a, b, strata=strata)
    return {**paired_difference(a, b, strata=strata)._asdict(),
            "ratio": ratio.ratio, "ratio_low": ratio.low, "ratio_high": ratio.high}
