"""Speed of other environment suites, each in a virtual environment of its own: nothing of theirs is needed here.

What they simulate differs: MPE and VMAS move discs, mobile-env computes a textbook path loss. Their rates say what an
environment step costs elsewhere, not who does the same work faster.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

_MEASURE = """
import sys, time
def rate(step, seconds):
    step(); best = 0.0
    for _ in range(4):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / 4:
            step(); count += 1
        best = max(best, count / (time.perf_counter() - began))
    return best
seconds = float(sys.argv[1])
"""

# Package, what it is asked to step, agents, environments, code that sets `step`.
PEERS: tuple[tuple[str, str, int, int, str], ...] = (
    ("mobile-env", "medium central, 15 users", 15, 1, """
import gymnasium, mobile_env
env = gymnasium.make("mobile-medium-central-v0").unwrapped
env.reset()
def step():
    if env.step(env.action_space.sample())[3]: env.reset()
"""),
    ("mpe2", "simple_spread parallel, 3 agents", 3, 1, """
from mpe2 import simple_spread_v3
env = simple_spread_v3.parallel_env(N=3, max_cycles=10**9)
env.reset(seed=0)
actions = {agent: env.action_space(agent).sample() for agent in env.agents}
step = lambda: env.step(actions)
"""),
    ("vmas", "simple_spread, 3 agents, 1 environment", 3, 1, """
import torch, vmas
torch.set_num_threads(1)
env = vmas.make_env("simple_spread", num_envs=1, n_agents=3, device="cpu", seed=0)
actions = [env.get_random_action(agent) for agent in env.agents]
step = lambda: env.step(actions)
"""),
    ("vmas", "simple_spread, 3 agents, 1024 environments", 3, 1024, """
import torch, vmas
torch.set_num_threads(1)
env = vmas.make_env("simple_spread", num_envs=1024, n_agents=3, device="cpu", seed=0)
actions = [env.get_random_action(agent) for agent in env.agents]
step = lambda: env.step(actions)
"""),
)


def rows(seconds: float) -> list[dict[str, Any]]:
    """Steps and agent-steps per second of each peer; one that does not install or run is named with its reason."""
    found: list[dict[str, Any]] = []
    constraints = Path(__file__).parents[1] / "constraints.txt"
    with tempfile.TemporaryDirectory() as folder:
        for package in dict.fromkeys(peer[0] for peer in PEERS):
            home = Path(folder, package)
            venv.create(home, with_pip=True)
            python = str(home / ("Scripts" if sys.platform == "win32" else "bin") / "python")
            pinned = ["--constraint", str(constraints)] if constraints.exists() else []
            install = [python, "-m", "pip", "install", "--quiet", *pinned, package]
            problem = _run(install)[1]
            for _, case, agents, envs, code in (peer for peer in PEERS if peer[0] == package):
                name = f"{package}: {case}"
                text, failed = ("", problem) if problem else _run(
                    [python, "-c", f"{_MEASURE}{code}\nprint(rate(step, seconds))", str(seconds)])
                if failed:
                    print(f"{name} is left out: {failed}", file=sys.stderr)
                    continue
                per_s = float(text.split()[-1])
                for value, unit in ((per_s * envs, "steps/s"), (per_s * envs * agents, "agent-steps/s")):
                    found.append(dict(part="peers", case=name, value=value, unit=unit, target=""))
    return found


def _run(command: list[str]) -> tuple[str, str]:
    """Output of a command, and the last line of what it complained about when it failed."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout, "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no output"])[-1]
