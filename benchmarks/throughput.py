"""Speed of the environments: `python -m kvroam.benchmarks.throughput [--json FILE] [--plot FILE] [--peers]`.

Rates are the best of several turns, in one process and one run, so that they can be compared with each other. A step
includes decoding the plans, the physics, the reward and the observations; what else it includes is in its name.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kvroam import commands
from kvroam.benchmarks import peers
from kvroam.errors import ConfigError
from kvroam.evaluation.provenance import machine, versions
from kvroam.files import write_whole
from kvroam.threads import torch_threads

Row = dict[str, Any]  # part, case, value, unit, target ("" where there is none)
PARTS = ("core", "batch", "scaling", "start", "api", "vec", "scored")
SIZES = (4, 8, 16, 32, 64, 128, 256, 512)  # UEs of the scaling part


def row(part: str, case: str, value: float, unit: str, target: str = "") -> Row:
    """One line of the table."""
    return dict(part=part, case=case, value=float(value), unit=unit, target=target)


def rate(step: Callable[[], object], seconds: float, turns: int = 4) -> float:
    """Calls of `step` per second: the best of `turns`, each `seconds / turns` long, after one call that warms up."""
    step()
    best = 0.0
    for _ in range(turns):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / turns:
            step()
            count += 1
        best = max(best, count / (time.perf_counter() - began))
    return best


def physics(scene: str | None = None, **changes: Any):
    """The default configuration without scoring, with fields replaced."""
    from kvroam.envs.handover.config import resolve

    config = resolve(None)
    return replace(config, scene=scene or config.scene, scoring=replace(config.scoring, mode="none"), **changes)


def make_core(config, num_envs: int = 1, threads: int = 1):
    """A HandoverCore after reset, and a function that steps it with plans that split every cache and observes."""
    from kvroam.agents.handover.plans import reactive_plans
    from kvroam.envs import make_core
    from kvroam.envs.handover.world.state import SPLIT

    core = make_core(config, num_envs, threads)
    core.reset(list(range(num_envs)))
    plans = reactive_plans(core.view, SPLIT)

    def step() -> None:
        core.step(plans)
        core.observe()

    return core, step


def state_bytes(core) -> int:
    """Memory of what changes in one environment [byte]."""
    return sum(array.nbytes for array in core.task.sim.state) // core.num_envs


def core_rows(seconds: float) -> list[Row]:
    """One environment: steps per second of the core and of the physics alone, in the training city and on a map."""
    from kvroam.envs.scenes import available

    return [r for scene in ("munich", "umi-00") if scene in available() for r in _one_scene(scene, seconds)]


def _one_scene(scene: str, seconds: float) -> list[Row]:
    core, step = make_core(physics(scene))
    case = f"{scene}, {core.num_agents} UEs, {core.task.sim.num_cells} cells"
    plans = core.decode(np.zeros((1, core.num_agents, len(core.task.parts)), np.int64))
    return [
        row("core", f"{case}: with observations", rate(step, seconds), "steps/s", ">= 20,000"),
        row("core", f"{case}: physics alone", rate(lambda: core.task.sim.advance(plans), seconds), "steps/s"),
        row("core", f"{case}: memory of one environment", state_bytes(core) / 1e3, "kB"),
    ]


def batch_rows(seconds: float, num_envs: int = 1024) -> list[Row]:
    """Many environments side by side, on one thread and on two."""
    found = []
    for threads in (1, 2):
        core, step = make_core(physics(), num_envs, threads)
        per_s = rate(step, seconds) * num_envs * core.num_agents
        found.append(row("batch", f"{num_envs} environments, {core.num_agents} UEs, {threads} thread(s)", per_s,
                         "agent-steps/s", ">= 4,000,000" if threads == 2 else ""))
    found.append(row("batch", "memory of one environment", state_bytes(core) / 1e3, "kB"))
    return found


def scaling_rows(seconds: float) -> list[Row]:
    """Time per step from 4 to 512 UEs; per UE and cell it should stay flat."""
    found = []
    for ues in SIZES:
        core, step = make_core(physics(num_ues=ues))
        micros = 1e6 / rate(step, seconds)
        found.append(row("scaling", f"{ues} UEs, {core.task.sim.num_cells} cells", micros, "us/step"))
        found.append(row("scaling", f"{ues} UEs, per UE and cell", 1e3 * micros / ues / core.task.sim.num_cells, "ns"))
    return found


_FIRST_STEP = """
import time; t = time.perf_counter()
from kvroam.benchmarks.throughput import make_core, physics
make_core(physics())[1]()
print(time.perf_counter() - t)
"""


def start_rows() -> list[Row]:
    """Seconds from a fresh interpreter to the end of the first step: with nothing compiled, and from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        spent = [float(subprocess.run([sys.executable, "-c", _FIRST_STEP], check=True, capture_output=True, text=True,
                                      env={**os.environ, "NUMBA_CACHE_DIR": folder}).stdout) for _ in range(2)]
    return [row("start", "import, make, reset, first step: compiling", spent[0], "s", "< 20"),
            row("start", "the same in a later process", spent[1], "s", "< 3")]


