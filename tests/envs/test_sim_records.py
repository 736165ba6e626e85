"""Records composed of concerns: a world of walkers alone, one flag that loads cells, flows that start at zero."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.handover.world.state import FLOW, INTERRUPTED, KV, SPLIT
from kvroam.envs.sim import cell_change, mobility, radio
from kvroam.envs.sim.compute import codec_values, server_params, wire_bits
from kvroam.envs.sim.params import ComputeConfig, MobilityConfig, RadioConfig, ServingConfig, SessionConfig
from kvroam.envs.sim.records import (
    CELL_CHANGE_PARAMS,
    LOAD,
    MAP_PARAMS,
    MOTION,
    MOTION_PARAMS,
    RADIO,
    RADIO_PARAMS,
    SERVER_PARAMS,
    codec_params,
    parameters,
)
from kvroam.envs.sim.streams import MEASUREMENT_OFFSET, WORLD, keys, uniform

from .sim_bench import CALM, KV_BITS, LINK_BPS, Bench

UES, STEP_S, STEPS = 10, 0.1, 600
MOBILITY = MobilityConfig(vehicle_speed_mps=(15.0, 30.0))
# No link ever fails, and nobody loads a cell: what sessions do is not this world's business.
RADIO_CONFIG = RadioConfig(q_out_db=-1000.0, load_per_ue=0.0)


class Walkers:
    """A world without sessions: UEs walk, are measured, and change cell at the instant that event A3 says."""

    def __init__(self, scene, phy, seed: int) -> None:
        self.tables = mobility.map_tables(scene, phy)
        self.p = parameters(
            np.dtype([*MAP_PARAMS, *MOTION_PARAMS, *RADIO_PARAMS, *CELL_CHANGE_PARAMS]), mobility.map_params(scene),
            mobility.motion_params(MOBILITY, UES, STEP_S), radio.radio_params(RADIO_CONFIG, phy, STEP_S),
            cell_change.cell_change_params(RADIO_CONFIG, policy_trigger=False))[0]
        cells = self.tables.gain_db.shape[2]
        self.ue, self.cell = np.zeros(UES, np.dtype([*MOTION, *RADIO])), np.zeros(cells, np.dtype(LOAD))
        self.rsrp_dbm, self.since_s = np.zeros((UES, cells)), np.full((UES, cells), np.inf)
        self.gain_db, self.noise = np.zeros((2, UES, cells))
        self.received, self.sharers = np.zeros(UES * cells), np.zeros(cells, np.int64)
        self.keys, self.step = keys(seed), 0
        self.ue["reconnect_s"] = self.ue["t310_s"] = np.inf
        self.ue["previous"], self.ue["since_s"] = -1, -np.inf
        for u in range(UES):
            mobility.place(self.ue, u, self.p, self.tables, self.keys)
            self.ue[u]["phase_s"] = STEP_S * uniform(self.keys[WORLD], u, MEASUREMENT_OFFSET, 0)
        self.measure()

    def measure(self) -> None:
        radio.measure(self.ue, self.p, self.tables, self.keys, self.rsrp_dbm, self.gain_db, self.noise,
                      self.step)
        if self.step == 0:
            self.ue["radio"] = np.argmax(self.rsrp_dbm, axis=1)
        cell_change.a3_events(self.ue, self.p, self.rsrp_dbm, self.since_s, self.step * self.p["dt"])
        radio.update_load(self.ue, self.cell, self.p)
        radio.update_links(self.ue, self.cell, self.p, self.tables, self.gain_db.reshape(-1), self.received,
                           self.sharers)

    def advance(self) -> None:
        self.step += 1
        for u in range(UES):
            at_s, cell = float(self.ue[u]["fire_s"]), int(self.ue[u]["fire_cell"])
            if at_s < self.step * self.p["dt"]:
                cell_change.forget_events(self.ue, u, self.since_s)
                cell_change.enter(self.ue, u, cell, at_s)
        mobility.move(self.ue, self.p, self.tables, self.keys)
        self.measure()


def test_walkers_alone_walk_and_change_cell_as_in_the_world_of_handover(city, phy):
    alone = Walkers(city, phy, 3)
    sim = Simulator(city, phy, num_ues=UES, interval_s=STEP_S, **CALM | dict(
        mobility=MOBILITY, radio=RADIO_CONFIG, sessions=SessionConfig(think_s=1e9)))
    sim.seed(0, 3)
    sim.reset()
    plans, changes = idle_plans(1, UES), 0
    for _ in range(STEPS):
        was = alone.ue["radio"].copy()
        for field in alone.ue.dtype.names:
            if field not in ("active", "air_s"):  # sessions share the band
                assert (alone.ue[field] == sim.state.ue[0][field]).all(), field
        assert (alone.rsrp_dbm == sim.state.rsrp_dbm[0]).all()
        alone.advance()
        sim.advance(plans)
        changes += (alone.ue["radio"] != was).sum()
    assert changes > 20


def test_a_world_that_fills_a_parameter_twice_or_not_at_all_is_refused(city):
    dtype, place = np.dtype(MAP_PARAMS), mobility.map_params(city)
    assert parameters(dtype, place)["pitch_m"][0] == city.cell_size_m
    for wrong in ([], [place, place], [place, {"dt": 0.1}], [{"pitch_m": 5.0}]):
        with pytest.raises(ValueError, match="give every field one value"):
            parameters(dtype, *wrong)


def test_a_ue_is_active_while_it_streams_and_can_be_reached(city, phy):
    sim = Simulator(city, phy, num_ues=UES, interval_s=STEP_S, **CALM | dict(
        mobility=MOBILITY, radio=RadioConfig(interruption_s=0.25, load_per_ue=0.03),
        sessions=SessionConfig(think_s=0.5, prompt_tokens=(60.0, 0.8))))
    sim.seed(0, 1)
    sim.reset()
    plans, seen = idle_plans(1, UES), set()
    plans["medium"] = SPLIT
    for _ in range(STEPS):
        ue, cell = sim.state.ue[0], sim.state.cell[0]
        active = ue["streaming"] & (ue["phase"] != INTERRUPTED)
        seen |= set(zip(ue["streaming"].tolist(), (ue["phase"] == INTERRUPTED).tolist(), strict=True))
        assert (ue["active"] == active).all()
        users = np.bincount(ue["radio"][active], minlength=len(cell))
        assert cell["load"] == pytest.approx(np.minimum(1.0, 0.2 + 0.03 * users))
        sim.advance(plans)
    assert len(seen) == 4


@pytest.mark.parametrize("field", FLOW.names)
def test_every_flow_is_the_amount_of_its_own_step(city, phy, field):
    bench = Bench(city, phy, ues=2)
    bench.put(0, streaming=True)
    bench.plan(1, target=3, medium=KV)
    bench.sim.state.flow[field] = 7
    bench.step()
    clean = Bench(city, phy, ues=2)
    clean.put(0, streaming=True)
    clean.plan(1, target=3, medium=KV)
    clean.step()
    assert bench.flows[0].tobytes() == clean.flows[0].tobytes()
    assert bench.flows[0]["bits_sent"].tolist() == [0.0, pytest.approx(min(1000 * KV_BITS, LINK_BPS * 0.1))]


def test_the_wire_bits_of_a_codec_are_those_that_the_caller_gives(city, phy):
    for bits, per_token in ((16, 1000.0), (8, 300.0), (4, 70.0)):
        bench = Bench(city, phy)
        table = {16: 1000.0, 8: 300.0, 4: 70.0}
        bench.sim = Simulator(city, phy, num_ues=1, interval_s=0.1, wire_bits=table.__getitem__, **CALM)
        bench.sim.seed(0, 0)
        bench.sim.reset()
        bench.ue, bench.cell = bench.sim.state.ue[0], bench.sim.state.cell[0]
        bench.put(0)
        bench.plan(0, target=3, medium=KV, bits=bits)
        bench.step()
        assert bench.total("bits_sent") == pytest.approx(1000 * per_token)


def test_the_table_of_codecs_may_have_any_length():
    serving = ServingConfig()
    p = parameters(np.dtype([*SERVER_PARAMS, *codec_params(2)]), server_params(serving, ComputeConfig()),
                   codec_values((12, 3), lambda bits: 10.0 * bits))[0]
    assert [wire_bits(p, bits) for bits in (12, 3)] == [120.0, 30.0]
    assert np.isnan(wire_bits(p, 16))


_DIGEST = """
from dataclasses import replace
from kvroam.agents.handover import reactive_plans
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
config = resolve(None)
core = make_core(replace(config, scoring=replace(config.scoring, mode="none")))
core.reset([5])
for _ in range(100):
    core.step(reactive_plans(core.view, 2))
result = core.digest()
"""
_REFUSED = """
import sys
import kvroam
assert "numba" not in sys.modules
from kvroam import compat
assert not compat.numba_accepts("an_option_of_nobody")
compat.numba_accepts = lambda option: False
assert compat.numba_options() == {}
"""


def test_a_numba_that_refuses_the_private_option_computes_the_same(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", f"{_REFUSED}{_DIGEST}print(result)"], env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here: dict[str, str] = {}
    exec(_DIGEST, here)
    assert done.stdout.split()[-1] == here["result"]
