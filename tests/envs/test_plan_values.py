"""Plans: every field is checked in the core, before anything moves, with and without a language model."""

from __future__ import annotations

import math
import pickle
import re

import pytest

from kvroam.envs import Core, make_core
from kvroam.envs.handover.config import ActionConfig, HandoverConfig, ScoringConfig
from kvroam.envs.handover.world.simulator import idle_plans
from kvroam.envs.sim.params import SessionConfig

SESSIONS = SessionConfig(context_tokens=(40, 60), script_tokens=80, scripts=2)
CONFIGS = {
    "physics": HandoverConfig(num_ues=3, scoring=ScoringConfig(mode="none")),
    "scored": HandoverConfig(num_ues=3, sessions=SESSIONS),
    "policy": HandoverConfig(num_ues=3, scoring=ScoringConfig(mode="none"), actions=ActionConfig(trigger="policy")),
}
CELLS = 11  # of munich
WRONG = {
    "target": ([-3, CELLS, 2**31 - 1, -2**31], f"must lie in [-2, {CELLS - 1}]"),
    "medium": ([-1, 4, 9], "must lie in [0, 3] (token, kv, split, detour)"),
    "keep": ([-1.0, 0.0, -0.0, 1.0000001, 3.0, math.nan, math.inf], "must lie in (0, 1]"),
    "bits": ([32, 2, 0, -16, 15], "must be one of 16, 8, 4"),
    "weight": ([-1e-9, math.nan, math.inf, -math.inf], "must be finite and not negative"),
    "prefix": ([-2, -2**31], "must be at least -1"),
    "prefill_delay_s": ([-1e-9, math.nan, math.inf], "must be finite and not negative"),
    "handover": ([-2, CELLS], f"must lie in [-1, {CELLS - 1}]"),
    "backfill": ([-1e-9, math.nan, math.inf], "must be finite and not negative (0:"),
    "arrival": ([-1, 3], "must lie in [0, 2] (wait, resume, forward)"), "repair": ([-1, 2], "must be 0 or 1"),
}
RIGHT = {
    "target": [-2, -1, 0, CELLS - 1], "medium": [0, 1, 2, 3], "keep": [5e-324, 0.1, 1.0], "bits": [4, 8, 16],
    "weight": [0.0, -0.0, 1e300], "prefix": [-1, 0, 2**31 - 1],
    "prefill_delay_s": [0.0, 1e300], "handover": [-1, 0, CELLS - 1], "backfill": [0.0, 1e300],
    "arrival": [0, 1, 2], "repair": [0],
}


@pytest.fixture(scope="module", params=CONFIGS)
def core(request) -> Core:
    """Two environments in which a few steps have been made."""
    one = make_core(CONFIGS[request.param], num_envs=2)
    one.reset([3, 4])
    for _ in range(3):
        one.step(idle_plans(2, 3))
    return one


def test_every_field_has_its_examples() -> None:
    assert set(WRONG) == set(RIGHT) == set(idle_plans(1, 1).dtype.names)


@pytest.mark.parametrize(("field", "value"), [(name, value) for name in WRONG for value in WRONG[name][0]])
def test_a_value_outside_its_range_is_refused_by_name_and_nothing_moves(core, field, value) -> None:
    plans = idle_plans(2, 3)
    plans[1, 2][field] = value
    decided = field != "handover" or core.config.actions.trigger == "policy"
    expected = WRONG[field][1] if decided else "set actions.trigger to policy"
    said = re.escape(f"ue_2 in environment 1: {field} is {plans[1, 2][field]}") + ".*" + re.escape(expected)
    before, whole = core.digest(), pickle.dumps(core.__getstate__())
    with pytest.raises(ValueError, match=said) as refusal:
        core.step(plans)
    assert "\n" not in str(refusal.value)
    assert core.digest() == before and pickle.dumps(core.__getstate__()) == whole


@pytest.mark.parametrize(("field", "value"), [(name, value) for name in RIGHT for value in RIGHT[name]])
def test_the_ends_of_every_range_are_accepted(field, value) -> None:
    one = make_core(CONFIGS["policy"])
    one.reset([1])
    plans = idle_plans(1, 3)
    plans[0, 1][field] = value
    one.step(plans)
    assert one.task.sim.state.world["step"][0] == 1


def test_the_first_of_several_faults_is_named() -> None:
    one = make_core(CONFIGS["physics"], num_envs=2)
    one.reset([1, 2])
    plans = idle_plans(2, 3)
    plans["keep"][1, 0], plans["bits"][0, 2], plans["prefill_delay_s"][0, 2] = 2.0, 5, -1.0
    with pytest.raises(ValueError, match="ue_2 in environment 0: bits is 5"):
        one.step(plans)


def test_only_a_cache_that_is_not_whole_can_be_repaired() -> None:
    one = make_core(CONFIGS["physics"])
    one.reset([1])
    plans = idle_plans(1, 3)
    plans["repair"][0, 1] = 1
    with pytest.raises(ValueError, match="ue_1 in environment 0: repair is 1, but its cache is whole") as refusal:
        one.step(plans)
    assert "\n" not in str(refusal.value)
    one.task.sim.state.ue["healthy"][0, 1] = False
    one.step(plans)


def test_a_weight_and_a_delay_are_finite_one_by_one_even_where_their_sum_is_not() -> None:
    one = make_core(CONFIGS["physics"])
    one.reset([1])
    plans = idle_plans(1, 3)
    plans["weight"][0, 1] = plans["prefill_delay_s"][0, 1] = 1.5e308
    one.step(plans)
    plans["prefill_delay_s"][0, 1] = math.inf
    with pytest.raises(ValueError, match="ue_1 in environment 0: prefill_delay_s is inf"):
        one.step(plans)


def test_a_handover_is_the_plans_decision_under_trigger_policy_only() -> None:
    one = make_core(CONFIGS["physics"])
    one.reset([1])
    plans = idle_plans(1, 3)
    plans["handover"][0, 1] = 2
    with pytest.raises(ValueError, match=r"ue_1 in environment 0: handover is 2, but event A3 decides"):
        one.step(plans)
