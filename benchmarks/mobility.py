"""How the users of a scene move through its cells, and how well their handovers are predicted.

    python -m kvroam.benchmarks.mobility --scenes munich simple_street_canyon --out docs

Writes mobility.md, mobility.json and a figure per scene (--figures chooses): rates, times of stay, ping-pongs,
failures, coverage, and the predictors' hits, errors and false alarms, for vehicles and pedestrians. Nothing depends on
a policy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from .. import commands
from ..envs.base.core import Core
from ..envs.base.make import make_core
from ..envs.handover.config import HandoverConfig, ScoringConfig, resolve
from ..envs.handover.task import HandoverTask
from ..envs.handover.view import NetworkView
from ..envs.handover.world.simulator import Simulator, idle_plans
from ..envs.sim.predictor import HORIZON_S
from ..envs.sim.route_predictor import RoutePredictor
from ..errors import ConfigError, KvroamError
from ..evaluation.rollout import rollout
from ..files import make_folder, write_whole
from .mobility_report import figure, page

MINIMUM_STAY_S = 1.0  # TR 36.839: a return after a shorter stay is a ping-pong
LEADS_S = (1.0, 2.0, 4.0)
PREDICTORS = ("velocity", "streets")  # constant velocity (envs/sim/predictor.py), street map (route_predictor.py)
LIKELY = 0.5  # handovers that the street map's predictor takes to be less likely do not count as predicted


def observe(config: HandoverConfig, episodes: int, seed: int, progress: Callable[[int], Any] = lambda done: None,
            ) -> dict[str, np.ndarray]:
    """Run episodes seeded seed, seed + 1, ... side by side and keep what the report needs.

    Args:
        config: the world; nothing is scored.
        episodes, seed: how many, and the first.
        progress: called with 1 after every step.

    Returns:
        Arrays [T + 1, E, U], index 0 the reset: radio, since_s, x, y, out (out of coverage), for each of PREDICTORS
        <name>_cell and <name>_s (absolute; inf: none), and [T, E, U] handovers, rlf, handover_failures.
    """
    core = make_core(replace(config, scoring=ScoringConfig(mode="none")), num_envs=episodes)
    sim = world(core)
    kept: dict[str, list[np.ndarray]] = {}
    routes = RoutePredictor(sim)
    for step in rollout(core, Idle(), list(range(seed, seed + episodes))):
        if step:
            for name in ("handovers", "rlf", "handover_failures"):
                kept.setdefault(name, []).append(sim.state.flow[name].copy())
            progress(1)
        ue, view = sim.state.ue, core.view
        out = (ue["monitor_db"] < config.radio.q_out_db) | view.link_failed
        found = routes.watch(sim)
        likely = (found.chance >= LIKELY) & (found.at_s <= view.time_s[:, None] + HORIZON_S)
        for name, value in (("radio", ue["radio"].copy()), ("since_s", ue["since_s"].copy()), ("x", ue["x"].copy()),
                            ("y", ue["y"].copy()), ("out", out), ("velocity_cell", view.predicted_cell),
                            ("velocity_s", view.predicted_in_s + view.time_s[:, None]),
                            ("streets_cell", np.where(likely, found.cell, -1)),
                            ("streets_s", np.where(likely, found.at_s, np.inf))):
            kept.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in kept.items()}


class Idle:
    """Does nothing: no metric of this report depends on a policy."""

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Idle plans, PLAN [E, U]."""
        return idle_plans(view.num_envs, view.num_ues)


