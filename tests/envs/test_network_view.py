"""What views derive from the simulator: in one pass with a step or after it, and by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kvroam.agents.handover.plans import reactive_plans
from kvroam.envs import make_core
from kvroam.envs.base.core import Core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.world.state import SPLIT

DERIVED = ("candidates", "margin_db", "prefill_wait_s", "egress_queue_bits", "ingress_queue_bits", "free_memory_bytes",
           "predicted_cell", "predicted_in_s")


def fresh(envs: int = 3, threads: int = 1) -> Core:
    """Environments of the default scenario after a reset."""
    config = resolve(None)
    core = make_core(replace(config, scoring=replace(config.scoring, mode="none")), envs, threads)
    core.reset(list(range(envs)))
    return core


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_and_its_view_in_one_pass_are_those_one_after_the_other(threads: int) -> None:
    together, apart = fresh(threads=threads), fresh()
    for _ in range(60):
        together.step(reactive_plans(together.view, SPLIT))
        apart.task.sim.advance(reactive_plans(apart.view, SPLIT))
        apart.view.refresh()
        for name in DERIVED:
            assert np.array_equal(getattr(together.view, name), getattr(apart.view, name)), name
    for one, other in zip(together.task.sim.state, apart.task.sim.state, strict=True):
        assert one.tobytes() == other.tobytes()


def ranked(core: Core) -> tuple[np.ndarray, np.ndarray]:
    """The strongest cells but the serving one and their margins by sorting; of equals the first is ahead."""
    state, count = core.task.sim.state, core.view.candidates.shape[2] - 1
    power, radio = state.rsrp_dbm.copy(), state.ue["radio"].astype(int)[..., None]
    serving = np.take_along_axis(power, radio, axis=2)
    np.put_along_axis(power, radio, -np.inf, axis=2)
    order = np.argsort(-power, axis=2, kind="stable")[..., :count]
    return order, np.take_along_axis(power, order, axis=2) - serving


def test_candidates_are_the_strongest_cells_at_every_step() -> None:
    core = fresh()
    for step in range(80):
        core.step(reactive_plans(core.view, SPLIT))
        if step % 20 == 19:
            # Powers that are alike, and an order that has nothing to do with the one before.
            shape = core.task.sim.state.rsrp_dbm.shape
            core.task.sim.state.rsrp_dbm[:] = np.random.default_rng(step).integers(-90, -84, shape)
            core.view.refresh()
        order, margin = ranked(core)
        assert np.array_equal(core.view.candidates[..., 1:], order)
        assert np.array_equal(core.view.margin_db[..., 1:], margin)
