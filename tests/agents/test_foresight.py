"""Foresight: what it foresees happens, whatever the policy does, and the simulator is left as it was."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.agents.handover.foresight import Foresight, next_changes
from kvroam.agents.registry import make
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.world.state import IDLE, PREPARING, RESUMED

# Radio links do not fail here: failures depend on interference, and so on what policies do.
QUICK = ["scoring.mode=none", "num_ues=8", "mobility.vehicle_share=1.0", "radio.q_out_db=-100.0",
         "radio.q_in_db=-90.0"]


def core_at(seeds, changes=()):
    """A core just reset."""
    core = make_core(resolve("handover", [*QUICK, *changes]), len(seeds))
    core.reset(seeds)
    return core


@pytest.mark.parametrize("trigger", ["a3", "policy"])
def test_the_changes_of_cell_come_as_foreseen_under_another_policy(trigger):
    core = core_at([3, 4], [f"actions.trigger={trigger}"])
    policy = make("cho", core.config)
    before = core.digest()
    time, cell = next_changes(core.task.sim, 15.0)
    assert core.digest() == before
    happened = [[[] for _ in range(core.num_agents)] for _ in range(core.num_envs)]
    for _ in range(150):
        was = core.task.sim.state.ue["radio"].copy()
        core.step(policy.act(core.view))
        ue = core.task.sim.state.ue
        for e, u in np.argwhere(ue["radio"] != was):
            happened[e][u].append((float(ue["since_s"][e, u]), int(ue["radio"][e, u])))
    assert sum(len(changes) for row in happened for changes in row) > 8
    for e, row in enumerate(happened):
        for u, changes in enumerate(row):
            count = len(changes)
            assert list(zip(time[e, u, :count].tolist(), cell[e, u, :count].tolist(), strict=True)) == changes
            assert (time[e, u, count:] == np.inf).all() and (cell[e, u, count:] == -1).all()


def test_it_hardly_prepares_in_vain_and_hardly_waits():
    core = core_at([3, 4])
    policy = Foresight(core.config)
    policy.reset(core.view)
    delays, cancelled = [], 0
    for _ in range(300):
        before = core.view.phase == PREPARING
        core.step(policy.act(core.view))
        cancelled += int((before & (core.view.phase == IDLE) & (core.view.server_cell == core.view.radio_cell)
                          & (core.task.sim.state.flow["wasted_bits"] > 0.0)).sum())
        delays += [float(event["interruption_s"]) for _, event in core.task.events() if event["kind"] == RESUMED]
    floor = core.config.radio.interruption_s + 1.0 / core.config.serving.decode_tokens_per_s
    # A session that opens anew, or two handovers within a moment, cannot be prepared for in time.
    assert cancelled <= 2 and len(delays) > 15 and np.median(delays) < 1.5 * floor


def test_an_environment_that_begins_anew_is_looked_at_anew():
    core = core_at([3, 4])
    policy = Foresight(core.config)
    policy.reset(core.view)
    first = policy._time.copy()
    core.task.sim.seed(1, 77)
    core.task.sim.reset(np.array([1]))
    core.view.refresh()
    policy.act(core.view)
    assert np.array_equal(policy._time[0], first[0]) and not np.array_equal(policy._time[1], first[1])


def test_it_looks_ahead_again_and_again():
    core = core_at([3, 4])
    policy, known = Foresight(core.config), 0
    policy.reset(core.view)
    for step in range(400):
        cell, in_s, *_ = policy.forecast(core.view)
        if step % 50 == 0:
            # What changes within the coming second is known, at any time of the episode.
            time, target = next_changes(core.task.sim, 1.0)
            coming = time[..., 0] < core.view.time_s[:, None] + 1.0
            assert np.array_equal(cell[coming], target[..., 0][coming])
            assert in_s[coming] == pytest.approx((time[..., 0] - core.view.time_s[:, None])[coming], abs=1e-9)
            known += int(coming.sum())
        core.step(policy.act(core.view))
    assert known > 3
