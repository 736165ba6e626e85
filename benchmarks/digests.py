"""Whether a change of the code changed what it computes: hashes of short episodes in every scenario and view.

    python -m kvroam.benchmarks.digests --json before.json       # with the code as it was
    python -m kvroam.benchmarks.digests --against before.json    # with the code as it is

A digest covers all observations, rewards, terms and masks of an episode with random actions under the masks. Digests of
two processors or compilers may differ in the last bit of a number, and so altogether: compare those of one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kvroam import commands
from kvroam.envs.base import registry
from kvroam.envs.base.config import resolve
from kvroam.errors import ConfigError
from kvroam.files import write_whole

STEPS, SEED, BATCH = 80, 5, 3


def drawn(generator: np.random.Generator, masks: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Random choices under flat masks [..., sum of sizes], int [..., parts]."""
    columns = np.split(masks.astype(bool), np.cumsum(sizes)[:-1], axis=-1)
    return np.stack([np.where(c, generator.random(c.shape), -1.0).argmax(axis=-1) for c in columns], axis=-1)


def parallel(task: str, config: Any) -> Iterator[Any]:
    """PettingZoo, all agents at once."""
    env, generator = registry.environment(task, "Env")(config, max_cycles=STEPS), np.random.default_rng(1)
    rows, infos = env.reset(seed=SEED)
    sizes = env.action_space(env.agents[0]).nvec
    while env.agents:
        chosen = drawn(generator, np.stack([infos[a]["action_mask"] for a in env.agents]), sizes)
        rows, rewards, _, _, infos = env.step({a: chosen[i] for i, a in enumerate(env.agents)})
        yield from (rows[a] for a in rows)
        yield np.array([*rewards.values()])
        yield np.array([[v for k, v in sorted(info.items()) if k != "action_mask"] for info in infos.values()])


def aec(task: str, config: Any) -> Iterator[Any]:
    """PettingZoo, one agent after the other."""
    env, generator = registry.environment(task, "AEC")(config, max_cycles=STEPS // 4), np.random.default_rng(1)
    env.reset(seed=SEED)
    for agent in env.agent_iter():
        row, reward, terminated, truncated, info = env.last()
        yield from (row, np.array(reward))
        over = terminated or truncated
        env.step(None if over else drawn(generator, info["action_mask"], env.action_space(agent).nvec))


def gymnasium_view(view: str) -> Callable[[str, Any], Iterator[Any]]:
    """A Gymnasium view, Central or Ego, alone and then vectorised."""

    def play(task: str, config: Any) -> Iterator[Any]:
        env, generator = registry.environment(task, f"{view}Env")(config, max_cycles=STEPS), np.random.default_rng(1)
        env.reset(seed=SEED)
        for _ in range(STEPS):
            row, reward, _, _, info = env.step(drawn(generator, env.action_masks(), env.action_space.nvec))
            yield from (row, np.array(reward), info["action_mask"])
        batch = registry.environment(task, f"{view}VectorEnv")(BATCH, config, max_cycles=STEPS // 2)
        batch.reset(seed=SEED)
        for _ in range(STEPS):
            rows, rewards, _, _, info = batch.step(drawn(generator, batch.action_masks(),
                                                         batch.single_action_space.nvec))
            yield from (rows, rewards, info["action_mask"])

    return play


def stable_baselines(task: str, config: Any) -> Iterator[Any]:
    """Stable-Baselines3, over the end of an episode."""
    env, generator = registry.environment(task, "VecEnv")(config, 2, SEED), np.random.default_rng(1)
    env.reset()
    for _ in range(STEPS):
        rows, rewards, done, _ = env.step(drawn(generator, env.action_masks(), env.action_space.nvec))
        yield from (rows, rewards, done, env.core.terms)


VIEWS = {"parallel": parallel, "aec": aec, "central": gymnasium_view("Central"), "ego": gymnasium_view("Ego"),
         "stable-baselines3": stable_baselines}


def digest(arrays: Iterator[Any]) -> str:
    """16 hexadecimal digits of all the arrays."""
    h = hashlib.sha256()
    for array in arrays:
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()[:16]


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--against", type=Path, metavar="FILE",
                        help="compare with digests written by --json; exit code 2 if any differs")
    commands.add_set(parser)
    commands.add_json(parser)
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Compute, compare and write."""
    cases = [(task, scenario, view) for task in registry.names() for scenario in registry.task(task).scenarios
             for view in VIEWS]
    found = {}
    for task, scenario, view in tqdm(cases, disable=args.quiet, unit="digest", leave=False):
        config = resolve(registry.config_class(task), scenario, ["episode_s=6", "scoring.mode=none", *args.overrides])
        found[f"{task}/{scenario}/{view}"] = digest(VIEWS[view](task, config))
    if args.json:
        write_whole(args.json, lambda draft: draft.write_text(json.dumps(found, indent=1) + "\n"))
    if args.against is None:
        print("\n".join(f"{value}  {name}" for name, value in found.items()))
        return
    try:
        before = json.loads(args.against.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--against {str(args.against)!r} cannot be read ({error}): give a file that --json "
                          "wrote") from error
    differing = [name for name in found if before.get(name) != found[name]]
    if differing:
        raise ConfigError(f"{len(differing)} of {len(found)} digests differ: {', '.join(differing)}")
    print(f"all {len(found)} digests are equal")


command = commands.Command("python -m kvroam.benchmarks.digests", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
