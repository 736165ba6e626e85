"""Time per frame of the renderer: `python -m kvroam.benchmarks.render [--policy NAME] [--json FILE]`.

A minute of the default experiment without scoring is drawn step by step at 800 x 600. CPU time is that of one thread,
which other programs on the machine hardly change; wall time also has what they take.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from kvroam import agents, commands
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.render import Renderer
from kvroam.envs.render.history import History
from kvroam.errors import ConfigError
from kvroam.evaluation.rollout import rollout
from kvroam.files import write_whole


def measure(policy: str = "random", steps: int = 600, seed: int = 0) -> dict[str, float]:
    """CPU and wall time per frame [ms] over an episode: median, 95th percentile and largest CPU time.

    Args:
        policy: who acts; `random` prepares nearly every session, so most of its frames are full of arcs.
        steps: how many steps are drawn, at least 1.
        seed: of the episode.
    """
    config = resolve("handover", ["scoring.mode=none"])
    core, player, history = make_core(config), agents.make(policy, config, seed), History(0)
    cpu: list[float] = []
    wall: list[float] = []
    arcs: list[int] = []
    for step in rollout(core, player, [seed], steps):
        if step == 0:
            began = time.perf_counter()
            renderer = Renderer(core)
            start = time.perf_counter() - began
            renderer.frame(history)
            continue
        history.record(core)
        before = time.perf_counter(), time.process_time()
        renderer.frame(history)
        wall.append(time.perf_counter() - before[0])
        cpu.append(time.process_time() - before[1])
        arcs.append(int((core.task.sim.state.ue["phase"] != 0).sum()))
    return {"frames": steps, "start_ms": 1e3 * start, "cpu_ms_median": 1e3 * float(np.median(cpu)),
            "cpu_ms_p95": 1e3 * float(np.percentile(cpu, 95)), "cpu_ms_worst": 1e3 * max(cpu),
            "wall_ms_median": 1e3 * float(np.median(wall)), "arcs_mean": float(np.mean(arcs))}


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--policy", nargs="+", default=["random", "ctho"], help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=600, help="frames per policy (default: %(default)s)")
    commands.add_json(parser)


def execute(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    if args.steps < 1:
        raise ConfigError(f"--steps is {args.steps}: at least 1 is needed")
    results = {policy: measure(policy, args.steps) for policy in args.policy}
    names = list(next(iter(results.values())))
    print(f"{'policy':12}" + "".join(f"{name:>16}" for name in names))
    for policy, values in results.items():
        print(f"{policy:12}" + "".join(f"{values[name]:16.4g}" for name in names))
    if args.json:
        text = json.dumps(results, indent=1) + "\n"
        write_whole(args.json, lambda draft: draft.write_text(text, encoding="utf-8"))


command = commands.Command("python -m kvroam.benchmarks.render", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
