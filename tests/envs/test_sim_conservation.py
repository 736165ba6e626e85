"""Whole episodes under arbitrary plans: every bit, second and token is accounted for; a session is in one place."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.handover.world.state import (
    BACKFILLED,
    CANCEL,
    CONTINUE,
    DETOUR,
    FOLLOWING,
    IDLE,
    INTERRUPTED,
    OPENED,
    PREPARING,
    REPAIRED,
    REPAIRING,
    RESUMED,
)
from kvroam.envs.sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)

from .sim_bench import server_by_events

UES, STEPS, STEP_S = 12, 500, 0.1
SERVING = ServingConfig()
FASTEST = 2.0 * SERVING.decode_tokens_per_s  # the fastest server has twice the nominal speed


def restless(city, phy, topology: str, forwarding: int, seed: int) -> Simulator:
    """Many handovers, short sessions, narrow links."""
    sim = Simulator(
        city, phy, num_ues=UES, interval_s=STEP_S,
        radio=RadioConfig(measurement_noise_db=3.0, time_to_trigger_s=0.08, a3_offset_db=0.5, q_out_db=-2.5,
                          q_in_db=-2.5, t310_s=0.2, monitoring_load=0.5),
        mobility=MobilityConfig(convoy=3), sessions=SessionConfig(think_s=0.4, script_tokens=580),
        serving=SERVING, compute=ComputeConfig(),
        backhaul=BackhaulConfig(capacity_bps=2e10, topology=topology, forwarding=forwarding or "none"))
    sim.seed(0, seed)
    sim.reset()
    return sim


def arbitrary_plans(generator: np.random.Generator, sim: Simulator) -> np.ndarray:
    """Plans without any sense, PLAN [1, U]."""
    plans, shape = idle_plans(1, UES), (1, UES)
    what = generator.random(shape)
    somewhere = np.where(generator.random(shape) < 0.5, sim.state.ue["radio"],
                         generator.integers(0, sim.num_cells, shape))
    plans["target"] = np.where(what < 0.85, CONTINUE, np.where(what < 0.87, CANCEL, somewhere))
    plans["medium"] = generator.integers(0, 4, shape)
    plans["keep"] = generator.choice([1.0, 0.5, 0.1], shape)
    plans["bits"] = generator.choice([16, 8, 4], shape)
    plans["weight"] = generator.choice([0.0, 0.25, 1.0, 4.0], shape, p=[0.1, 0.2, 0.5, 0.2])
    plans["prefix"] = np.where(generator.random(shape) < 0.5, -1, generator.integers(0, 6000, shape))
    plans["backfill"] = generator.choice([0.0, 0.25, 4.0], shape, p=[0.3, 0.2, 0.5])
    plans["arrival"] = generator.integers(0, 3, shape)
    plans["repair"] = ~sim.state.ue["healthy"] & (generator.random(shape) < 0.3)
    return plans


class Book:
    """What each migration must have sent, and how many tokens each cache lacks, from the events alone."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.lacks, self.density = np.zeros(sim.num_ues), np.ones(sim.num_ues)
        self.sent_bits = np.zeros(sim.num_ues)

    def add(self, events: np.ndarray) -> None:
        """Follow the events of one step, in order."""
        for e in events:
            u = e["ue"]
            if e["kind"] in (OPENED, REPAIRED):
                self.lacks[u] = 0.0
                continue
            rows, wire = e["snapshot"] - e["prefix"], self.sim.serving.kv_bits_per_token(int(e["bits"]))
            if e["kind"] == BACKFILLED:
                self.sent_bits[u] += self.density[u] * (1.0 - e["keep"]) * rows * wire
                self.lacks[u] = (1.0 - self.density[u]) * rows
            elif e["medium"] != DETOUR:
                # The share of the context that was there when the migration began.
                self.density[u] = 1.0 - self.lacks[u] / e["snapshot"]
                kept = e["keep"] * self.density[u]
                self.sent_bits[u] += (kept * rows + e["context"] - e["snapshot"]) * wire
                self.lacks[u] = (1.0 - kept) * rows

    def check(self) -> None:
        """Every cache holds what its history says."""
        ue = self.sim.state.ue[0]
        there = ~ue["opening"]
        assert (ue["context"] - ue["held"])[there] == pytest.approx(self.lacks[there], abs=1e-5)
        assert (self.lacks[ue["healthy"]] < 1.0 + 1e-5).all()


