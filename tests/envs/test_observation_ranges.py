"""Every number of an observation lies in the range that its feature declares, whatever the world and the actions."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.world.state import FOLLOWING, INTERRUPTED, PREPARING, REPAIRING


@pytest.mark.parametrize(("name", "changes", "steps"), [
    ("crowd", [], 60),
    ("handover", ["backhaul.forwarding=4"], 300),
    ("starved_backhaul", ["backhaul.forwarding=1", "actions.trigger=policy"], 200),
    ("rush_hour", ["compute.speed_spread=2.0", "compute.memory_spread=1.2", "backhaul.capacity_spread=3.0"], 200),
])
def test_observations_stay_in_their_documented_ranges(name: str, changes: list[str], steps: int) -> None:
    config = resolve(name, ["scoring.mode=none", "episode_s=60", *changes])
    core = make_core(config)
    task = core.task
    low, high = (np.array([getattr(f, end) for f in task.features]) for end in ("low", "high"))
    flags = np.array([f.unit == "0/1" for f in task.features])
    core.reset([3])
    generator, phases = np.random.default_rng(0), set()
    for _ in range(steps):
        rows = task.observe()
        bad = ~((rows >= low) & (rows <= high)).all(axis=(0, 1))  # NaN too
        assert not bad.any(), [task.features[k].name for k in np.flatnonzero(bad)]
        assert np.isin(rows[..., flags], (0.0, 1.0)).all()
        # Caches that are not whole, for which there is no language model here, so that some are repaired.
        task.sim.state.ue["healthy"] &= generator.random(task.sim.state.ue.shape) > 0.05
        chosen = np.stack([generator.integers(0, part.size, (1, config.num_ues)) for part in task.parts], axis=-1)
        core.step(task.decode(chosen))
        phases |= set(np.unique(task.sim.state.ue["phase"]).tolist())
    assert {PREPARING, INTERRUPTED, REPAIRING} <= phases and (FOLLOWING in phases or name == "crowd")
