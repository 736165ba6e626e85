"""Evaluate policies on the same users in the same city: a table, a JSON file and a figure.

    python evaluate.py --config configs/handover.yaml --policies cho ctho runs/ppo --episodes 8 --out runs/evaluate
    python evaluate.py --config grid --policies cho ctho runs/ppo --out runs/grid
    python evaluate.py --policies ctho --episodes 1 --video ctho.gif --video-start 20 --video-seconds 6

Every policy sees exactly the same worlds: episode k has seed `seed + k`. With several configurations (`grid`: all
scenarios that ship) each of them gets that many episodes, and there is a table for each and one over all.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import kvroam
from kvroam.configs import GRID
from kvroam.envs.handover.config import Experiment
from kvroam.errors import ConfigError, run_command
from kvroam.settings.loader import load, to_dict

# Episodes that run side by side; more share each forward pass but take more memory.
SIDE_BY_SIDE = 16
# Whom the others are compared with, episode by episode, when they take part.
REFERENCES = ("ctho", "pallas")


def evaluate(config: Experiment | Mapping[str, Experiment], policies: Sequence[Any], episodes: int, seed: int,
             progress: Callable[[str, int, int], Any] | None = None) -> dict[str, Any]:
    """Run every policy on episodes seeded seed, seed + 1, ... and summarise.

    Args:
        config: the experiment, or several by name.
        policies: names (kvroam.agents.names()), checkpoints, or Policy objects (kvroam.agents.Policy).
        episodes: per policy and experiment, at least 1.
        seed: of the first episode.
        progress: called as progress(policy, steps done, steps in all) after every step.

    Returns:
        The results dictionary that benchmarks.report writes: `config`, `versions`, `machine`, `seeds`,
        `policies.NAME.episodes.METRIC` (a list over episodes), `policies.NAME.summary.METRIC` and `paired`. With
        several experiments `scenarios` names that of each episode, and `by_scenario.NAME` holds `config`, `policies`
        and `paired` of each.

    Raises:
        ConfigError, PolicyError, SceneError: something that cannot be used, named.
    """
    import torch

    from kvroam import agents
    from kvroam.evaluation.report import machine, versions

    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}: at least 1 is needed")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: it must not be negative")
    if not policies:
        raise ConfigError(f"no policy was given: choose among {', '.join(agents.names())}, or give a checkpoint")
    torch.set_num_threads(1)
    single = isinstance(config, Experiment)
    experiments = {"": config} if isinstance(config, Experiment) else dict(config)
    seeds = list(range(seed, seed + episodes))
    teams = {name: _players(policies, experiment, seed) for name, experiment in experiments.items()}
    rounds = len(policies) * -(-episodes // SIDE_BY_SIDE)
    total, done = rounds * sum(experiment.max_steps for experiment in experiments.values()), 0
    found: dict[str, dict[str, Any]] = {}
    for scenario, experiment in experiments.items():
        found[scenario] = {}
        for name, player in teams[scenario].items():
            began = time.perf_counter()
            outcomes: list[dict[str, float]] = []
            for first in range(0, episodes, SIDE_BY_SIDE):
                for outcome in play(experiment, player, seeds[first:first + SIDE_BY_SIDE]):
                    if outcome is None:
                        done += 1
                        if progress is not None:
                            progress(f"{scenario} {name}".strip(), done, total)
                    else:
                        outcomes.append(outcome)
            found[scenario][name] = {"episodes": {metric: [o[metric] for o in outcomes] for metric in outcomes[0]},
                                     "wall_s": time.perf_counter() - began}
    shared = {"kvroam": kvroam.__version__, "versions": versions(), "machine": machine()}
    parts = {name: {"config": to_dict(experiment), "scoring": experiment.scoring.mode, "seeds": seeds,
                    **_summaries(found[name])} for name, experiment in experiments.items()}
    if single:
        return shared | parts[""]
    labels = [name for name in experiments for _ in seeds]
    joined = {name: {"episodes": {metric: [value for runs in found.values() for value in runs[name]["episodes"][metric]]
                                  for metric in first["episodes"]},
                     "wall_s": sum(runs[name]["wall_s"] for runs in found.values())}
              for name, first in next(iter(found.values())).items()}
    modes = {part["scoring"] for part in parts.values()}
    return shared | {"config": {}, "scoring": modes.pop() if len(modes) == 1 else "mixed",
                     "seeds": seeds * len(experiments), "scenarios": labels, **_summaries(joined, labels),
                     "by_scenario": parts}


def _players(policies: Sequence[Any], config: Experiment, seed: int) -> dict[str, Any]:
    from kvroam import agents

    players: dict[str, Any] = {}
    for given in policies:
        player = agents.make(given, config, seed)
        if player.name in players:
            raise ConfigError(f"policy {player.name!r} was given twice: name each once")
        players[player.name] = player
    return players


def _summaries(runs: dict[str, Any], strata: Sequence[str] | None = None) -> dict[str, Any]:
    """Summaries and paired differences of {policy: {"episodes", "wall_s"}}; strata labels the episodes."""
    from kvroam.evaluation.report import summarise

    policies = {name: {"episodes": run["episodes"], "summary": summarise(run["episodes"], strata),
                       "wall_s": run["wall_s"]} for name, run in runs.items()}
    return {"policies": policies, "paired": {name: paired(policies, name, strata) for name in REFERENCES
                                             if name in policies}}


def play(config: Experiment, player, seeds: Sequence[int]):
    """Play one episode per seed side by side; yields None after every step, then each episode's metrics."""
    from kvroam.envs import make_core

    core = make_core(config, len(seeds))
    core.reset(seeds)
    player.reset(core.view)
    meter = core.task.meter(**config.evaluate.objectives)
    for _ in range(config.max_steps):
        core.step(player.act(core.view))
        meter.add(core)
        yield None
    for e in range(core.num_envs):
        yield meter.result(e)