def stays(radio: np.ndarray, since_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stays of one UE in a cell that begin and end within the episode.

    Args:
        radio, since_s: serving cell, and time of the last change, [T + 1]; -inf before the first.

    Returns:
        Their lengths [s], and whether the UE then went back to where it had come from.
    """
    change = np.flatnonzero(np.diff(radio)) + 1
    cells = np.concatenate([radio[:1], radio[change]])
    at_s = since_s[change]
    return np.diff(at_s), cells[2:] == cells[:-2]


def movement(seen: dict[str, np.ndarray], who: np.ndarray, interval_s: float) -> dict[str, float]:
    """Rates, stays and coverage of the UEs `who`, int [N]."""
    minutes = seen["rlf"][..., who].size * interval_s / 60.0
    lengths, returns = [np.empty(0)], [np.empty(0, bool)]
    for e in range(seen["radio"].shape[1]):
        for u in who:
            length, back = stays(seen["radio"][:, e, u], seen["since_s"][:, e, u])
            lengths.append(length)
            returns.append(back)
    length, back = np.concatenate(lengths), np.concatenate(returns)
    handovers, failed = (int(seen[name][..., who].sum()) for name in ("handovers", "handover_failures"))
    rlf = int(seen["rlf"][..., who].sum())
    p10, p50, p90 = np.percentile(length, [10, 50, 90]) if length.size else (np.nan,) * 3
    return {
        "ue_minutes": minutes, "handovers": handovers, "handovers_per_min": handovers / minutes,
        "stays": int(length.size), "stay_p10_s": float(p10), "stay_median_s": float(p50), "stay_p90_s": float(p90),
        "pingpong_share": float(((length < MINIMUM_STAY_S) & back).sum()) / max(1, handovers),
        "rlf_per_min": rlf / minutes, "handover_failure_share": failed / max(1, handovers + failed),
        "out_of_coverage_share": float(seen["out"][..., who].mean()),
    }


def accuracy(seen: dict[str, np.ndarray], who: np.ndarray, interval_s: float, predictor: str = PREDICTORS[0],
             ) -> dict[str, dict[str, float]]:
    """Quality of what one of PREDICTORS said about the UEs `who`, by lead time.

    For every handover to cell c at t, the prediction that stood one lead before it, if the UE was in the same stay
    already: share that named c (hit), another cell or none, and the mean absolute error of the time over the hits.
    False alarms: of the predictions of a handover within the lead, sampled every half second, the share after which
    the UE did not go to that cell within the horizon (5 s) from when it was made.
    """
    result = {}
    every = max(1, round(0.5 / interval_s))
    horizon = round(HORIZON_S / interval_s)
    for lead_s in LEADS_S:
        hits, other, silent, errors, alarms, false = 0, 0, 0, [0.0], 0, 0
        for e in range(seen["radio"].shape[1]):
            for u in who:
                radio, since = seen["radio"][:, e, u], seen["since_s"][:, e, u]
                cell, at_s = seen[f"{predictor}_cell"][:, e, u], seen[f"{predictor}_s"][:, e, u]
                for step in np.flatnonzero(seen["handovers"][:, e, u]) + 1:
                    asked = int(np.floor((since[step] - lead_s) / interval_s + 1e-9))
                    if asked < 0 or since[step - 1] > asked * interval_s:
                        continue
                    if cell[asked] == radio[step]:
                        hits += 1
                        errors.append(abs(at_s[asked] - since[step]))
                    elif cell[asked] >= 0:
                        other += 1
                    else:
                        silent += 1
                steps = np.arange(0, len(radio) - horizon, every)
                soon = steps[(cell[steps] >= 0) & (at_s[steps] - steps * interval_s <= lead_s)]
                alarms += len(soon)
                false += sum(not (radio[k + 1:k + 1 + horizon] == cell[k]).any() for k in soon)
        asked_about = hits + other + silent
        result[f"{lead_s:g}"] = {
            "handovers": asked_about, "hit_share": hits / max(1, asked_about),
            "other_cell_share": other / max(1, asked_about), "none_share": silent / max(1, asked_about),
            "time_error_s": sum(errors) / hits if hits else float("nan"),
            "alarms": alarms, "false_alarm_share": false / max(1, alarms),
        }
    return result


def fluid_flow_per_min(speed_mps: tuple[float, float], inter_site_m: float) -> float:
    """Changes of cell per minute in a hexagonal grid at a uniform speed in any direction.

    A UE crosses (2 / pi) v L borders per second, L the length of border per area: 2 / inter-site distance in a
    hexagonal grid. Source: the fluid-flow model of mobility; its form for hexagons is ours.
    """
    return 60.0 * 4.0 * sum(speed_mps) / 2.0 / (np.pi * inter_site_m)


def world(core: Core) -> Simulator:
    """The simulated world of a Handover core."""
    return cast(HandoverTask, core.task).sim


def study(scene: str, config: HandoverConfig, episodes: int, seed: int, progress: Callable[[int], Any],
          ) -> tuple[dict[str, Any], dict[str, np.ndarray], Core]:
    """The report's entry on one scene, what was seen, and a core in that scene (for the figure)."""
    config = replace(config, scene=scene)
    seen = observe(config, episodes, seed, progress)
    core = make_core(replace(config, scoring=ScoringConfig(mode="none")))
    vehicles = round(config.mobility.vehicle_share * config.num_ues)
    manifest = world(core).scene.manifest
    spacing = next((manifest[part]["inter_site_m"] for part in ("spec", "parameters")
                    if "inter_site_m" in manifest.get(part, {})), None)
    groups = (("vehicles", np.arange(vehicles), config.mobility.vehicle_speed_mps),
              ("pedestrians", np.arange(vehicles, config.num_ues), config.mobility.pedestrian_speed_mps))
    entry: dict[str, Any] = {}
    for name, who, speed in groups:
        if who.size:
            entry[name] = movement(seen, who, config.interval_s)
            entry[name]["fluid_flow_per_min"] = fluid_flow_per_min(speed, spacing) if spacing else float("nan")
            entry[name]["predictor"] = {predictor: accuracy(seen, who, config.interval_s, predictor)
                                        for predictor in PREDICTORS}
    return entry, seen, core


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--scenes", nargs="+", default=["munich", "simple_street_canyon"], help="scenes to report on")
    parser.add_argument("--config", default="handover", help="world (default: handover)")
    parser.add_argument("--episodes", type=int, default=16, help="episodes per scene (default 16)")
    parser.add_argument("--duration", type=float, default=300.0, help="length of each, s (default 300)")
    commands.add_seed(parser)
    commands.add_out(parser, "docs", "mobility.md, mobility.json and the figures")
    parser.add_argument("--figures", nargs="*", help="scenes to draw (default: all of them)")
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Run the report."""
    drawn = args.scenes if args.figures is None else args.figures
    if not set(drawn) <= set(args.scenes):
        raise ConfigError(f"--figures {' '.join(drawn)}: name only scenes of --scenes {' '.join(args.scenes)}")
    if args.episodes < 1 or args.seed < 0:
        raise ConfigError(f"--episodes {args.episodes} --seed {args.seed}: at least 1 episode and a seed from 0")
    base = resolve(args.config)
    if base.mobility.trace is not None:
        raise ConfigError("mobility.trace is set: the report tells vehicles from pedestrians; set it to null")
    try:
        config = replace(base, episode_s=args.duration)
    except ValueError as error:
        raise error if isinstance(error, KvroamError) else ConfigError(f"--duration: {error}") from error
    make_folder(args.out)
    results: dict[str, Any] = {
        "command": f"python -m kvroam.benchmarks.mobility --scenes {' '.join(args.scenes)} "
                   f"--episodes {args.episodes} --duration {args.duration:g} --seed {args.seed}"
                   + ("" if args.figures is None else f" --figures {' '.join(drawn)}".rstrip()),
        "num_ues": config.num_ues, "scenes": {}, "figures": [],
    }
    with tqdm(total=config.max_steps * len(args.scenes), unit="step", disable=args.quiet) as bar:
        for scene in args.scenes:
            bar.set_description(scene)
            entry, seen, core = study(scene, config, args.episodes, args.seed, bar.update)
            name = world(core).scene.name
            results["scenes"][name] = entry
            if scene in drawn:
                results["figures"].append(name)
                write_whole(args.out / f"mobility_{name}.png", partial(figure, world(core).scene, seen))
    text = json.dumps(results, indent=1, allow_nan=True).replace("NaN", "null") + "\n"
    write_whole(args.out / "mobility.json", lambda draft: draft.write_text(text, encoding="utf-8"))
    write_whole(args.out / "mobility.md", lambda draft: draft.write_text(page(results), encoding="utf-8"))
    print(page(results))


command = commands.Command("python -m kvroam.benchmarks.mobility", __doc__, options, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
