"""Event A3 on hand-made RSRP traces: entering, leaving, hysteresis, time-to-trigger, a timer for every cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.envs.handover.world.state import PARAMS, UE
from kvroam.envs.sim.cell_change import a3_events, forget_events

from .sim_bench import Bench

OFFSET_DB, HYSTERESIS_DB, STEP_S = 2.0, 1.0, 0.1


def handovers(margin_db: np.ndarray, ttt_s: float = 0.16, phase_s: float = 0.0) -> list[tuple[float, int]]:
    """The handovers (time, cell) of a UE at cell 0 whose neighbours are `margin_db` [T, C - 1] above it.

    After a handover the trace goes on for the new cell as if nothing had changed, so only the first is meaningful
    unless the trace is flat.
    """
    steps, cells = margin_db.shape[0], margin_db.shape[1] + 1
    ue, params = np.zeros(1, UE), np.zeros(1, PARAMS)
    params["a3_offset_db"], params["hysteresis_db"], params["time_to_trigger_s"] = OFFSET_DB, HYSTERESIS_DB, ttt_s
    ue["phase_s"], ue["reconnect_s"] = phase_s, np.inf
    since = np.full((1, cells), np.inf)
    done = []
    for k in range(steps):
        rsrp = np.r_[-80.0, -80.0 + margin_db[k]][None]
        a3_events(ue, params[0], rsrp, since, k * STEP_S)
        assert (ue["fire_cell"][0] == -1) == np.isinf(ue["fire_s"][0])
        if ue["fire_s"][0] < (k + 1) * STEP_S:
            done.append((float(ue["fire_s"][0]), int(ue["fire_cell"][0])))
            forget_events(ue, 0, since)
    return done


def trace(*margins: float) -> np.ndarray:
    """The margin of one neighbour at successive measurements, [T, 1] [dB]."""
    return np.array(margins)[:, None]


def test_entering_needs_more_than_offset_plus_hysteresis():
    assert handovers(trace(*[3.0] * 10)) == []
    assert handovers(trace(*[3.001] * 2)) == [(0.16, 1)]


@pytest.mark.parametrize("ttt_s", [0.0, 0.05, 0.16, 0.64])
def test_the_handover_comes_one_time_to_trigger_after_entering(ttt_s):
    (at_s, cell), *_ = handovers(trace(0, 0, 0, *[5.0] * 10), ttt_s)
    assert at_s == pytest.approx(0.3 + ttt_s, abs=1e-12) and cell == 1


@pytest.mark.parametrize("fade_db", [3.0, 2.0, 1.001, 0.999, -20.0])
def test_a_fade_below_entering_stops_the_timer_whether_or_not_it_reaches_leaving(fade_db):
    # TS 38.331, 5.5.4.1: the entry condition is fulfilled "for all measurements after layer 3 filtering taken during
    # timeToTrigger". Entered at 0 s and due at 0.35 s; a fade at 0.1 or 0.3 s, after which the timer starts anew.
    assert handovers(trace(*[3.5] * 5), ttt_s=0.35) == [(0.35, 1)]
    (first, *_) = handovers(trace(3.5, fade_db, *[3.5] * 5), ttt_s=0.35)
    assert first == (pytest.approx(0.55), 1)
    (first, *_) = handovers(trace(*[3.5] * 3, fade_db, *[3.5] * 5), ttt_s=0.35)
    assert first == (pytest.approx(0.75), 1)
    # It stays faded, or comes back for too short a time.
    assert handovers(trace(3.5, *[fade_db] * 9), ttt_s=0.35) == []
    assert handovers(trace(*[3.5, 3.5, 3.5, fade_db] * 5), ttt_s=0.35) == []
    # At 0.4 s the event has triggered.
    assert handovers(trace(*[3.5] * 4, fade_db), ttt_s=0.35) == [(0.35, 1)]


def test_a_report_that_has_triggered_lasts_through_fades_until_leaving_holds():
    ue, params, since = np.zeros(1, UE), np.zeros(1, PARAMS), np.full((1, 2), np.inf)
    params["a3_offset_db"], params["hysteresis_db"], params["time_to_trigger_s"] = OFFSET_DB, HYSTERESIS_DB, 0.25
    params["policy_trigger"], ue["reconnect_s"] = 1, np.inf
    course = [(3.5, 1), (2.9, -1), (3.5, 1), (3.5, 1), (3.5, 1),  # stopped by a fade, due 0.45 s
              (2.0, 1), (1.001, 1), (0.999, -1), (2.9, -1), (3.001, 1)]
    for k, (margin_db, cell) in enumerate(course):
        a3_events(ue, params[0], np.array([[-80.0, -80.0 + margin_db]]), since, k * STEP_S)
        assert ue["fire_cell"][0] == cell, k


def test_every_cell_has_a_timer_of_its_own():
    # The stronger cell enters later: the one whose condition has held for the time-to-trigger is the target.
    margins = np.array([(4.0, 0.0), (4.0, 9.0), (4.0, 9.0), (4.0, 9.0)])
    assert handovers(margins, ttt_s=0.25)[0] == (0.25, 1)
    # The first cell fades; the timer of the second is not touched by that.
    margins = np.array([(4.0, 0.0), (4.0, 4.0), (0.0, 4.0), (0.0, 4.0), (0.0, 4.0)])
    assert handovers(margins, ttt_s=0.25)[0] == (pytest.approx(0.35), 2)


def test_of_two_cells_that_are_due_together_the_stronger_is_the_target():
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        margins = np.array([(4.0, 5.0, 4.5), (4.0, 4.0, 6.0), (4.0, 4.0, 6.0)])[:, order]
        assert handovers(margins, ttt_s=0.15)[0] == (0.15, 1 + order.index(2))


def test_the_timers_start_anew_after_a_handover():
    assert [at for at, _ in handovers(trace(*[5.0] * 8), ttt_s=0.16)] == pytest.approx([0.16, 0.36, 0.56, 0.76])


@pytest.mark.parametrize("phase_s", [0.0, 0.03, 0.07, 0.0999])
def test_the_offset_of_the_measurements_shifts_handovers_and_nothing_else(phase_s):
    # Entered at 0.2 s, left at the third measurement after that: later than 0.16 s, so the handover comes.
    (at_s, _), *_ = handovers(trace(0, 0, 4, 4, 0, 0, 0), 0.16, phase_s)
    assert at_s == pytest.approx(0.36 + phase_s)
    # Left at the second measurement, in time.
    assert handovers(trace(0, 0, 4, 0, 0, 0, 0), 0.16, phase_s) == []


@pytest.mark.parametrize("ttt_s", [0.0, 0.16, 0.64])
def test_in_the_simulator_a_ue_at_another_gnb_goes_there_once_and_stays(city, phy, ttt_s):
    bench = Bench(city, phy, radio=dict(a3_offset_db=2.0, time_to_trigger_s=ttt_s, filter_k=0.0))
    bench.ue[0]["x"], bench.ue[0]["y"] = city.gnb_xyz_m[4]
    bench.step(20)
    assert bench.total("handovers") == 1
    assert bench.ue[0]["radio"] == 4
    # The UE was measured there for the first time at the end of the first interval.
    assert bench.ue[0]["since_s"] == pytest.approx(0.1 + bench.ue[0]["phase_s"] + ttt_s)


def test_the_measurements_of_ues_are_spread_over_the_interval(city, phy):
    phases = np.sort(Bench(city, phy, ues=60).ue["phase_s"])
    assert phases[0] < 0.02 and phases[-1] > 0.08
    assert ((phases >= 0.0) & (phases < 0.1)).all()
    assert len(np.unique(phases)) == 60


def first_handover(margin_db: np.ndarray, ttt_s: float, phase_s: float) -> tuple[float, int] | None:
    """The first handover by definition: the earliest instant one time-to-trigger after a measurement that entered,
    with no measurement in between that did not."""
    instants = np.arange(len(margin_db)) * STEP_S + phase_s
    found = []
    for c in range(margin_db.shape[1]):
        for i in range(len(margin_db)):
            due = instants[i] + ttt_s
            within = (instants > instants[i]) & (instants <= due + 1e-9)
            if margin_db[i, c] > OFFSET_DB + HYSTERESIS_DB and (margin_db[within, c] > OFFSET_DB + HYSTERESIS_DB).all():
                found.append((due, c + 1))
    found = [f for f in found if f[0] < len(margin_db) * STEP_S]
    return min(found) if found else None


@settings(derandomize=True, deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32 - 1), ttt_s=st.sampled_from([0.0, 0.08, 0.16, 0.2, 0.256, 0.64]),
       phase_s=st.floats(0.0, 0.099))
def test_the_first_handover_is_the_one_by_definition(seed, ttt_s, phase_s):
    generator = np.random.default_rng(seed)
    margin_db = np.cumsum(generator.normal(0.0, 1.5, (40, 3)), axis=0) - 2.0
    done = handovers(margin_db, ttt_s, phase_s)
    expected = first_handover(margin_db, ttt_s, phase_s)
    assert bool(done) == (expected is not None)
    if expected is not None:
        assert done[0][0] == pytest.approx(expected[0], abs=1e-9)
        due_together = sum(abs(expected[0] - at) < 1e-9 for at in _dues(margin_db, ttt_s, phase_s))
        assert done[0][1] == expected[1] or due_together > 1


def _dues(margin_db, ttt_s, phase_s):
    """The first handover of each neighbour alone."""
    alone = (first_handover(margin_db[:, c:c + 1], ttt_s, phase_s) for c in range(margin_db.shape[1]))
    return [at[0] for at in alone if at is not None]
