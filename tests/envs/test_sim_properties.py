"""Random worlds with every option, under plans without any sense: what must hold always, holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.envs.handover.world.simulator import Simulator
from kvroam.envs.handover.world.state import FLOW, IDLE, INTERRUPTED, NO_JOB, OPENED, RESUMED, RUNNING, WAITING
from kvroam.envs.sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)

from .sim_bench import server_by_events
from .test_sim_conservation import UES, Book, arbitrary_plans, reservations

STEPS, STEP_S = 70, 0.1
RATE, SPREAD, AIR_S = 200.0, 2.0, 1e-3
SPEED = dict(prefill_s_per_token=5e-5, decode_tokens_per_s=RATE)

WORLDS = st.fixed_dictionaries(dict(
    seed=st.integers(0, 10**6), topology=st.sampled_from(["mesh", "pool"]),
    capacity_bps=st.sampled_from([2e8, 2e9, 2e10]), variation=st.sampled_from([1.0, 4.0]),
    prefill=st.sampled_from(["batch", "chunked"]), chunk_tokens=st.sampled_from([64, 512]),
    cycle_s=st.sampled_from([0.003, 0.01, 0.25]),
    places=st.sampled_from([2, 3, 100]), memory_spread=st.sampled_from([1.0, 1.4]),
    prompt=st.sampled_from([(0.0, 0.0), (60.0, 0.8), (2000.0, 1.0)]), think_shape=st.sampled_from([0.35, 1.0]),
    preset=st.sampled_from(["qwen2.5-7b", "qwen3-32b"]), decode=st.sampled_from(["shared", "alone"]),
    forwarding=st.sampled_from(["none", 1, 8])))


def build(city, phy, world: dict) -> tuple[Simulator, float]:
    """A restless world, and what one session reserves [byte]."""
    serving = ServingConfig(world["preset"], **SPEED)
    sessions = SessionConfig(context_tokens=(100, 300), script_tokens=340, think_s=0.2, prompt_tokens=world["prompt"],
                             think_shape=world["think_shape"], answer_tokens=(60.0, 1.0))
    each = serving.kv_bits_per_token(16) / 8 * 8.0 * 340
    sim = Simulator(
        city, phy, num_ues=UES, interval_s=STEP_S, serving=serving, sessions=sessions,
        radio=RadioConfig(measurement_noise_db=4.0, time_to_trigger_s=0.05, a3_offset_db=0.0, max_air_s=AIR_S),
        mobility=MobilityConfig(convoy=3),
        compute=ComputeConfig(prefill=world["prefill"], decode=world["decode"], speed_spread=SPREAD,
                              chunk_tokens=world["chunk_tokens"], cycle_s=world["cycle_s"],
                              memory_spread=world["memory_spread"],
                              kv_memory_bytes=(world["places"] + 0.2) * each * world["memory_spread"]),
        backhaul=BackhaulConfig(capacity_bps=world["capacity_bps"], topology=world["topology"],
                                forwarding=world["forwarding"], variation=world["variation"],
                                variation_period_s=0.17))
    sim.seed(0, world["seed"])
    sim.reset()
    return sim, each


def check_step(sim: Simulator, each: float, before: np.ndarray, k: int) -> None:
    """What holds for one step and between two states."""
    state, p = sim.state, sim.params[0]
    ue, cell, flow = state.ue[0], state.cell[0], state.flow[0]
    events = state.event[0, :state.world["events"][0]]
    answers = state.answer[0, :state.world["answers"][0]]
    assert state.world["time_s"][0] == pytest.approx((k + 1) * STEP_S)
    for times in (events["time_s"], answers["time_s"]):
        assert (np.diff(times) >= 0.0).all()
        assert ((times >= k * STEP_S - 1e-9) & (times <= (k + 1) * STEP_S + 1e-9)).all()
    for name in flow.dtype.names:
        assert (flow[name] >= 0).all() and np.isfinite(flow[name]).all(), name
    assert (flow["interruption_s"] <= STEP_S + 1e-9).all()
    assert (events["interruption_s"] >= 0.0).all() and (answers["ttft_s"] >= 1 / (SPREAD * RATE) - 1e-9).all()
    # n tokens take at least n - 1 undisturbed steps from the first to the last, which may be on the air for less long.
    least_s = (answers["tokens"] - 1.0) / (SPREAD * RATE)
    assert (answers["tokens"] > 0.0).all() and (answers["duration_s"] >= least_s - AIR_S).all()
    # A link never carries more than its largest capacity, nor a server more GPU seconds than there are.
    links = cell["egress_nominal_bps"] * float(p["variation"])
    assert flow["bits_sent"].sum() <= (links[0] if p["pool"] else links.sum()) * STEP_S * (1 + 1e-9)
    if p["chunked"]:
        assert flow["gpu_s"].sum() + flow["prompt_gpu_s"].sum() <= len(cell) * STEP_S * (1 + 1e-9)
        running = np.zeros(len(cell), int)
        np.add.at(running, ue["target"][ue["job"] == RUNNING], 1)
        np.add.at(running, ue["server"][ue["prompt"] == RUNNING], 1)
        assert (running <= 1).all()
    # Memory: residents and reservations.
    assert (reservations(ue, len(cell)) * each <= cell["memory_bytes"]).all()
    moving = (ue["phase"] != IDLE) & (ue["target"] != ue["server"])
    # Who is served is in reach of its server; who is stranded is not, and nothing is under way for it.
    hops, reach, lost = sim.tables.hops[ue["server"], ue["radio"]], p["forwarding"], np.isfinite(ue["reconnect_s"])
    assert (hops[ue["phase"] != INTERRUPTED] <= reach).all()
    assert (hops[ue["stranded"] & ~lost] > reach).all() and (ue["phase"][ue["stranded"]] == INTERRUPTED).all()
    assert (ue["bits_left"][ue["stranded"]] == 0.0).all() and (ue["job"][ue["stranded"]] == NO_JOB).all()
    assert (ue["context"] <= ue["end"] + 1e-6).all()
    # A session is in one place, and changes it by resuming there or by beginning anew.
    assert ((ue["server"] >= 0) & (ue["server"] < len(cell))).all()
    for u in range(UES):
        server = server_by_events(before["server"][u], events[events["ue"] == u])
        assert server in (None, ue["server"][u])
    # Who waits for a prompt produces nothing; who has no cache sends nothing.
    assert not (ue["streaming"] & (ue["prompt"] != NO_JOB)).any()
    assert (ue["prompt"][ue["opening"]] != NO_JOB).all() and (ue["bits_left"][ue["opening"]] == 0.0).all()
    leaves = moving & (ue["phase"] == INTERRUPTED) & (ue["then"] == IDLE)
    assert (ue["prompt"][leaves] != RUNNING).all()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(world=WORLDS)
def test_nothing_is_lost_overfull_or_in_two_places(city, phy, world):
    sim, each = build(city, phy, world)
    generator = np.random.default_rng(world["seed"])
    flow = np.zeros((STEPS, UES), sim.state.flow.dtype)
    book, felt = Book(sim), np.zeros(UES)
    for k in range(STEPS):
        before = sim.state.ue[0].copy()
        plans = arbitrary_plans(generator, sim)
        plans["prefill_delay_s"] = generator.choice([0.0, 0.0, 0.05, 0.4], plans.shape)
        sim.advance(plans)
        check_step(sim, each, before, k)
        flow[k] = sim.state.flow[0]
        events = sim.state.event[0, :sim.state.world["events"][0]]
        begun = np.isin(np.arange(UES), events["ue"][events["kind"] == OPENED]) | before["opening"]
        grown = sim.state.ue[0]["context"] - before["context"]
        assert grown[~begun] == pytest.approx((flow[k]["tokens"] + flow[k]["prompt_tokens"])[~begun], abs=1e-6)
        book.add(events)
        book.check()
        resumed = events[events["kind"] == RESUMED]
        np.add.at(felt, resumed["ue"], resumed["felt_s"])
    ue = sim.state.ue[0]
    assert flow["bits_sent"].sum(0) == pytest.approx(
        book.sent_bits + flow["wasted_bits"].sum(0) + ue["bits_sent"], rel=1e-9)
    felt += np.where(ue["phase"] == INTERRUPTED, ue["felt_s"], 0.0)
    assert flow["interruption_s"].sum(0) == pytest.approx(felt, rel=1e-9, abs=1e-9)
    assert (flow["unavoidable_s"] <= flow["interruption_s"] + 1e-12).all()
    assert (flow["wasted_gpu_s"].sum(0) <= flow["gpu_s"].sum(0) + 1e-9).all()
    assert world["prompt"][0] > 0 or flow["prompt_tokens"].sum() == 0
    if world["places"] == 100:
        assert flow["refused"].sum() == 0
    assert not (ue["job"][ue["phase"] == IDLE] == WAITING).any()


def test_these_worlds_are_restless(city, phy):
    world = dict(topology="mesh", capacity_bps=2e9, variation=4.0, prefill="batch", chunk_tokens=64, cycle_s=0.01,
                 places=3, memory_spread=1.4, prompt=(60.0, 0.8), think_shape=0.35, preset="qwen2.5-7b",
                 decode="shared", forwarding=1)
    total = np.zeros(UES, FLOW)
    for seed in range(4):
        sim, _ = build(city, phy, world | {"seed": seed})
        generator = np.random.default_rng(seed)
        for _ in range(STEPS):
            sim.advance(arbitrary_plans(generator, sim))
            for name in FLOW.names:
                total[name] += sim.state.flow[name][0]
    for name in ("handovers", "tokens", "prompt_tokens", "bits_sent", "gpu_s", "interruption_s", "wasted_bits"):
        assert total[name].sum() > 0, name
