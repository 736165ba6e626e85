"""Constant plans: what they do to a session, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.agents.handover.constant import ConstantPlan
from kvroam.envs import Core, make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import (
    BACKFILLED,
    FOLLOWING,
    INTERRUPTED,
    KV,
    PREPARING,
    REPAIRED,
    RESUMED,
    SPLIT,
    TOKEN,
)
from kvroam.envs.handover.world.state import DETOUR as STAY

from ..envs.sim_bench import Bench

QUICK = ["scoring.mode=none", "episode_s=40.0", "mobility.vehicle_share=1.0"]
REACHING = ["backhaul.forwarding=20"]


def play(plan: ConstantPlan, changes=()) -> tuple[list[np.void], list[tuple[int, int]], Core]:
    """Events, (phase, medium) of every session after every step, and the core, of one episode."""
    config = resolve("handover", [*QUICK, *changes])
    core = make_core(config, 1)
    core.reset([4])
    events, seen = [], []
    for _ in range(config.max_steps):
        core.step(plan.act(core.view))
        events += [event.copy() for _, event in core.task.events()]
        seen += [(int(me["phase"]), int(me["medium"])) for me in core.task.sim.state.ue[0]]
    return events, seen, core


def test_a_detour_leaves_every_session_where_it_was() -> None:
    events, _, core = play(ConstantPlan("detour"), REACHING)
    moved = [e for e in events if e["kind"] == RESUMED]
    assert moved and all(e["source"] == e["target"] or e["medium"] == STAY for e in moved)
    assert core.task.sim.state.flow["bits_sent"].sum() == 0.0


def test_at_the_handover_nothing_is_prepared_and_everything_follows() -> None:
    events, seen, _ = play(ConstantPlan("split", bits=8))
    media = {int(e["medium"]) for e in events if e["kind"] == RESUMED and e["source"] != e["target"]}
    assert media == {SPLIT} and all(phase != PREPARING for phase, _ in seen)


def test_early_prepares_before_the_radio_has_switched() -> None:
    events, seen, _ = play(ConstantPlan("kv", bits=4, when="early"))
    assert (PREPARING, KV) in seen
    late = {int(e["bits"]) for e in events if e["kind"] == RESUMED and e["source"] != e["target"]}
    assert late == {4}


def test_after_the_handover_tokens_take_the_detour_and_the_cache_follows() -> None:
    events, seen, _ = play(ConstantPlan("kv", when="after"), REACHING)
    assert (PREPARING, KV) in seen and (INTERRUPTED, STAY) in seen
    fetched = [e for e in events if e["kind"] == RESUMED and e["medium"] == KV]
    assert fetched and not any(e["handed_over"] for e in fetched)


def moved(events) -> set[int]:
    """Media of all sessions that resumed elsewhere."""
    return {int(e["medium"]) for e in events if e["kind"] == RESUMED and e["source"] != e["target"]}


@pytest.mark.parametrize(("plan", "media"), [
    (ConstantPlan("detour"), {TOKEN}), (ConstantPlan("kv", when="after"), {KV})])
def test_where_nothing_is_forwarded_a_session_moves_at_the_handover(plan, media) -> None:
    events, seen, _ = play(plan)
    assert moved(events) == media and all(phase != PREPARING for phase, _ in seen)


def test_the_rest_follows_where_it_is_told_to() -> None:
    for backfill in (0.0, 1.0):
        events, seen, _ = play(ConstantPlan("kv", keep=0.25, bits=4, backfill=backfill))
        followed = any(e["kind"] == BACKFILLED for e in events) and any(phase == FOLLOWING for phase, _ in seen)
        assert followed == (backfill > 0.0)


def test_it_resumes_on_what_has_arrived() -> None:
    keeps = {}
    for arrival in ("wait", "resume"):
        events, _, _ = play(ConstantPlan("kv", bits=16, when="early", backfill=1.0, arrival=arrival))
        keeps[arrival] = min(float(e["keep"]) for e in events if e["kind"] == RESUMED and e["medium"] == KV)
    assert keeps["resume"] < 0.5 and keeps["wait"] == 1.0


def test_a_degraded_cache_is_repaired_where_it_is_told_to() -> None:
    for repair in (False, True):
        events, _, _ = play(ConstantPlan("kv", keep=0.25, bits=4, repair=repair))
        assert any(e["kind"] == REPAIRED for e in events) == repair


def test_predicted_prepares_what_is_predicted_within_the_lead_and_what_is_announced(city, phy):
    bench = Bench(city, phy, ues=4)
    bench.hand_over(3, 4, 0.05)
    view = NetworkView(bench.sim, 3)
    view._next_cell[0], view._next_s[0] = [5, 5, -1, 5], [1.5, 2.5, np.inf, 1.0]
    plans = ConstantPlan("kv", when="predicted", lead_s=2.0).act(view)[0]
    assert plans["target"].tolist() == [5, -1, -1, 4]


def test_weights_are_written_at_every_step(city, phy):
    view = NetworkView(Bench(city, phy).sim, 3)
    plan = ConstantPlan("kv", weight=3.0, backfill=0.5, arrival="forward").act(view)[0, 0]
    assert (plan["weight"], plan["backfill"], plan["arrival"], plan["repair"]) == (3.0, 0.5, 2, 0)


def test_early_prepares_nothing_where_the_session_lives_already(city, phy):
    # UE 0 comes back to the cell whose server has kept its session; UE 1 goes on to another one.
    bench = Bench(city, phy, ues=2)
    for u, cell in enumerate((0, 2)):
        bench.put(u, radio=1, server=0)
        bench.hand_over(u, cell, 0.05)
    plans = ConstantPlan("kv", when="early").act(NetworkView(bench.sim, 3))[0]
    assert plans["target"].tolist() == [-1, 2]


@pytest.mark.parametrize(("fields", "says"), [
    (dict(medium="pigeon"), "medium is 'pigeon'"), (dict(keep=0.0), "keep is 0.0"), (dict(bits=5), "bits is 5"),
    (dict(when="never"), "when is 'never'"), (dict(weight=0.0), "weight is 0.0"),
    (dict(backfill=-1.0), "backfill is -1.0"),
    (dict(arrival="fly"), "arrival is 'fly'"), (dict(lead_s=0.0), "lead_s is 0.0"),
])
def test_a_plan_that_cannot_be_is_refused(fields: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ConstantPlan(**fields)