def goes_on(ue: np.ndarray) -> np.ndarray:
    """The phase of each session, whether or not its radio is interrupted."""
    return np.where(ue["phase"] == INTERRUPTED, ue["then"], ue["phase"])


def reservations(ue: np.ndarray, cells: int) -> np.ndarray:
    """Sessions for which each server has reserved memory."""
    what, held = goes_on(ue), np.bincount(ue["server"], minlength=cells)
    moves = (what != FOLLOWING) & (what != REPAIRING) & (ue["phase"] != IDLE) & (ue["target"] != ue["server"])
    for chosen, where in ((what == FOLLOWING, "origin"), (what == REPAIRING, "server"), (moves, "target")):
        held += np.bincount(ue[where][chosen], minlength=cells)
    return held


class Ledger:
    """What an episode reported, and checks that need two successive states."""

    def __init__(self, sim: Simulator) -> None:
        self.sim, self.before = sim, sim.state.ue[0].copy()
        self.flow = np.zeros((STEPS, UES), sim.state.flow.dtype)
        self.resumed: list[np.void] = []
        self.count = np.zeros(5, int)
        self.book = Book(sim)

    def step(self, k: int, plans: np.ndarray) -> None:
        """Advance and compare the new state with the old one."""
        sim, state = self.sim, self.sim.state
        sim.advance(plans)
        after, flow = state.ue[0], state.flow[0]
        events = state.event[0, :state.world["events"][0]].copy()
        assert state.world["step"][0] == k + 1 and state.world["time_s"][0] == pytest.approx((k + 1) * STEP_S)
        times = events["time_s"]
        assert (np.diff(times) >= 0.0).all()
        assert ((times >= k * STEP_S - 1e-9) & (times <= (k + 1) * STEP_S + 1e-9)).all()
        for name in flow.dtype.names:
            assert (flow[name] >= 0).all() and np.isfinite(flow[name]).all(), name
        assert (flow["interruption_s"] + flow["late_s"] + flow["slow_s"] <= STEP_S + 1e-9).all()
        assert (flow["unavoidable_s"] <= flow["interruption_s"] + 1e-12).all()
        self._one_place(events, after)
        self._context(events, after, flow)
        self.book.add(events)
        self.book.check()
        idle = after["phase"] == IDLE
        assert (after["target"][idle] == after["server"][idle]).all()
        assert (after["bits_left"][idle] == 0.0).all() and (after["bits_sent"][idle] == 0.0).all()
        assert (after["target"][after["phase"] == PREPARING] != after["server"][after["phase"] == PREPARING]).all()
        assert (after["context"] <= after["end"] + 1e-6).all()
        # Who is served is in reach of its server.
        hops = sim.tables.hops[after["server"], after["radio"]]
        assert (hops[after["phase"] != INTERRUPTED] <= sim.params["forwarding"][0]).all()
        self.flow[k] = flow
        self.resumed += [e for e in events if e["kind"] == RESUMED]
        self.count += np.bincount(events["kind"], minlength=5)
        self.before = after.copy()

    def _one_place(self, events, after) -> None:
        """A session is at one server, which changes only when it resumes there, or when a new session begins."""
        for u in range(UES):
            server = server_by_events(self.before["server"][u], events[events["ue"] == u])
            assert server in (None, after["server"][u])
            if server is None:
                assert after["server"][u] in (after["radio"][u], after["previous"][u])

    def _context(self, events, after, flow) -> None:
        """A context grows by the tokens that were produced or read; it falls back only when a session begins."""
        begun = np.isin(np.arange(UES), events["ue"][events["kind"] == OPENED])
        grown = after["context"] - self.before["context"]
        opening = self.before["opening"] | begun
        assert grown[~opening] == pytest.approx((flow["tokens"] + flow["prompt_tokens"])[~opening], abs=1e-6)
        assert (after["session"] - self.before["session"] == np.bincount(
            events["ue"][events["kind"] == OPENED], minlength=UES)).all()
        assert (flow["tokens"] <= FASTEST * STEP_S + 1e-9).all()


