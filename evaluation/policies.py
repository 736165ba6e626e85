"""Time that policies take to decide: `python -m kvroam.evaluation.policies [--policies NAME ...] [--json FILE]`.

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

from tqdm import tqdm

from kvroam.errors import ConfigError, run_command
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
    from kvroam import agents
    from kvroam.envs import make_core
    from kvroam.envs.handover.config import Experiment
    from kvroam.settings.loader import load

    config = load(Experiment, "handover", ["scoring.mode=none", *overrides])
    core, player = make_core(config, num_envs), agents.make(policy, config, seed)
    core.reset(list(range(seed, seed + num_envs)))
    player.reset(core.view)
    for _ in range(1 + steps // 10):
        core.step(player.act(core.view))
    act = step = 0.0
    for _ in range(steps):
        began = time.thread_time()
        plans = player.act(core.view)
        decided = time.thread_time()
        core.step(plans)
        act, step = act + decided - began, step + time.thread_time() - decided
    return {"act_ms": 1e3 * act / steps, "step_ms": 1e3 * step / steps, "ratio": act / step}


def table(results: dict[str, dict[int, dict[str, float]]]) -> str:
    """A Markdown table: one row per policy, time per decision and its ratio to a step for each size."""
    sizes = list(next(iter(results.values())))
    head = "".join(f" act, {n} env [ms] | step, {n} env [ms] | act / step |" for n in sizes)
    lines = [f"| policy |{head}", "| --- |" + " ---: | ---: | ---: |" * len(sizes)]
    for name, by_size in results.items():
        cells = "".join(f" {r['act_ms']:.3f} | {r['step_ms']:.3f} | {r['ratio']:.1f} |" for r in by_size.values())
        lines.append(f"| {name} |{cells}")
    return "\n".join(lines)


def command(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    from kvroam import agents
    from kvroam.evaluation.provenance import machine, versions

    parser = argparse.ArgumentParser(prog="python -m kvroam.evaluation.policies",
                                     description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policies", nargs="+", default=list(agents.names()), help="names (default: all)")
    parser.add_argument("--steps", type=int, default=300, help="decisions that are timed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides")
    args = parser.parse_args(arguments)
    if args.steps < 1:
        raise ConfigError(f"--steps is {args.steps}: at least 1 is needed")
    results: dict[str, dict[int, dict[str, float]]] = {}
    for name in tqdm(args.policies, leave=False, dynamic_ncols=True):
        results[name] = {n: measure(name, n, args.steps, args.seed, args.overrides) for n in SIZES}
    print(table(results))
    if args.json:
        found: dict[str, Any] = {"versions": versions(), "machine": machine(), "steps": args.steps,
                                 "set": args.overrides, "policies": results}
        write_whole(args.json, partial(Path.write_text, data=json.dumps(found, indent=1) + "\n", encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(run_command("kvroam-policies", command))