def paired(policies: Mapping[str, Any], reference: str, strata: Sequence[str] | None = None) -> dict[str, Any]:
    """Differences of every other policy from the reference on the same seeds, for every metric."""
    from kvroam.evaluation.estimates import paired_difference

    base = policies[reference]["episodes"]
    return {name: {metric: paired_difference(values, base[metric], strata=strata)._asdict()
                   for metric, values in policy["episodes"].items()}
            for name, policy in policies.items() if name != reference}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kvroam-evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--config", nargs="+", default=["handover"], metavar="NAME",
                        help="YAML files or shipped names; grid: all scenarios (default: handover)")
    parser.add_argument("--policies", nargs="+", metavar="NAME",
                        help="policy names or checkpoints (default: evaluate.policies)")
    parser.add_argument("--episodes", type=int, help="episodes per policy (default: evaluate.episodes)")
    parser.add_argument("--seed", type=int, help="seed of the first episode (default: evaluate.seed)")
    parser.add_argument("--out", default="runs/evaluate", help="folder for results.json, table.md and the figure")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change a key of the configuration, e.g. --set backhaul.capacity_bps=1e9")
    parser.add_argument("--video", type=Path, metavar="FILE",
                        help="then play the first episode again and film it: .gif, or .mp4 with imageio[ffmpeg]")
    parser.add_argument("--video-policy", metavar="NAME", help="who plays in it (default: the last of --policies)")
    parser.add_argument("--video-start", type=float, default=0.0, metavar="S",
                        help="time of the first frame [s] (default: %(default)s)")
    parser.add_argument("--video-seconds", type=float, metavar="S", help="length [s] (default: the whole episode)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that could not be written to, before an hour is spent on its content."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--out {str(folder)!r} cannot be written: {str(there)!r} is no writable folder")


def _prepare_video(args: argparse.Namespace, config: Experiment, policies: Sequence[str],
                   seed: int) -> Callable[[], None]:
    """Check everything about `--video` now, and return what writes it."""
    from tqdm import tqdm

    from kvroam.envs.render import video

    video.check_target(args.video)
    first, last = video.frames_of(config, args.video_start, args.video_seconds)
    name = args.video_policy or policies[-1]
    player = _players([name], config, seed)

    def film() -> None:
        (chosen,) = player.values()
        frames = video.play(config, chosen, seed, args.video_start, args.video_seconds)
        shown = tqdm(frames, total=last + 1 - first, unit="frame", disable=args.quiet, dynamic_ncols=True, leave=False)
        video.write(args.video, shown, 1.0 / config.interval_s)

    return film


def command(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    from tqdm import tqdm

    args = _parse(arguments)
    names = [name for given in args.config for name in (GRID if given == "grid" else [given])]
    if len(set(names)) < len(names):
        raise ConfigError(f"--config names {max(names, key=names.count)!r} twice: name each once")
    configs = {Path(name).stem: load(Experiment, name, args.overrides) for name in names}
    config = next(iter(configs.values()))
    _check_folder(Path(args.out))
    policies = list(args.policies or config.evaluate.policies)
    seed = config.evaluate.seed if args.seed is None else args.seed
    film = _prepare_video(args, config, policies, seed) if args.video else None
    bar = None

    def show(name: str, done: int, total: int) -> None:
        # Made at the first step, so that a refused argument prints its own line and nothing else.
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, unit="step", disable=args.quiet, dynamic_ncols=True, leave=False)
        bar.set_description_str(name, refresh=False)
        bar.update(done - bar.n)

    results = evaluate(config if len(names) == 1 else configs, policies,
                       config.evaluate.episodes if args.episodes is None else args.episodes, seed, show)
    if bar is not None:
        bar.close()
    from kvroam.evaluation.report import terminal_table, write_results

    files = write_results(args.out, results)
    print(terminal_table(results))
    if results["scoring"] == "none":
        print("scoring: none, so drift and recall were not measured")
    print("written:", ", ".join(str(path) for path in files.values()))
    if film is not None:
        film()
        print("written:", args.video)


def main() -> None:
    """Entry point of `kvroam-evaluate`."""
    sys.exit(run_command("kvroam-evaluate", command))


if __name__ == "__main__":
    main()
