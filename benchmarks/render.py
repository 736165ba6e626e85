"""Time per frame of the renderer: `python -m kvroam.benchmarks.render [--policy NAME] [--json FILE]`.

A minute of the default experiment without scoring is drawn step by step at 800 x 600. CPU time is that of one thread,
which other programs on the machine hardly change; wall time also has what they take.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np


def measure(policy: str = "random", steps: int = 600, seed: int = 0) -> dict[str, float]:
    """CPU and wall time per frame [ms] over an episode: median, 95th percentile and largest CPU time.

    Args:
        policy: who acts; `random` prepares nearly every session, so most of its frames are full of arcs.
        steps: how many steps are drawn, at least 1.
        seed: of the episode.
    """
    from kvroam import agents
    from kvroam.envs import make_core
    from kvroam.envs.handover.config import Experiment, resolve
    from kvroam.envs.render import Renderer
    from kvroam.envs.render.history import History

    config = resolve(None)
    assert isinstance(config, Experiment)
    config = replace(config, scoring=replace(config.scoring, mode="none"))
    core, player, history = make_core(config), agents.make(policy, config, seed), History(0)
    core.reset([seed])
    player.reset(core.view)
    began = time.perf_counter()
    renderer = Renderer(core)
    start = time.perf_counter() - began
    renderer.frame(history)
    cpu, wall, arcs = [], [], []
    for _ in range(steps):
        core.step(player.act(core.view))
        history.record(core)
        before = time.perf_counter(), time.process_time()
        renderer.frame(history)
        wall.append(time.perf_counter() - before[0])
        cpu.append(time.process_time() - before[1])
        arcs.append(int((core.task.sim.state.ue["phase"] != 0).sum()))
    return {"frames": steps, "start_ms": 1e3 * start, "cpu_ms_median": 1e3 * float(np.median(cpu)),
            "cpu_ms_p95": 1e3 * float(np.percentile(cpu, 95)), "cpu_ms_worst": 1e3 * max(cpu),
            "wall_ms_median": 1e3 * float(np.median(wall)), "arcs_mean": float(np.mean(arcs))}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", nargs="+", default=["random", "ctho"], help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=600, help="frames per policy (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    results = {policy: measure(policy, args.steps) for policy in args.policy}
    names = list(next(iter(results.values())))
    print(f"{'policy':12}" + "".join(f"{name:>16}" for name in names))
    for policy, values in results.items():
        print(f"{policy:12}" + "".join(f"{values[name]:16.4g}" for name in names))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