def api_rows(seconds: float) -> list[Row]:
    """The PettingZoo environment: dictionaries in, dictionaries out."""
    import pettingzoo

    import kvroam  # noqa: F401
    from kvroam.envs.handover.world.state import SPLIT

    env = pettingzoo.make("parallel", "kvroam/Handover-v0", config=physics(), max_cycles=10**9)
    env.reset(seed=0)
    actions = {agent: np.array([0, SPLIT, *[0] * (len(env.unwrapped.core.task.parts) - 2)]) for agent in env.agents}
    return [row("api", f"PettingZoo parallel, {len(actions)} UEs", rate(lambda: env.step(actions), seconds),
                "steps/s", ">= 3,000")]


def vec_rows(seconds: float, num_envs: int = 64) -> list[Row]:
    """The Stable-Baselines3 VecEnv without scoring."""
    from kvroam.envs.handover.sb3 import HandoverVecEnv
    from kvroam.envs.handover.world.state import SPLIT

    env = HandoverVecEnv(physics(), num_envs=num_envs)
    env.reset()
    action = np.zeros(len(env.action_space.nvec), np.int64)
    action[1] = SPLIT  # the medium; everything else neutral
    actions = np.tile(action, (env.num_envs, 1))
    return [row("vec", f"VecEnv, {num_envs} environments", rate(lambda: env.step(actions), seconds) * env.num_envs,
                "agent-steps/s", ">= 1,000,000")]


def scored_worker(policy: str, num_envs: int, steps: int, profile: bool = False) -> tuple[float, float, str]:
    """Agent-steps/s and share of sessions whose cache is not whole, with real scoring in this one process.

    The first half warms up, so that a lossy policy has degraded what it degrades.
    """
    from kvroam.agents import make
    from kvroam.envs import make_core
    from kvroam.envs.handover.config import resolve
    from kvroam.evaluation.rollout import rollout

    config = resolve(None)
    core, watcher, began = make_core(config, num_envs), cProfile.Profile(), 0.0
    with torch_threads(1):
        for step in rollout(core, make(policy, config), list(range(num_envs)), 2 * steps):
            if step:
                core.observe()
            if step == steps:
                began = time.perf_counter()
                if profile:
                    watcher.enable()
        spent = time.perf_counter() - began
        if profile:
            watcher.disable()
    assert core.task.scorer is not None
    degraded = core.task.scorer.degraded / (num_envs * core.num_agents)
    return steps * num_envs * core.num_agents / spent, degraded, _top(watcher) if profile else ""


def _top(watcher: cProfile.Profile, count: int = 14) -> str:
    """The functions that took most of the time, with their shares."""
    stats = pstats.Stats(watcher)
    total = sum(entry[2] for entry in stats.stats.values())  # type: ignore[attr-defined]
    most = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:count]  # type: ignore[attr-defined]
    return "\n".join(f"  {100 * entry[2] / total:5.1f} %  {Path(where[0]).name}:{where[2]}" for where, entry in most)


