"""What cannot be simulated is refused with one line that names the key, the value and what is possible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kvroam.envs import HandoverCentralEnv, HandoverCentralVectorEnv, HandoverEgoEnv, HandoverEnv, env, make_core
from kvroam.envs.handover.config import ActionConfig, HandoverConfig, RewardConfig, ScoringConfig
from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.errors import ConfigError
from kvroam.experiment import load_experiment

SMALL = HandoverConfig(num_ues=2, scoring=ScoringConfig(mode="none"))


@pytest.mark.parametrize(("override", "words"), [
    ("episode_s=.inf", ["episode_s is inf", "finite"]), ("episode_s=.nan", ["episode_s is nan", "finite"]),
    ("interval_s=.inf", ["interval_s is inf", "finite"]), ("interval_s=61", ["interval_s is 61", "(0, 60]"]),
    ("interval_s=0", ["interval_s is 0", "(0, 60]"]), ("interval_s=1e-300", ["episode_s", "1e-300"]),
    ("interval_s=1e-9", ["episode_s", "1e-09", "1000000000 intervals"]),
    ("train.batch_size=1", ["batch_size is 1", "at least 2"]),
    ("reward.drift=.nan", ["drift is nan", "finite"]), ("reward.gpu=.inf", ["gpu is inf", "finite"]),
    ("reward.drift=-1", ["drift is -1", "negative"]), ("actions.weight=[1, .inf]", ["weight", "inf", "finite"]),
    ("actions.keep=[.nan]", ["keep", "nan", "finite"]),
])
def test_values_that_lead_nowhere_are_refused_where_the_configuration_is_read(override, words):
    with pytest.raises(ConfigError) as refusal:
        load_experiment("handover", [override])
    assert all(word in str(refusal.value) for word in words), refusal.value
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("overrides", "words"), [
    (["num_ues=3000"], ["num_ues is 3000", "compute.kv_memory_bytes is 4.24e+10", "give each server"]),
    (["compute.kv_memory_bytes=1e6"], ["compute.kv_memory_bytes is 1e+06", "num_ues is 16"]),
    (["actions.candidates=50"], ["actions.candidates is 50", "11 cells", "10 neighbours"]),
    (["actions.candidates=12"], ["actions.candidates is 12", "10 neighbours"]),
    (["actions.candidates=4", "scene=simple_street_canyon"], ["actions.candidates is 4", "3 cells", "2 neighbours"]),
    (["scoring.mode=kv", "sessions.script_tokens=5000"], ["sessions.script_tokens is 5000"]),
    (["scoring.mode=kv", "scoring.situation=hm"], ["scoring.situation", "'hm'", "pending"]),
])
def test_values_that_do_not_fit_together_are_refused_when_the_world_is_made(overrides, words):
    config = load_experiment("handover", ["scoring.mode=none", *overrides]).environment
    with pytest.raises(ConfigError) as refusal:
        make_core(config)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_as_many_candidates_as_there_are_other_cells_and_three_thousand_ues_are_possible():
    one = make_core(replace(SMALL, actions=ActionConfig(candidates=10)))
    one.reset([0])
    assert sorted([*one.view.candidates[0, 0, 1:], one.view.radio_cell[0, 0]]) == list(range(11))
    many = make_core(replace(SMALL, num_ues=3000, compute=replace(SMALL.compute, kv_memory_bytes=5e11)))
    many.reset([0])
    assert many.observe().shape[:2] == (1, 3000)


@pytest.mark.parametrize("seed", [1.5, 1.0, "1", True, -1, float("nan"), np.float64(2), np.True_, [3]], ids=repr)
def test_a_seed_that_is_no_whole_number_is_refused_in_every_view(seed):
    for make, reset in ((make_core, lambda one: one.reset([seed])), (HandoverEnv, lambda one: one.reset(seed=seed)),
                        (env, lambda one: one.reset(seed=seed))):
        with pytest.raises(ValueError, match="seed is"):
            reset(make(SMALL))
    if not isinstance(seed, list):
        with pytest.raises(ValueError, match="seed is"):
            HandoverCentralVectorEnv(1, SMALL).reset(seed=seed)
        with pytest.raises(ValueError, match="seed is"):
            HandoverVecEnv(SMALL, 1, seed)
    for make in (HandoverCentralEnv, HandoverEgoEnv):
        # Gymnasium refuses most of them first, with an error of its own.
        with pytest.raises(Exception, match=r"[Ss]eed"):
            make(SMALL).reset(seed=seed)


def test_a_refused_seed_changes_no_other_environment():
    one, other = (make_core(SMALL, num_envs=2) for _ in range(2))
    for core in (one, other):
        core.reset([5, 6])
    with pytest.raises(ValueError, match="seed is 1"):
        one.reset([7, 1.5])
    for core in (one, other):
        core.reset()
    assert one.digest() == other.digest()
    with pytest.raises(ValueError, match="3 seeds were given for 2"):
        one.reset([1, 2, 3])


def test_numpys_whole_numbers_and_large_seeds_are_seeds():
    digests = []
    for seed in (7, np.int32(7), np.uint64(7)):
        one = make_core(SMALL)
        one.reset([seed])
        digests.append(one.digest())
    assert len(set(digests)) == 1
    one.reset([2**70])
    assert one.digest() not in digests


def test_before_reset_masks_observations_and_state_say_so():
    core = make_core(SMALL)
    for ask in (core.masks, core.observe, HandoverEnv(SMALL).state, env(SMALL).unwrapped.state,
                HandoverCentralEnv(SMALL).action_masks, HandoverVecEnv(SMALL, 1).action_masks):
        with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
            ask()


@pytest.mark.parametrize("action", [np.zeros(8, np.int64), np.zeros((1, 9), np.int64), np.zeros(9), np.int64(3), "no"],
                         ids=repr)
def test_an_action_of_the_wrong_shape_is_shown_as_its_agent_gave_it(action):
    one = HandoverEnv(SMALL)
    one.reset(seed=0)
    before = one.core.digest()
    given = np.asarray(action)
    with pytest.raises(ValueError, match="the action of ue_1 is") as refusal:
        one.step({"ue_0": np.zeros(9, np.int64), "ue_1": action})
    assert f"{given.dtype} {given.shape}: expected integers of shape (9,)" in str(refusal.value)
    with pytest.raises(ValueError, match="the action of ue_0 is"):
        one.step(dict.fromkeys(("ue_0", "ue_1"), action))
    assert one.core.digest() == before


def test_prices_are_checked_where_they_are_made():
    with pytest.raises(ValueError, match=r"waste is nan: it must be finite"):
        RewardConfig(waste=float("nan"))
