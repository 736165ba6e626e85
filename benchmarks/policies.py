"""Time that policies take to decide: `python -m kvroam.benchmarks.policies [--policies NAME ...] [--json FILE]`.

Each policy plays the same episode, alone and in 64 environments side by side. Times are CPU time of the one thread
that runs, averaged over the steps, so that other programs on the machine hardly change them; the step beside them is
that of the simulator in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kvroam import agents, commands
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.errors import ConfigError
from kvroam.evaluation.provenance import machine, versions
from kvroam.evaluation.rollout import rollout
from kvroam.files import write_whole

SIZES = (1, 64)  # environments side by side


def measure(policy: str, num_envs: int, steps: int, seed: int = 0, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Mean CPU time per decision and per step over an episode's first steps.

    Args:
        policy: a name of the registry.
        num_envs: environments side by side.
        steps: decisions that are timed, at least 1; a tenth more before them are not.
        seed: of the first environment.
        overrides: KEY=VALUE of the default configuration; scoring is off unless they say otherwise.

    Returns:
        act_ms: one call of `act` for all environments; step_ms: one step of the core; ratio: the one over the other.
    """
    config = resolve("handover", ["scoring.mode=none", *overrides])
    core, player = make_core(config, num_envs), Timed(agents.make(policy, config, seed))
    warm = 1 + steps // 10
    began = 0.0
    for step in rollout(core, player, list(range(seed, seed + num_envs)), warm + steps):
        if step == warm:
            began, player.spent_s = time.thread_time(), 0.0
    act, step_s = player.spent_s, time.thread_time() - began - player.spent_s
    return {"act_ms": 1e3 * act / steps, "step_ms": 1e3 * step_s / steps, "ratio": act / step_s}


class Timed:
    """A policy, and the CPU time that its decisions have taken [s]."""

    def __init__(self, policy: agents.Policy) -> None:
        self.policy, self.spent_s = policy, 0.0

    def reset(self, view: Any) -> None:
        """A new episode begins everywhere."""
        self.policy.reset(view)

    def act(self, view: Any) -> np.ndarray:
        """The policy's plans, PLAN [E, U]."""
        began = time.thread_time()
        plans = self.policy.act(view)
        self.spent_s += time.thread_time() - began
        return plans


def table(results: dict[str, dict[int, dict[str, float]]]) -> str:
    """A Markdown table: one row per policy, time per decision and its ratio to a step for each size."""
    sizes = list(next(iter(results.values())))
    head = "".join(f" act, {n} env [ms] | step, {n} env [ms] | act / step |" for n in sizes)
    lines = [f"| policy |{head}", "| --- |" + " ---: | ---: | ---: |" * len(sizes)]
    for name, by_size in results.items():
        cells = "".join(f" {r['act_ms']:.3f} | {r['step_ms']:.3f} | {r['ratio']:.1f} |" for r in by_size.values())
        lines.append(f"| {name} |{cells}")
    return "\n".join(lines)


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--policies", nargs="+", default=list(agents.names()), help="names (default: all)")
    parser.add_argument("--steps", type=int, default=300, help="decisions that are timed (default: %(default)s)")
    commands.add_seed(parser)
    commands.add_json(parser)
    commands.add_set(parser)
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    if args.steps < 1:
        raise ConfigError(f"--steps is {args.steps}: at least 1 is needed")
    results: dict[str, dict[int, dict[str, float]]] = {}
    for name in tqdm(args.policies, leave=False, dynamic_ncols=True, disable=args.quiet):
        results[name] = {n: measure(name, n, args.steps, args.seed, args.overrides) for n in SIZES}
    print(table(results))
    if args.json:
        found: dict[str, Any] = {"versions": versions(), "machine": machine(), "steps": args.steps,
                                 "set": args.overrides, "policies": results}
        write_whole(args.json, partial(Path.write_text, data=json.dumps(found, indent=1) + "\n", encoding="utf-8"))


command = commands.Command("python -m kvroam.benchmarks.policies", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
