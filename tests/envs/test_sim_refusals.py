"""Worlds and plans that cannot be simulated are refused with one line that names the value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)

from .sim_bench import CALM, Bench


@pytest.mark.parametrize(("config", "name", "value"), [
    (BackhaulConfig, "capacity_bps", math.inf), (BackhaulConfig, "capacity_bps", 0.0),
    (BackhaulConfig, "capacity_bps", math.nan), (BackhaulConfig, "capacity_spread", 0.5),
    (MobilityConfig, "vehicle_speed_mps", (1.0, math.inf)), (MobilityConfig, "vehicle_speed_mps", (3.0, 2.0)),
    (MobilityConfig, "convoy", 0), (RadioConfig, "a3_offset_db", math.nan), (RadioConfig, "idle_load", 1.5),
    (ComputeConfig, "cycle_s", math.inf), (ComputeConfig, "decode_slowdown", 1.0),
    (ServingConfig, "restore_bytes_per_s", 0.0), (ServingConfig, "prefill_overhead_s", -1.0),
    (SessionConfig, "context_tokens", (900, 1000)), (SessionConfig, "scripts", 0)])
def test_an_impossible_world_is_refused_by_the_name_of_its_field(config, name, value):
    with pytest.raises(ValueError, match=name) as refusal:
        config(**{name: value})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "value"), [("num_ues", 0), ("num_envs", 0), ("interval_s", 0.0),
                                             ("interval_s", math.inf)])
def test_an_impossible_size_is_refused(city, phy, name, value):
    with pytest.raises(ValueError, match=name):
        Simulator(city, phy, **(CALM | dict(num_ues=1, num_envs=1, interval_s=0.1) | {name: value}))


@pytest.mark.parametrize(("field", "value"), [("target", 9), ("weight", math.nan), ("weight", math.inf)])
def test_a_plan_that_leads_nowhere_is_refused(city, phy, field, value):
    bench = Bench(city, phy, ues=3)
    bench.plan(1, **{field: value})
    with pytest.raises(ValueError, match=field):
        bench.step()


@pytest.mark.parametrize("plans", [idle_plans(1, 2), idle_plans(2, 3), np.zeros((1, 3))])
def test_plans_of_another_shape_or_type_are_refused(city, phy, plans):
    with pytest.raises(ValueError, match="idle_plans"):
        Bench(city, phy, ues=3).sim.advance(plans)