@pytest.fixture(scope="module", params=[("mesh", 0, 0), ("mesh", 2, 1), ("pool", 0, 2)], ids=str)
def ledger(request, city, phy):
    """An episode of 50 s, without forwarding and with two hops of it."""
    topology, forwarding, seed = request.param
    sim = restless(city, phy, topology, forwarding, seed)
    generator = np.random.default_rng(seed)
    book = Ledger(sim)
    for k in range(STEPS):
        book.step(k, arbitrary_plans(generator, sim))
    return book


def test_the_episode_is_eventful(ledger):
    forwarding = ledger.sim.params["forwarding"][0] > 0
    assert ledger.flow["handovers"].sum() > 50 and ledger.count[OPENED] > 2
    assert ledger.count[BACKFILLED] > 3 and ledger.count[REPAIRED] > 0
    media = np.bincount([e["medium"] for e in ledger.resumed], minlength=4)
    assert (media > 3).all()
    assert ledger.flow["wasted_bits"].sum() > 0.0 and ledger.flow["wasted_gpu_s"].sum() > 0.0
    assert any(not e["handed_over"] for e in ledger.resumed) == forwarding
    assert (ledger.flow["forwarded_bits"].sum() > 0.0) == (ledger.flow["detour_s"].sum() > 0.0) == forwarding
    assert ledger.flow["pingpongs"].sum() > 0
    assert ledger.flow["handover_failures"].sum() > 0
    assert ledger.flow["rlf"].sum() > ledger.flow["handover_failures"].sum() + 2
    assert sum(bool(e["rlf"]) for e in ledger.resumed) > 5


def test_bits_are_those_of_completed_wasted_and_running_migrations(ledger):
    running = ledger.sim.state.ue[0]["bits_sent"]
    wasted = ledger.flow["wasted_bits"].sum(0)
    assert ledger.flow["bits_sent"].sum(0) == pytest.approx(ledger.book.sent_bits + wasted + running, rel=1e-9)


def test_time_without_tokens_adds_up_to_what_is_reported(ledger):
    felt = np.zeros(UES)
    for e in ledger.resumed:
        felt[e["ue"]] += e["felt_s"]
        assert 0.0 <= e["felt_s"] <= e["interruption_s"] + 1e-9
    ue = ledger.sim.state.ue[0]
    felt += np.where(ue["phase"] == INTERRUPTED, ue["felt_s"], 0.0)
    assert ledger.flow["interruption_s"].sum(0) == pytest.approx(felt, rel=1e-9, abs=1e-9)


def test_no_interruption_is_shorter_than_physics_allows(ledger):
    for e in ledger.resumed:
        radio = 0.2 if e["rlf"] else 0.05
        assert e["interruption_s"] >= (radio + 1 / FASTEST if e["handed_over"] else 0.0) - 1e-9
        assert e["ttft_s"] > e["interruption_s"]


def test_tokens_take_at_least_an_undisturbed_decode_step(ledger):
    tokens, latency = ledger.flow["tokens"].sum(0), ledger.flow["latency_s"].sum(0)
    assert (latency >= tokens / FASTEST).all()
    assert (ledger.flow["slow_s"].sum(0) >= latency - 0.1 * tokens - 1e-9).all()


def test_waste_never_exceeds_what_was_spent(ledger):
    assert (ledger.flow["wasted_bits"].sum(0) <= ledger.flow["bits_sent"].sum(0) * (1 + 1e-12)).all()
    assert (ledger.flow["wasted_gpu_s"].sum(0) <= ledger.flow["gpu_s"].sum(0) * (1 + 1e-12)).all()


def test_links_never_carry_more_than_they_can(ledger):
    cell, p = ledger.sim.state.cell[0], ledger.sim.params[0]
    links = cell["egress_nominal_bps"] * p["variation"]
    most = links[0] if p["pool"] else links.sum()
    assert (ledger.flow["bits_sent"].sum(1) <= most * STEP_S * (1 + 1e-9)).all()
