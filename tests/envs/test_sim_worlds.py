"""One seed, one world: whatever the policies do, and however environments are batched, threaded or distributed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.handover.world.state import CONTINUE, DETOUR, KV, TOKEN
from kvroam.envs.scenes import load, load_phy_table
from kvroam.envs.sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)

UES, STEPS = 8, 120
WORLD_FIELDS = ("x", "y", "speed", "row", "col", "destination", "leg", "radio", "previous", "since_s", "fire_s",
                "fire_cell", "phase_s", "monitor_db", "t310_s", "reconnect_s")


def make(scene, phy, envs: int = 1, seed: int = 5, threads: int = 1) -> Simulator:
    """The default world; environment i is seeded seed + i."""
    sim = Simulator(scene, phy, num_ues=UES, interval_s=0.1, num_envs=envs, threads=threads, radio=RadioConfig(),
                    mobility=MobilityConfig(), sessions=SessionConfig(think_s=0.3), serving=ServingConfig(),
                    compute=ComputeConfig(), backhaul=BackhaulConfig())
    for e in range(envs):
        sim.seed(e, seed + e)
    sim.reset()
    return sim


def random_plans(generator: np.random.Generator, cells: int) -> np.ndarray:
    """Arbitrary plans for one environment, PLAN [1, U]."""
    plans = idle_plans(1, UES)
    plans["target"] = np.where(generator.random((1, UES)) < 0.1, generator.integers(0, cells, (1, UES)), CONTINUE)
    plans["medium"] = generator.integers(0, 4, (1, UES))
    plans["weight"] = generator.choice([0.0, 1.0, 4.0], (1, UES))
    return plans


def always(medium: int):
    """A policy that does the same at every handover."""
    plans = idle_plans(1, UES)
    plans["medium"] = medium
    return lambda _: plans


def at_random(seed: int):
    """A policy that does anything."""
    generator = np.random.default_rng(seed)
    return lambda sim: random_plans(generator, sim.num_cells)


def world(sim: Simulator) -> bytes:
    """What no policy may change: positions, measurements, handovers, servers and links."""
    parts = [np.ascontiguousarray(sim.state.ue[name]) for name in WORLD_FIELDS]
    parts += [np.ascontiguousarray(sim.state.cell[name]) for name in ("speed", "egress_bps", "ingress_bps")]
    return b"".join(part.tobytes() for part in [*parts, sim.state.rsrp_dbm, sim.state.a3_since_s])


def everything(sim: Simulator, e: int) -> bytes:
    """The whole state of environment `e` after a step, with what it reports."""
    state = sim.state
    events = state.event[e, :state.world["events"][e]]
    return b"".join(part[e].tobytes() for part in (state.ue, state.cell, state.world, state.rsrp_dbm,
                                                   state.a3_since_s, state.flow)) + events.tobytes()


def run(sim: Simulator, policy, snapshot) -> list[bytes]:
    """Snapshots after the reset and after every step."""
    seen = [snapshot(sim)]
    for _ in range(STEPS):
        sim.advance(policy(sim))
        seen.append(snapshot(sim))
    return seen


def test_all_policies_face_the_same_world_on_the_same_seed(city, phy):
    reference = make(city, phy)
    expected = run(reference, always(DETOUR), world)
    assert reference.state.ue["since_s"].max() > 0.0  # somebody has changed cell
    for policy in (always(TOKEN), always(KV), at_random(1), at_random(2)):
        assert run(make(city, phy), policy, world) == expected


def test_policies_make_a_difference_to_the_sessions(city, phy):
    ends = [run(make(city, phy), policy, lambda sim: everything(sim, 0))[-1] for policy in (always(TOKEN), always(KV))]
    assert ends[0] != ends[1]


def test_another_seed_or_episode_is_another_world(city, phy):
    one, other, later = make(city, phy, seed=5), make(city, phy, seed=6), make(city, phy, seed=5)
    later.seed(0, 5, 1)
    later.reset()
    for sim in (other, later):
        for field in ("x", "speed", "phase_s", "context"):
            assert (one.state.ue[field] != sim.state.ue[field]).mean() > 0.5
        for field in ("speed", "egress_bps", "ingress_bps"):
            assert (one.state.cell[field] != sim.state.cell[field]).all()


def test_an_environment_of_a_batch_equals_the_single_one(city, phy):
    batch, generators = make(city, phy, envs=3), [np.random.default_rng(e) for e in range(3)]
    seen = run(batch, lambda sim: np.concatenate([random_plans(g, sim.num_cells) for g in generators]),
               lambda sim: [everything(sim, e) for e in range(3)])
    for e in range(3):
        single = run(make(city, phy, seed=5 + e), at_random(e), lambda sim: everything(sim, 0))
        assert single == [step[e] for step in seen]


def test_a_reset_of_one_environment_leaves_the_others_alone(city, phy):
    sim = make(city, phy, envs=3)
    plans = np.repeat(idle_plans(1, UES), 3, axis=0)
    fresh = everything(sim, 1)
    for _ in range(20):
        sim.advance(plans)
    before = [everything(sim, e) for e in range(3)]
    sim.reset(np.array([1]))
    assert [everything(sim, e) for e in (0, 2)] == [before[0], before[2]]
    assert everything(sim, 1) == fresh != before[1]


def test_threads_do_not_change_a_bit(city, phy):
    traces = []
    for threads in (1, 2, 64):
        sim, generators = make(city, phy, envs=5, threads=threads), [np.random.default_rng(e) for e in range(5)]
        traces.append(run(sim, lambda sim, gs=generators: np.concatenate([random_plans(g, sim.num_cells) for g in gs]),
                          lambda sim: b"".join(everything(sim, e) for e in range(5))))
    assert traces[0] == traces[1] == traces[2]


def digest() -> str:
    """A hash of a run in a shipped scene."""
    sim = make(load("simple_street_canyon"), load_phy_table())
    return hashlib.sha256(b"".join(run(sim, at_random(9), lambda sim: everything(sim, 0)))).hexdigest()


def test_two_processes_compute_the_same():
    code = f"import runpy; print(runpy.run_path({str(Path(__file__).resolve())!r})['digest']())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env=os.environ | {"PYTHONHASHSEED": "1"})
    assert other.stdout.strip() == digest()
