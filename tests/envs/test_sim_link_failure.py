"""Radio-link failure: T310 by definition, the lost command, and what happens to the session at re-establishment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.envs.handover.world.state import DETOUR, IDLE, INTERRUPTED, KV, PARAMS, TOKEN, UE
from kvroam.envs.sim.link_monitoring import monitor
from kvroam.envs.sim.params import RadioConfig

from .sim_bench import FIRST_TOKEN_S, KV_BITS, LINK_BPS, NEVER, REESTABLISHMENT_S, Bench, restore_s

OUT_DB, IN_DB, STEP_S = -8.0, -6.0, 0.1


def first_failure(sinr_db, t310_s: float, phase_s: float) -> float:
    """When the kernel lets the link fail for the first time; inf: never."""
    ue, params = np.zeros(1, UE), np.zeros(1, PARAMS)
    params["q_out_db"], params["q_in_db"], params["t310_s"] = OUT_DB, IN_DB, t310_s
    ue["t310_s"] = ue["reconnect_s"] = np.inf
    ue["phase_s"] = phase_s
    for k, value in enumerate(sinr_db):
        if ue["t310_s"][0] < k * STEP_S:
            break
        ue["monitor_db"] = value
        monitor(ue, params[0], k * STEP_S)
    return float(ue["t310_s"][0])


def failure_by_definition(sinr_db, t310_s: float, phase_s: float) -> float:
    """The earliest instant one T310 after an out-of-sync indication with no in-sync indication in between."""
    at_s = np.arange(len(sinr_db)) * STEP_S + phase_s
    dues = [at_s[i] + t310_s for i in range(len(sinr_db)) if sinr_db[i] < OUT_DB
            and not (sinr_db[(at_s > at_s[i]) & (at_s <= at_s[i] + t310_s)] > IN_DB).any()]
    return min(dues, default=np.inf)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32 - 1), t310_s=st.sampled_from([0.0, 0.05, 0.25, 0.55, 1.05]),
       phase_s=st.floats(0.0, 0.0999))
def test_the_first_failure_is_the_one_by_definition(seed, t310_s, phase_s):
    sinr_db = np.cumsum(np.random.default_rng(seed).normal(0.0, 1.5, 60)) - 6.0
    assert first_failure(sinr_db, t310_s, phase_s) == pytest.approx(failure_by_definition(sinr_db, t310_s, phase_s))


def test_between_in_sync_and_out_of_sync_the_timer_runs_on():
    assert first_failure(np.array([-9.0] + [-7.0] * 20), 1.0, 0.03) == pytest.approx(1.03)
    assert first_failure(np.array([-7.0] * 20), 1.0, 0.03) == np.inf
    assert first_failure(np.array([-9.0] * 5 + [-5.9] * 20), 1.0, 0.03) == np.inf


def test_in_the_same_cell_the_session_goes_on_where_it_was(city, phy):
    bench = Bench(city, phy)
    bench.put(0, streaming=True)
    bench.plan(0, medium=KV)
    bench.fail(0, 0.03, 0)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(REESTABLISHMENT_S + FIRST_TOKEN_S)
    assert event["time_s"] == pytest.approx(0.03 + REESTABLISHMENT_S + FIRST_TOKEN_S)
    assert (event["source"], event["target"], event["medium"], event["rlf"]) == (0, 0, DETOUR, True)
    assert bench.total("rlf") == 1 and bench.total("handovers") == 0 and bench.total("bits_sent") == 0.0
    assert bench.ue[0]["previous"] == -1 and bench.ue[0]["healthy"] and not bench.ue[0]["rlf"]


def test_a_session_that_was_left_behind_stays_there_when_its_ue_returns_to_the_same_cell(city, phy):
    bench = Bench(city, phy)
    bench.put(0, radio=2, server=1)
    bench.plan(0, medium=KV)
    bench.fail(0, 0.03, 2)
    event = bench.until_resumed()
    assert (event["source"], event["target"]) == (1, 1) and bench.ue[0]["radio"] == 2


def test_elsewhere_the_session_follows_as_at_a_handover(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, medium=KV)
    bench.fail(0, 0.03, 3)
    event = bench.until_resumed()
    bits = 1000 * KV_BITS
    assert event["interruption_s"] == pytest.approx(
        REESTABLISHMENT_S + bits / LINK_BPS + restore_s(bits) + FIRST_TOKEN_S)
    assert (event["source"], event["target"], event["rlf"]) == (0, 3, True)
    assert (bench.ue[0]["radio"], bench.ue[0]["previous"]) == (3, 0)
    assert bench.ue[0]["since_s"] == pytest.approx(0.03 + REESTABLISHMENT_S)


def test_a_preparation_towards_the_chosen_cell_counts_and_goes_on_during_the_failure(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=3, medium=KV)
    bench.fail(0, 0.05, 3)
    event = bench.until_resumed()
    bits = 1000 * KV_BITS
    end_s = bits / LINK_BPS
    assert end_s > 0.05 + REESTABLISHMENT_S
    late = bits - LINK_BPS * (0.05 + REESTABLISHMENT_S)
    assert event["time_s"] == pytest.approx(end_s + restore_s(late) + FIRST_TOKEN_S)
    assert bench.total("wasted_bits") == 0.0


def test_a_preparation_towards_another_cell_is_wasted(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=3, medium=KV)
    bench.fail(0, 0.05, 4)
    bench.step()
    bench.plan(0, target=-1, medium=TOKEN)
    event = bench.until_resumed()
    assert event["target"] == 4 and event["medium"] == TOKEN
    assert bench.total("wasted_bits") == pytest.approx(LINK_BPS * (0.05 + REESTABLISHMENT_S))


def test_a_handover_command_on_a_link_out_of_sync_is_lost(city, phy):
    for at_db, failures in ((-8.5, 1), (-7.5, 0)):
        bench = Bench(city, phy, radio=dict(q_out_db=-8.0, q_in_db=-8.0))
        bench.hand_over(0, 3, 0.02)
        bench.ue[0]["monitor_db"] = at_db
        bench.step()
        for field, count in (("handover_failures", failures), ("rlf", failures), ("handovers", 1 - failures)):
            assert bench.total(field) == count
        assert bench.ue[0]["radio"] == (0 if failures else 3)


def test_no_plan_and_no_measurement_moves_a_ue_whose_link_has_failed(city, phy):
    bench = Bench(city, phy, radio=dict(a3_offset_db=1.0, time_to_trigger_s=0.0, reestablishment_s=5.0))
    bench.put(0, streaming=True)
    bench.fail(0, 0.01, 4)
    bench.plan(0, target=2, medium=KV)
    bench.step(40)
    me = bench.ue[0]
    assert me["radio"] == 0 and me["phase"] == INTERRUPTED and me["fire_cell"] == -1
    assert bench.total("interruption_s") == pytest.approx(4.0 - 0.01)
    bench.step(20)
    assert me["radio"] == 4 and bench.total("rlf") == 1


def test_out_of_coverage_the_link_fails_again_and_again_and_a_serving_cell_remains(city, phy):
    bench = Bench(city, phy, ues=4, radio=dict(q_out_db=90.0, q_in_db=90.0, t310_s=0.5, measurement_noise_db=4.0))
    for u in range(4):
        bench.put(u, streaming=bool(u % 2))
    period = REESTABLISHMENT_S + 0.5
    for _ in range(200):
        bench.step()
        ue = bench.ue
        assert ((ue["radio"] >= 0) & (ue["radio"] < 9) & (ue["server"] >= 0) & (ue["server"] < 9)).all()
        assert (np.isinf(ue["t310_s"]) | np.isinf(ue["reconnect_s"])).all()
        assert (ue["phase"][np.isfinite(ue["reconnect_s"])] == INTERRUPTED).all()
    # After each re-establishment it is out of sync at the next indication, one interval later at most.
    assert 20.0 / (period + 0.1) - 1 <= bench.total("rlf", 0) <= 20.0 / period + 1
    assert all(e["interruption_s"] >= REESTABLISHMENT_S + FIRST_TOKEN_S - 1e-9 for e in bench.resumed(1))
    assert bench.total("tokens", 1) > 0.0


def test_a_handover_stops_t310(city, phy):
    bench = Bench(city, phy, radio=dict(q_out_db=90.0, q_in_db=90.0, t310_s=1.0))
    bench.ue[0]["monitor_db"] = NEVER
    bench.ue[0]["t310_s"] = 0.09
    bench.hand_over(0, 3, 0.05)
    bench.step()
    assert bench.total("handovers") == 1 and bench.total("rlf") == 0
    assert bench.ue[0]["t310_s"] == pytest.approx(0.1 + bench.ue[0]["phase_s"] + 1.0)


def test_the_phase_is_idle_again_after_everything(city, phy):
    bench = Bench(city, phy)
    bench.fail(0, 0.0, 5)
    bench.step(20)
    assert bench.ue[0]["phase"] == IDLE and bench.ue[0]["server"] == 0 and bench.ue[0]["radio"] == 5


@pytest.mark.parametrize(("field", "value"), [("q_out_db", -5.0), ("t310_s", -1.0), ("reestablishment_s", -0.1),
                                              ("monitoring_load", 1.5), ("q_in_db", float("nan"))])
def test_impossible_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        RadioConfig(**{field: value})