_SCORED = "from kvroam.benchmarks.throughput import scored_worker; print(*scored_worker({!r}, {}, {})[:2])"


def scored_rows(steps: int, num_envs: int = 64, processes: int = 2) -> list[Row]:
    """Real scoring at the default scenario, one process per core, one torch thread each."""
    found = []
    for policy in ("ctho", "token-aware"):
        code = _SCORED.format(policy, num_envs // processes, steps)
        running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
                   for _ in range(processes)]
        results = [process.communicate()[0].split() for process in running]
        if any(process.returncode for process in running):
            raise ConfigError(f"a process that was to measure {policy} failed: run it alone to see why: {code}")
        share = 100 * float(results[0][1])
        found.append(row("scored", f"{policy}, {num_envs} environments in {processes} processes, {share:.0f} % of the "
                         "caches not whole", sum(float(r[0]) for r in results), "agent-steps/s",
                         ">= 20,000" if policy == "ctho" else ""))
    return found


def table(rows: list[Row]) -> str:
    """The rows, aligned."""
    wide = max(len(r["case"]) for r in rows)
    lines = []
    for r in rows:
        target = f"  (target {r['target']})" if r["target"] else ""
        lines.append(f"{r['part']:8s} {r['case']:{wide}s} {r['value']:14,.6g} {r['unit']}{target}")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Time per step over the number of UEs, on double logarithmic axes, with a line of slope one."""
    from matplotlib.figure import Figure

    micros = [r["value"] for r in rows if r["part"] == "scaling" and r["unit"] == "us/step"]
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(SIZES, micros, "o-", label="measured")
    axes.loglog(SIZES, [micros[-1] * ues / SIZES[-1] for ues in SIZES], "--", label="linear")
    axes.set(xlabel="UEs in one environment", ylabel="time per step [µs]", title="One step of the core, one thread")
    axes.legend()
    figure.savefig(path, dpi=120)


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--parts", nargs="+", default=list(PARTS), help=" ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=2.0, help="per rate (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="per scored rate (default: %(default)s)")
    parser.add_argument("--peers", action="store_true",
                        help="also mobile-env, MPE and VMAS, installed by pip into a virtual environment of their own")
    parser.add_argument("--profile", metavar="POLICY", help="print where a scored step of POLICY spends its time")
    commands.add_json(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw time per step over the number of UEs")


def execute(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        raise ConfigError(f"part {unknown[0]!r} does not exist; use some of {', '.join(PARTS)}")
    if args.seconds <= 0 or args.steps < 1:
        raise ConfigError("--seconds must be above 0 and --steps at least 1")
    if args.plot and "scaling" not in args.parts:
        raise ConfigError("--plot draws the part scaling; add it to --parts")
    if args.profile:
        print(scored_worker(args.profile, 32, args.steps, profile=True)[2])
        return
    actions: dict[str, Callable[[], list[Row]]] = {
        "core": lambda: core_rows(args.seconds), "batch": lambda: batch_rows(args.seconds),
        "scaling": lambda: scaling_rows(args.seconds / 4), "start": start_rows,
        "api": lambda: api_rows(args.seconds), "vec": lambda: vec_rows(args.seconds),
        "scored": lambda: scored_rows(args.steps), "peers": lambda: peers.rows(args.seconds),
    }
    rows: list[Row] = []
    before = machine()
    for name in tqdm([*args.parts, *(["peers"] if args.peers else [])], unit="part", file=sys.stderr):
        rows += actions[name]()
    print(table(rows))
    if args.plot:
        plot(rows, Path(args.plot))
    if args.json:
        text = json.dumps({"rows": rows, "machine": before, "versions": versions()}, indent=1) + "\n"
        write_whole(args.json, lambda draft: draft.write_text(text, encoding="utf-8"))


command = commands.Command("python -m kvroam.benchmarks.throughput", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
