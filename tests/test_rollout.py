"""The one loop in which policies play: what it yields, and that it is the episode itself."""

from __future__ import annotations

import pytest

from kvroam import agents
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.metrics import EpisodeMeter
from kvroam.evaluation.rollout import episodes, rollout
from kvroam.experiment import EvaluateConfig

CONFIG = resolve("handover", ["num_ues=4", "episode_s=20.0", "scoring.mode=none"])


def digests(name: str, seeds: list[int], steps: int) -> list[str]:
    core, player = make_core(CONFIG, len(seeds)), agents.make(name, CONFIG)
    core.reset(seeds)
    player.reset(core.view)
    found = [core.digest()]
    for _ in range(steps):
        core.step(player.act(core.view))
        found.append(core.digest())
    return found


def test_a_rollout_is_the_episode_from_its_reset_to_its_end() -> None:
    core = make_core(CONFIG, 2)
    steps = []
    found = []
    for step in rollout(core, agents.make("ctho", CONFIG), [5, 9]):
        steps.append(step)
        found.append(core.digest())
    assert steps == list(range(201)) and found == digests("ctho", [5, 9], 200)


def test_a_rollout_may_be_shorter() -> None:
    assert list(rollout(make_core(CONFIG), agents.make("cho", CONFIG), [5], 3)) == [0, 1, 2, 3]


def test_episodes_end_with_the_metrics_of_each() -> None:
    goals = EvaluateConfig(ttft_objective_s=0.2, tpot_objective_s=0.05)
    *ticks, results = episodes(make_core(CONFIG, 2), agents.make("cho", CONFIG), [5, 9], goals)
    assert ticks == [None] * 200 and results is not None
    core = make_core(CONFIG, 2)
    meter = EpisodeMeter(core.task, 0.2, 0.05)
    player = agents.make("cho", CONFIG)
    core.reset([5, 9])
    for _ in range(200):
        core.step(player.act(core.view))
        meter.add(core)
    metrics, parts = zip(*results, strict=True)
    assert str(metrics) == str((meter.result(0), meter.result(1)))
    assert metrics[0]["handovers"] > 0
    for of_episode, paid in zip(metrics, parts, strict=True):
        assert sum(paid.values()) == pytest.approx(of_episode["cost"])
        assert paid["traffic"] == pytest.approx(0.1 * of_episode["backhaul_gb"] / CONFIG.num_ues, rel=0.02)
