"""Worlds: what is reported of a rollout is all of it."""

from __future__ import annotations

import numpy as np

from kvroam.envs.base.make import make_core
from kvroam.experiment import load_experiment
from kvroam.training.worlds import Asked, Worlds

CHANGES = ["num_ues=4", "episode_s=3.0", "scoring.mode=table", "sessions.scripts=4"]


def test_metrics_of_an_episode_contain_its_last_interval() -> None:
    core = make_core(load_experiment("handover", CHANGES).environment, 2)
    worlds = Worlds([core], [5], gamma=0.99)
    worlds.reset()
    first = core.task.parts

    def ask(seen: np.ndarray, masks: np.ndarray) -> Asked:
        n = len(seen)
        return Asked(np.zeros((n, len(first)), np.int64), np.zeros(n, np.float32), np.zeros(n, np.float32))

    while not worlds.episode_metrics:
        worlds.collect(1, ask, lambda seen: np.zeros(len(seen), np.float32))
    told = worlds.episode_metrics

    again = make_core(core.config, 2)
    again.reset([5, 6])
    meter = again.task.meter()
    idle = again.decode(np.zeros((2, 4, len(first)), np.int64))
    for _ in range(core.config.max_steps):
        again.step(idle)
        meter.add(again)
    assert [m["cost"] for m in told] == [meter.result(e)["cost"] for e in range(2)]
