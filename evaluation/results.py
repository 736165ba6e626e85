"""`evaluate`: every policy in every experiment on the same seeds, summarised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .. import __version__, agents
from ..envs.base import registry
from ..errors import ConfigError
from ..experiment import Experiment, flat
from ..settings.fields import show
from .estimates import paired_difference, paired_ratio
from .identity import made_by, of_scenario
from .players import Player, gather, warn_of_training_seeds
from .report import FORMAT, machine, summarise, versions
from .store import Store
from .units import Played, Unit, blocks, by_name
from .workers import play_apart, play_here

Progress = Callable[[str, int, int], Any]


def evaluate(experiments: Experiment[Any] | Mapping[str, Experiment[Any]], policies: Sequence[Any] | Mapping[str, Any],
             episodes: int, seed: int, progress: Progress | None = None, workers: int = 1,
             store: Store | None = None) -> dict[str, Any]:
    """Run every policy on episodes seeded seed, seed + 1, ... and summarise.

    torch uses as many threads as it is set to; one is the fastest for models as small as the embedded one.

    Args:
        experiments: the experiment, or several by name.
        policies: names (kvroam.agents.names()), checkpoints, NAME=PATH, or Policy objects (kvroam.agents.Policy); or
            a mapping that names them.
        episodes: per policy and experiment, at least 1.
        seed: of the first episode.
        progress: called as progress(policy, steps done, steps in all) after every step.
        workers: processes; the results are the same for any number. Policies that are objects are played in this one.
        store: where finished blocks of episodes are kept, and looked for first.

    Returns:
        The results dictionary that kvroam.evaluation.report writes: `format`, `environment`, `config`, `fingerprint`,
        `versions`, `machine`, `seeds`, `policies.NAME.episodes.METRIC` (a list over episodes),
        `policies.NAME.parts.TERM` (what each term of the reward cost, likewise), `policies.NAME.summary.METRIC`,
        `policies.NAME.kind` and `paired`. With several experiments `scenarios` names that of each episode, and
        `by_scenario.NAME` holds `config`, `policies` and `paired` of each.

    Raises:
        ConfigError, PolicyError, SceneError: something that cannot be used, named.
    """
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}: at least 1 is needed")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: it must not be negative")
    if workers < 1:
        raise ConfigError(f"workers is {workers}: at least 1 process is needed")
    chosen = _by_scenario(experiments)
    seeds = list(range(seed, seed + episodes))
    teams = {name: gather(policies, experiment.environment, seed) for name, experiment in chosen.items()}
    warn_of_training_seeds(next(iter(teams.values())), seeds)
    found = _play(chosen, teams, seeds, progress, workers, store)

    shared = {"format": FORMAT, "kvroam": __version__, "versions": versions(), "machine": machine()}
    references = {name: registry.task(one.environment.task).references for name, one in chosen.items()}
    parts = {}
    for name, experiment in chosen.items():
        config = flat(experiment)
        # A task without a language model has no such setting.
        mode = config.get("scoring", {}).get("mode")
        title = registry.task(experiment.environment.task).title
        parts[name] = {"environment": f"kvroam/{title}-v0", "config": config, "fingerprint": of_scenario(experiment),
                       "scoring": mode, "seeds": seeds, **summaries(found[name], references[name])}
    if isinstance(experiments, Experiment):
        return shared | parts[""]
    labels = [name for name in chosen for _ in seeds]
    modes = {part["scoring"] for part in parts.values()}
    everyone = dict.fromkeys(itertools.chain(*references.values()))
    return shared | {"config": {}, "scoring": modes.pop() if len(modes) == 1 else "mixed",
                     "seeds": seeds * len(chosen), "scenarios": labels,
                     **summaries(_joined(list(found.values())), everyone, labels), "by_scenario": parts}


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


def _play(chosen: Mapping[str, Experiment[Any]], teams: Mapping[str, Mapping[str, Player]], seeds: Sequence[int],
          progress: Progress | None, workers: int, store: Store | None) -> dict[str, dict[str, Any]]:
    """{scenario: {policy: what `summaries` needs}}; what is stored is not played."""
    units = [Unit(scenario, name, player.given, seeds[0], block) for scenario, team in teams.items()
             for name, player in team.items() for block in blocks(seeds)]
    made = {(scenario, name): made_by(chosen[scenario], player.given, seeds[0]) if store is not None else None
            for scenario, team in teams.items() for name, player in team.items()}
    played: dict[tuple[str, str, int], Played] = {}

    def key(unit: Unit) -> tuple[str, str, int]:
        return unit.scenario, unit.policy, unit.seeds[0]

    for unit in units:
        by = made[unit.scenario, unit.policy]
        if store is not None and by is not None and (there := store.get(unit, by)) is not None:
            played[key(unit)] = there
    missing = [unit for unit in units if key(unit) not in played]
    if store is not None:
        store.tell(*(sum(len(unit.seeds) for unit in some) for some in ([u for u in units if key(u) in played], units)))
    total, done = sum(chosen[unit.scenario].environment.max_steps for unit in missing), 0

    def tick(unit: Unit) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(f"{unit.scenario} {unit.policy}".strip(), done, total)

    # An object of this process cannot be sent to another one.
    apart = [unit for unit in missing if workers > 1 and isinstance(unit.given, (str, Path))]
    here = [unit for unit in missing if workers == 1 or not isinstance(unit.given, (str, Path))]
    for playing in (play_apart(apart, chosen, tick, workers), play_here(here, chosen, tick)):
        # Closed at once where a file cannot be written or Ctrl-C was pressed: that ends the workers.
        with closing(playing):
            for unit, result in playing:
                played[key(unit)] = result
                by = made[unit.scenario, unit.policy]
                if store is not None and by is not None:
                    store.put(unit, by, result)
    return {scenario: {name: _run(player, chosen[scenario], [played[key(u)] for u in units
                                                             if (u.scenario, u.policy) == (scenario, name)])
                       for name, player in team.items()} for scenario, team in teams.items()}


def _run(player: Player, experiment: Experiment[Any], played: Sequence[Played]) -> dict[str, Any]:
    """All episodes of a policy in a scenario."""
    return {"kind": agents.role(player.given, experiment.environment),
            "episodes": by_name(row for block in played for row in block.metrics),
            "parts": by_name(row for block in played for row in block.parts),
            "wall_s": sum(block.wall_s for block in played)}


def _joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The runs of every policy in all scenarios, one after the other; what one scenario has not is left out."""
    joined = {}
    for name, first in runs[0].items():
        mine = [one[name] for one in runs]
        rows = {kind: {key: [value for run in mine for value in run[kind][key]] for key in first[kind]
                       if all(key in run[kind] for run in mine)} for kind in ("episodes", "parts")}
        joined[name] = {"kind": first["kind"], **rows, "wall_s": sum(run["wall_s"] for run in mine)}
    return joined


def summaries(runs: Mapping[str, Any], references: Iterable[str],
              strata: Sequence[str] | None = None) -> dict[str, Any]:
    """Summaries and paired differences of {policy: {"kind", "episodes", "parts", "wall_s"}}.

    Args:
        runs: what each policy did.
        references: whom the others are compared with, episode by episode, when they take part.
        strata: a label per episode.
    """
    policies = {name: {"kind": run["kind"], "episodes": run["episodes"], "parts": run["parts"],
                       "summary": summarise(run["episodes"], strata), "wall_s": run["wall_s"]}
                for name, run in runs.items()}
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
