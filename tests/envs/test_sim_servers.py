"""Chunked prefill, jobs that are held, and GPU memory, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvroam.envs.handover.actions import masks
from kvroam.envs.handover.config import ActionConfig
from kvroam.envs.handover.observations import OWN, SLOT, observe
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import CANCEL, CONTINUE, DETOUR, IDLE, INTERRUPTED, KV, PREPARING, TOKEN
from kvroam.envs.sim.params import ComputeConfig

from .sim_bench import FIRST_TOKEN_S, RADIO_S, Bench

CLOSE = dict(rel=1e-6)
CHUNK = 500
SESSION_BYTES = 57_344 * 8.0 * 1000


def chunked(city, phy, ues: int, **changes) -> Bench:
    """A bench with chunks of 500 tokens."""
    return Bench(city, phy, ues=ues, compute=dict(prefill="chunked", chunk_tokens=CHUNK) | changes)


def work_s(tokens: float, chunk: int = CHUNK, speed: float = 1.0) -> float:
    """GPU time of a job: 0.1 ms per token and 2 ms per chunk."""
    return 1e-4 * tokens / speed + 2e-3 * math.ceil(tokens / chunk)


def test_chunked_jobs_are_served_one_after_the_other_without_cycle_or_padding(city, phy):
    bench = chunked(city, phy, 3)
    contexts, starts = (2100.0, 400.0, 1500.0), (0.0031, 0.0047, 0.0072)
    for u in range(3):
        bench.put(u, context=contexts[u])
        bench.plan(u, medium=TOKEN)
        bench.hand_over(u, 1, starts[u])
    bench.step(6)
    end = starts[0]
    for u in range(3):
        end += work_s(contexts[u])
        assert bench.resumed(u)[0]["time_s"] == pytest.approx(end + FIRST_TOKEN_S, **CLOSE)
        assert bench.total("gpu_s", u) == pytest.approx(work_s(contexts[u]), **CLOSE)


@pytest.mark.parametrize(("chunk", "speed"), [(100, 1.0), (500, 1.0), (500, 2.0), (4000, 1.0)])
def test_every_chunk_shares_an_iteration_with_one_decode_step_of_the_residents(city, phy, chunk, speed):
    bench = Bench(city, phy, ues=4, compute=dict(prefill="chunked", chunk_tokens=chunk))
    bench.cell[1]["speed"] = speed
    for u in (1, 2):
        bench.put(u, radio=1, streaming=True)
    bench.put(3, radio=2, streaming=True)
    bench.put(0, context=3900.0)
    bench.plan(0, medium=TOKEN)
    bench.hand_over(0, 1, 0.03)
    event = bench.until_resumed()
    iterations = math.ceil(3900 / chunk)
    lasts = work_s(3900, chunk, speed) + iterations / (25.0 * speed)
    assert event["interruption_s"] == pytest.approx(max(RADIO_S, lasts) + FIRST_TOKEN_S / speed, **CLOSE)
    steps = len(bench.flows)
    for u in (1, 2):
        assert bench.total("tokens", u) == pytest.approx(
            iterations + (steps * 0.1 - lasts) * 25.0 * speed, **CLOSE)
    assert bench.total("tokens", 3) == pytest.approx(steps * 0.1 * 25.0, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(work_s(3900, chunk, speed), **CLOSE)


def test_small_chunks_protect_the_residents_and_delay_the_job(city, phy):
    pace, delay = [], []
    for chunk in (64, 256, 1024):
        bench = Bench(city, phy, ues=2, compute=dict(prefill="chunked", chunk_tokens=chunk))
        bench.put(1, radio=1, streaming=True)
        bench.put(0, context=8000.0)
        bench.plan(0, medium=TOKEN)
        bench.hand_over(0, 1, 0.0)
        delay.append(bench.until_resumed()["interruption_s"])
        pace.append(bench.flows[0]["tokens"][1])
    assert pace == sorted(pace, reverse=True) and delay == sorted(delay, reverse=True)


def test_a_chunked_job_that_is_cancelled_leaves_at_once(city, phy):
    bench = chunked(city, phy, 2)
    bench.put(0, context=20_000.0)
    bench.plan(0, target=1, medium=TOKEN)
    bench.plan(1, medium=TOKEN)
    bench.step()
    bench.plan(0, target=CANCEL)
    bench.hand_over(1, 1, 0.1)
    bench.step(4)
    assert bench.resumed(1)[0]["interruption_s"] == pytest.approx(work_s(1000) + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("gpu_s", 0) == bench.total("wasted_gpu_s", 0) == pytest.approx(0.1, **CLOSE)


def test_a_view_shows_the_queue_of_a_chunked_server(city, phy):
    bench = chunked(city, phy, 2)
    for u, context in enumerate((4000.0, 3000.0)):
        bench.put(u, context=context)
        bench.plan(u, target=1, medium=TOKEN)
    bench.step()
    wait = NetworkView(bench.sim, 3).prefill_wait_s[0]
    assert wait[1] == pytest.approx(work_s(4000) + work_s(3000) - 0.1, **CLOSE)
    assert (np.delete(wait, 1) == 0.0).all()


@pytest.mark.parametrize("prefill", ["batch", "chunked"])
def test_a_delayed_job_starts_when_its_delay_ends(city, phy, prefill):
    bench = Bench(city, phy, compute=dict(prefill=prefill, chunk_tokens=5000))
    bench.plan(0, medium=TOKEN, prefill_delay_s=0.07)
    bench.hand_over(0, 1, 0.012)
    assert bench.until_resumed()["time_s"] == pytest.approx(0.07 + 0.102 + FIRST_TOKEN_S, **CLOSE)


def test_a_delay_gathers_a_group_into_one_batch(city, phy):
    # As the paper's ctHO: the batch starts at the first cycle after the last handover of the group.
    bench = Bench(city, phy, ues=3)
    starts = (0.012, 0.055, 0.0888)
    for u in range(3):
        bench.put(u, context=1000.0 + 500 * u)
        bench.plan(u, medium=TOKEN, prefill_delay_s=starts[-1])
        bench.hand_over(u, 1, starts[u])
    bench.step(5)
    for u in range(3):
        assert bench.resumed(u)[0]["time_s"] == pytest.approx(0.09 + 0.202 + FIRST_TOKEN_S, **CLOSE)
    assert bench.total("gpu_s") == pytest.approx(0.202, **CLOSE)


def test_every_plan_renews_or_ends_the_delay(city, phy):
    bench = Bench(city, phy)
    bench.plan(0, target=1, medium=TOKEN, prefill_delay_s=0.1)
    bench.step(5)
    assert bench.total("gpu_s") == 0.0
    bench.plan(0, target=CONTINUE, prefill_delay_s=0.0)
    bench.step()
    assert bench.total("gpu_s") == pytest.approx(0.102, **CLOSE)


@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_a_delay_in_the_past_is_refused(city, phy, value):
    bench = Bench(city, phy)
    bench.plan(0, prefill_delay_s=value)
    with pytest.raises(ValueError, match="prefill_delay_s"):
        bench.step()


def tight(city, phy, ues: int, places: float, **changes) -> Bench:
    """A bench whose servers hold so many sessions of 8000 tokens."""
    sessions = dict(script_tokens=1000, context_tokens=(100, 100)) | changes
    return Bench(city, phy, ues=ues, sessions=sessions, compute=dict(kv_memory_bytes=(places + 0.5) * SESSION_BYTES))


def test_a_migration_without_room_is_refused_and_the_session_takes_the_detour(city, phy):
    bench = tight(city, phy, 3, places=2)
    for u in (1, 2):
        bench.put(u, radio=1)
    bench.plan(0, medium=KV)
    bench.hand_over(0, 1, 0.02)
    event = bench.until_resumed()
    assert event["interruption_s"] == pytest.approx(RADIO_S + FIRST_TOKEN_S, **CLOSE)
    assert (event["source"], event["target"], event["medium"]) == (0, 0, DETOUR)
    assert bench.total("refused") == 1 and bench.total("bits_sent") == 0.0


def test_a_preparation_reserves_its_room_and_gives_it_back_when_cancelled(city, phy):
    bench = tight(city, phy, 3, places=1)
    bench.put(1, radio=2)
    bench.put(2, radio=3)
    bench.plan(0, target=1, medium=KV)
    bench.plan(1, target=1, medium=KV)
    bench.step()
    assert [int(p) for p in bench.ue["phase"]] == [PREPARING, IDLE, IDLE]
    assert bench.total("refused", 1) == 1 and bench.total("refused", 0) == 0
    view = NetworkView(bench.sim, 3)
    assert view.free_memory_bytes[0, :4] == pytest.approx([0.5 * SESSION_BYTES] * 4)
    assert view.session_bytes == SESSION_BYTES
    bench.plan(0, target=CANCEL)
    bench.step()
    assert [int(p) for p in bench.ue["phase"]] == [IDLE, PREPARING, IDLE]


def test_a_session_reserves_at_the_source_until_it_has_resumed(city, phy):
    bench = tight(city, phy, 2, places=1)
    bench.put(1, radio=2)
    bench.plan(0, medium=KV)
    bench.plan(1, medium=KV)
    bench.hand_over(0, 1, 0.0)
    bench.hand_over(1, 0, 0.05)
    bench.step()
    assert bench.ue[0]["phase"] == INTERRUPTED and bench.total("refused", 1) == 1


def test_a_new_session_without_room_opens_where_there_is_most(city, phy):
    bench = tight(city, phy, 4, places=2)
    bench.cell["memory_bytes"][5] *= 3
    for u in (1, 2):
        bench.put(u, radio=1)
    bench.put(3, radio=1, server=2, context=8000.0)
    bench.ue[3]["pause_left_s"] = 0.05
    bench.step()
    assert len(bench.opened(3)) == 1
    assert (bench.ue[3]["radio"], bench.ue[3]["server"]) == (1, 5)


def test_masks_hide_cells_without_room_but_not_the_one_that_is_being_prepared(city, phy):
    bench = tight(city, phy, 3, places=1)
    config, view = ActionConfig(candidates=8), NetworkView(bench.sim, 8)
    for u, radio in enumerate((0, 1, 2)):
        bench.put(u, radio=radio)
    bench.plan(0, target=3, medium=KV)
    bench.step()
    view.refresh()
    allowed = [set(view.candidates[0, u][masks(view, config)[0, u, 1:10]]) for u in range(3)]
    assert allowed[0] == {3, 4, 5, 6, 7, 8} and allowed[1] == allowed[2] == {4, 5, 6, 7, 8}


def test_the_observation_shows_the_free_share_of_every_candidate(city, phy):
    bench = tight(city, phy, 3, places=3)
    bench.put(1, radio=1)
    bench.put(2, radio=1)
    view = NetworkView(bench.sim, 8)
    row = observe(view)[0, 0]
    for k in range(1, 9):
        sessions = 2 if view.candidates[0, 0, k] == 1 else 0
        assert row[len(OWN) + k * len(SLOT) + SLOT.memory] == pytest.approx((3.5 - sessions) / 3.5)


def test_memory_that_does_not_hold_all_sessions_is_refused_with_what_is_needed(city, phy):
    with pytest.raises(ValueError, match="kv_memory_bytes"):
        tight(city, phy, 19, places=2)
    tight(city, phy, 18, places=2)


@pytest.mark.parametrize(("name", "value"), [("kv_memory_bytes", 0.0), ("kv_memory_bytes", math.inf),
                                             ("memory_spread", 0.9), ("chunk_tokens", 0)])
def test_an_impossible_server_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        ComputeConfig(**{name: value})
