"""Foresight: what it foresees happens, whatever the policy does, and the simulator is left as it was."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.agents.handover.foresight import Foresight, next_changes
from kvroam.agents.registry import make
from kvroam.envs.base.core import HandoverCore
from kvroam.envs.handover.config import Experiment
from kvroam.envs.handover.world.state import DETOUR as STAYS
from kvroam.envs.handover.world.state import RESUMED
from kvroam.settings.loader import load

# Radio links do not fail here: failures depend on interference, and so on what policies do.
QUICK = ["scoring.mode=none", "num_ues=8", "mobility.vehicle_share=1.0", "radio.q_out_db=-100.0",
         "radio.q_in_db=-90.0"]


def core_at(seeds, changes=()):
    """A core just reset."""
    core = HandoverCore(load(Experiment, "handover", [*QUICK, *changes]), len(seeds))
    core.reset(seeds)
    return core


@pytest.mark.parametrize("trigger", ["a3", "policy"])
def test_the_changes_of_cell_come_as_foreseen_under_another_policy(trigger):
    core = core_at([3, 4], [f"actions.trigger={trigger}"])
    policy = make("cho", core.config)
    before = core.digest()
    time, cell = next_changes(core.sim, 15.0)
    assert core.digest() == before
    happened = [[[] for _ in range(core.num_ues)] for _ in range(core.num_envs)]
    for _ in range(150):
        was = core.sim.state.ue["radio"].copy()
        core.step(policy.act(core.view))
        ue = core.sim.state.ue
        for e, u in np.argwhere(ue["radio"] != was):
            happened[e][u].append((float(ue["since_s"][e, u]), int(ue["radio"][e, u])))
    assert sum(len(changes) for row in happened for changes in row) > 8
    for e, row in enumerate(happened):
        for u, changes in enumerate(row):
            count = len(changes)
            assert list(zip(time[e, u, :count].tolist(), cell[e, u, :count].tolist(), strict=True)) == changes
            assert (time[e, u, count:] == np.inf).all() and (cell[e, u, count:] == -1).all()


def test_it_never_prepares_in_vain_and_hardly_waits():
    core = core_at([3, 4])
    policy = Foresight(core.config)
    policy.reset(core.view)
    wasted, delays = 0.0, []
    for _ in range(300):
        core.step(policy.act(core.view))
        wasted += core.sim.state.flow["wasted_gpu_s"].sum()
        delays += [float(event["interruption_s"]) for _, event in core.events() if event["kind"] == RESUMED]
    floor = core.config.radio.interruption_s + 1.0 / core.config.serving.decode_tokens_per_s
    # A session that opens anew, or two handovers within a moment, cannot be prepared for in time.
    assert wasted < 0.5 and len(delays) > 15 and np.median(delays) < 1.2 * floor


def test_an_environment_that_begins_anew_is_looked_at_anew():
    core = core_at([3, 4])
    policy = Foresight(core.config)
    policy.reset(core.view)
    first = policy._time.copy()
    core.sim.seed(1, 77)
    core.sim.reset(np.array([1]))
    core.view.refresh()
    policy.act(core.view)
    assert np.array_equal(policy._time[0], first[0]) and not np.array_equal(policy._time[1], first[1])


def test_a_short_visit_moves_nothing_and_a_long_one_does():
    core = core_at([3])
    policy, moved = Foresight(core.config), {}
    for visit_s in (0.5, 100.0):
        core.reset([3])
        core.sim.state.ue["context"][0, 0] = 6500.0
        policy.reset(core.view)
        home = int(core.view.server_cell[0, 0])
        other = (home + 1) % core.sim.num_cells
        policy._time[0, 0, :2], policy._cell[0, 0, :2] = (0.05, 0.05 + visit_s), (other, home)
        e, u = np.array([0]), np.array([0])
        s = policy.situation(core.view, e, u, np.array([other]), np.array([0.05]), np.array([False]))
        assert s.forwarded[0] == pytest.approx(min(s.rest[0], s.tokens_per_s[0] * visit_s))
        best = policy.options[int(policy._table(s, core.view)[:, 0].argmin())]
        moved[visit_s] = best.medium != STAYS
    assert moved == {0.5: False, 100.0: True}


def test_a_preparation_waits_while_there_is_time():
    core = core_at([3])
    policy, prepared = Foresight(core.config), {}
    for left_s in (4.9, 1.0):
        core.reset([3])
        policy.reset(core.view)
        other = (int(core.view.server_cell[0, 0]) + 1) % core.sim.num_cells
        policy._time[0, 0, 0], policy._cell[0, 0, 0] = left_s, other
        policy._time[0, 0, 1:] = np.inf
        prepared[left_s] = int(policy.act(core.view)[0, 0]["target"])
    # 3016 tokens take about a quarter of a second.
    assert prepared == {4.9: -1, 1.0: other}
