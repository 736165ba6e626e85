"""Foresight: what it foresees happens, whatever the policy does, and the simulator is left as it was."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.agents.handover.foresight import Foresight, next_changes
from kvroam.agents.registry import make
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.world.state import DETOUR as STAYS
from kvroam.envs.handover.world.state import RESUMED

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


def test_it_never_prepares_in_vain_and_hardly_waits():
    core = core_at([3, 4])
    policy = Foresight(core.config)
    policy.reset(core.view)
    wasted, delays = 0.0, []
    for _ in range(300):
        core.step(policy.act(core.view))
        wasted += core.task.sim.state.flow["wasted_gpu_s"].sum()
        delays += [float(event["interruption_s"]) for _, event in core.task.events() if event["kind"] == RESUMED]
    floor = core.config.radio.interruption_s + 1.0 / core.config.serving.decode_tokens_per_s
    # A session that opens anew, or two handovers within a moment, cannot be prepared for in time.
    assert wasted < 0.5 and len(delays) > 15 and np.median(delays) < 1.2 * floor


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


def test_a_short_visit_moves_nothing_and_a_long_one_does():
    core = core_at([3])
    policy, moved = Foresight(core.config), {}
    for visit_s in (0.5, 100.0):
        core.reset([3])
        core.task.sim.state.ue["context"][0, 0] = 6500.0
        policy.reset(core.view)
        home = int(core.view.server_cell[0, 0])
        other = (home + 1) % core.task.sim.num_cells
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
        other = (int(core.view.server_cell[0, 0]) + 1) % core.task.sim.num_cells
        policy._time[0, 0, 0], policy._cell[0, 0, 0] = left_s, other
        policy._time[0, 0, 1:] = np.inf
        prepared[left_s] = int(policy.act(core.view)[0, 0]["target"])
    # 3016 tokens take about a quarter of a second.
    assert prepared == {4.9: -1, 1.0: other}


def test_it_looks_ahead_again_and_again():
    core = core_at([3, 4])
    policy, known = Foresight(core.config), 0
    policy.reset(core.view)
    for step in range(400):
        cell, in_s = policy.forecast(core.view)
        if step % 50 == 0:
            # What changes within the coming second is known, at any time of the episode.
            time, target = next_changes(core.task.sim, 1.0)
            coming = time[..., 0] < core.view.time_s[:, None] + 1.0
            assert np.array_equal(cell[coming], target[..., 0][coming])
            assert in_s[coming] == pytest.approx((time[..., 0] - core.view.time_s[:, None])[coming], abs=1e-9)
            known += int(coming.sum())
        core.step(policy.act(core.view))
    assert known > 3


def test_a_session_that_was_left_behind_is_forwarded_until_its_ue_comes_back():
    core = core_at([3])
    policy, one = Foresight(core.config), np.array([0])
    policy.reset(core.view)
    home = int(core.view.server_cell[0, 0])
    away = (home + 1) % core.task.sim.num_cells
    # The UE is away already, comes back in 2 s and leaves again in 3 s.
    policy._time[0, 0, :2], policy._cell[0, 0, :2] = (2.0, 3.0), (home, away)
    s = policy.situation(core.view, one, one, np.array([away]), np.array([0.0]), np.array([True]))
    assert s.forwarded[0] == pytest.approx(2.0 * s.tokens_per_s[0])


def test_a_preparation_begins_when_an_eighth_of_the_time_left_would_no_longer_do():
    core, one = core_at([3]), np.array([0])
    policy = Foresight(core.config)
    policy.reset(core.view)
    other = (int(core.view.server_cell[0, 0]) + 1) % core.task.sim.num_cells
    policy._cell[0, 0, 0], policy._time[0, 0, 1:] = other, np.inf
    begins, chosen = 0.0, -1
    for left_s in np.arange(0.35, 5.0, 0.05):
        policy._time[0, 0, 0] = left_s
        plan = policy.act(core.view)[0, 0]
        if plan["target"] == other:
            begins = float(left_s)
            s = policy.situation(core.view, one, one, np.array([other]), np.array([left_s]), np.array([False]))
            chosen = int(policy._table(s, core.view)[:, 0].argmin())
    # How long the plan that it chooses takes: to announce it earlier than that changes nothing.
    aheads = np.arange(0.0, 1.0, 0.005)
    cost = [policy._table(policy.situation(core.view, one, one, np.array([other]), np.array([ahead]),
                                           np.array([False])), core.view)[chosen, 0] for ahead in aheads]
    takes_s = float(aheads[np.argmax(np.array(cost) <= cost[-1] + 1e-9)])
    # The decision after this one would come an interval later.
    assert begins == pytest.approx(8.0 * (takes_s + core.config.interval_s), abs=0.1)
