"""The scorer follows caches that arrive in two parts, and repairs, as the same steps made by hand on the backend do."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kvroam.envs import Core, make_core
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.scoring import Scores
from kvroam.envs.handover.world.state import BACKFILLED, DETOUR, KV, OPENED, REPAIRED, RESUMED
from kvroam.envs.sim.params import SessionConfig
from kvroam.kvbackend import Session, TransferPlan

CONFIG = HandoverConfig(num_ues=2, sessions=SessionConfig(context_tokens=(120, 140), script_tokens=400, scripts=3))
SCALE = CONFIG.serving.context_scale
START = 128


FREE = replace(CONFIG, scoring=ScoringConfig(answers="free"))


def begin(config: HandoverConfig = CONFIG) -> Core:
    core = make_core(config)
    core.reset([0])
    core.task.sim.state.ue["context"] = START * SCALE
    core.task.scorer.reset(core.task.sim, np.array([0]))
    return core


def step(core: Core, until: int, *events: dict[str, Any]) -> Scores:
    """Score one step of hand-made events, in tokens of the measured model; all sessions read up to token `until`."""
    state = core.task.sim.state
    state.world["events"] = len(events)
    for record, event in zip(state.event[0], events, strict=False):
        record["medium"], record["bits"], record["prefix"], record["rest"], record["ue"] = KV, 16, 0.0, False, 0
        for name, value in event.items():
            record[name] = value * SCALE if name in ("context", "snapshot", "prefix") else value
    state.ue["context"] = until * SCALE
    return core.task.scorer.score(core.task.sim)


def resumed(at: int, **more: Any) -> dict[str, Any]:
    return {"kind": RESUMED, "context": at, "snapshot": at, "keep": 0.4, "rest": True} | more


def by_hand(core: Core) -> Session:
    scorer = core.task.scorer
    return scorer.backend.open(scorer.references[scorer._script[0, 0]], START)


def healthy(core: Core) -> bool:
    return bool(core.task.sim.state.ue["healthy"][0, 0])


def assert_equal(scores: Scores, drift: Any) -> None:
    for name in ("kl", "js", "delta_nll", "hot_hits", "hot_total", "cold_hits", "cold_total", "strict_hits",
                 "strict_total", "wrong"):
        assert getattr(scores, name)[0, 0] == pytest.approx(getattr(drift, name)[0], abs=1e-4), name


@pytest.mark.parametrize("scar", [0, 25])
@pytest.mark.parametrize("bits", [16, 4])
def test_a_rest_is_merged_when_it_arrives(scar: int, bits: int) -> None:
    core, at = begin(), START + 30
    session, backend = by_hand(core), core.task.scorer.backend
    scores = step(core, at + scar, resumed(at, bits=bits), {"kind": BACKFILLED, "context": at + scar})
    drift = backend.advance([session], [30])
    backend.migrate([session], [TransferPlan(keep=0.4, bits=bits, rest=True)])
    drift += backend.advance([session], [scar])
    backend.backfill([session])
    assert_equal(scores, drift)
    assert healthy(core) == session.whole == (scar == 0 and bits == 16)
    later = step(core, at + scar + 150)
    assert_equal(later, backend.advance([session], [150]))
    assert (later.kl[0, 0] == 0.0) == healthy(core)
    assert core.task.sim.state.ue["healthy"][0, 1] and later.kl[0, 1] == 0.0, "the other session never moved"


def test_a_session_that_moves_again_gives_up_the_rest_that_has_not_come() -> None:
    core = begin()
    session, backend = by_hand(core), core.task.scorer.backend
    step(core, START + 20, resumed(START, keep=0.1))
    assert not healthy(core) and core.task.scorer._own[0, 0].awaits_rest
    second = step(core, START + 140, resumed(START + 40, keep=0.9, rest=False))
    backend.migrate([session], [TransferPlan(keep=0.1)])
    backend.advance([session], [20])
    drift = backend.advance([session], [20])
    backend.migrate([session], [TransferPlan(keep=0.9)])
    drift += backend.advance([session], [100])
    assert_equal(second, drift)
    assert second.strict_total[0, 0] > 0 and second.wrong[0, 0] > 0


def test_a_repair_makes_a_session_whole_where_it_is() -> None:
    core = begin()
    step(core, START + 20, resumed(START))
    assert not healthy(core) and core.task.scorer.degraded == 1
    during = step(core, START + 90, {"kind": REPAIRED, "context": START + 50})
    assert healthy(core) and core.task.scorer.degraded == 0
    assert during.kl[0, 0] > 0.0
    after = step(core, START + 200)
    assert (after.kl[0, 0], after.strict_total[0, 0], after.wrong[0, 0]) == (0.0, 0, 0)
    assert after.top1[0, 0] == after.measured[0, 0] == 110


def test_events_that_have_nothing_to_do_change_nothing() -> None:
    """Rounding to the measured model can leave no rest, or a whole cache, where the simulator expects otherwise."""
    core = begin()
    step(core, START, resumed(START, keep=1.0), {"kind": BACKFILLED, "context": START})
    assert healthy(core)
    for kind in (BACKFILLED, REPAIRED):
        core.task.sim.state.ue["healthy"][0, 0] = False
        scores = step(core, START + 5, {"kind": kind, "context": START + 5})
        assert healthy(core) and core.task.scorer.degraded == 0 and scores.kl[0, 0] == 0.0
    step(core, START + 5, resumed(START + 5, rest=False), {"kind": BACKFILLED, "context": START + 5})
    assert not healthy(core)
    step(core, START + 5, resumed(START + 5, medium=DETOUR))
    assert not healthy(core)


def test_a_new_session_forgets_the_rest_of_the_one_before() -> None:
    core = begin()
    step(core, START, resumed(START))
    used = core.task.scorer.backend.memory_used
    core.task.sim.state.ue["context"][0, 1] = START * SCALE
    step(core, START, {"kind": OPENED, "context": 50})
    assert healthy(core) and core.task.scorer.degraded == 0
    assert core.task.scorer.backend.memory_used < used


@pytest.mark.parametrize("twice", [False, True])
def test_a_pending_rest_survives_saving(twice: bool) -> None:
    """The source's rows are in the saved state where they are not those of the script's whole cache."""
    core = begin()
    if twice:
        step(core, START + 5, resumed(START, keep=0.8, rest=False))
    step(core, START + 20, resumed(START + 10))
    other = pickle.loads(pickle.dumps(core))
    events = {"kind": BACKFILLED, "context": START + 40}
    results = []
    for one in (core, other):
        scores = [step(one, START + 80, events), step(one, START + 150)]
        rows = one.task.scorer._own[0, 0].rows
        results.append((scores, rows.kv.numpy().copy(), rows.positions.copy()))
    for name in Scores.names():
        for a, b in zip(results[0][0], results[1][0], strict=True):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(results[0][1], results[1][1]) and np.array_equal(results[0][2], results[1][2])
    assert pickle.dumps(copy.deepcopy(core)) == pickle.dumps(core)


def test_what_was_lost_and_settled_survives_saving() -> None:
    core = begin()
    step(core, START + 20, resumed(START))
    step(core, START + 40, {"kind": BACKFILLED, "context": START + 30})
    other = pickle.loads(pickle.dumps(core))
    one, two = (c.task.scorer._own[0, 0] for c in (core, other))
    assert (one.lost_at, one.part.state) == (two.lost_at, two.part.state) == (START, "merged")
    for name in Scores.names():
        a, b = (getattr(step(c, START + 200), name) for c in (copy.deepcopy(core), copy.deepcopy(other)))
        assert np.array_equal(a, b), name


def test_free_sessions_go_on_with_the_answers_that_they_gave() -> None:
    core = begin(FREE)
    scorer, backend = core.task.scorer, core.task.scorer.backend
    session, script = by_hand(core), scorer._script_of((0, 0))
    scores = step(core, START + 150, resumed(START, keep=0.2, rest=False))
    backend.migrate([session], [TransferPlan(keep=0.2)])
    assert_equal(scores, backend.advance([session], [150], own_answers=True))
    own = scorer._own[0, 0].reference
    assert np.array_equal(own.tokens, session.reference.tokens) and not np.array_equal(own.tokens, script.tokens)
    step(core, START + 150, {"kind": REPAIRED, "context": START + 150})
    assert healthy(core) and scorer.degraded == 0 and (0, 0) in scorer._own, "whole, but it has another history"
    other = pickle.loads(pickle.dumps(core))
    again = step(core, START + 170, resumed(START + 160, keep=0.5, rest=False))
    backend.repair([session])
    drift = backend.advance([session], [10], own_answers=True)
    backend.migrate([session], [TransferPlan(keep=0.5)])
    assert_equal(again, drift + backend.advance([session], [10], own_answers=True))
    restored = step(other, START + 170, resumed(START + 160, keep=0.5, rest=False))
    for name in Scores.names():
        assert np.array_equal(getattr(restored, name), getattr(again, name)), name


def test_free_sessions_that_never_move_have_no_drift_and_need_no_cache_of_their_own() -> None:
    core = begin(FREE)
    scores = step(core, START + 200)
    assert scores.kl.sum() == scores.wrong.sum() == 0 and not core.task.scorer._own
    assert scores.hot_total.sum() + scores.cold_total.sum() > 0
