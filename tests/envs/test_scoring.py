"""The score of a step: real caches follow what the simulator does to the sessions."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.envs import Core, make_core
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.world.simulator import idle_plans
from kvroam.envs.handover.world.state import DETOUR, KV, RESUMED, SPLIT, TOKEN
from kvroam.envs.sim.params import ServingConfig, SessionConfig
from kvroam.errors import ConfigError

CONFIG = HandoverConfig(num_ues=8, episode_s=20.0, sessions=SessionConfig(scripts=4, think_s=0.2),
                        serving=ServingConfig("qwen2.5-7b"))


def run(medium: int, keep: float = 1.0, bits: int = 16, steps: int = 200, seed: int = 0, envs: int = 1) -> Core:
    """Episodes under one fixed reactive plan; `core.sum` collects the scores."""
    core = make_core(CONFIG, envs)
    core.reset([seed + e for e in range(envs)])
    plans = idle_plans(envs, CONFIG.num_ues)
    plans["medium"], plans["keep"], plans["bits"] = medium, keep, bits
    core.sum, core.resumed = {}, 0
    for _ in range(steps):
        core.step(plans)
        core.resumed += sum(event["kind"] == RESUMED for _, event in core.task.events())
        for name, values in vars(core.task.scores).items():
            core.sum[name] = core.sum.get(name, 0.0) + values.sum()
    return core


@pytest.mark.parametrize("medium", [TOKEN, KV, SPLIT, DETOUR])
def test_whole_transfers_have_no_drift_at_all(medium: int) -> None:
    core = run(medium)
    assert core.resumed > 0 and core.sum["measured"] > 100
    assert core.sum["kl"] == 0.0 and core.sum["js"] == 0.0
    assert core.sum["top1"] == core.sum["measured"]
    assert core.task.sim.state.ue["healthy"].all()


def test_drift_grows_as_less_is_kept() -> None:
    kl = [run(KV, keep).sum["kl"] for keep in (1.0, 0.5, 0.1)]
    assert kl[0] == 0.0 < kl[1] < kl[2]


def test_fewer_bits_drift_more_and_eight_bits_hardly_at_all() -> None:
    whole, eight, four = (run(KV, bits=bits).sum for bits in (16, 8, 4))
    assert whole["kl"] == 0.0 < eight["kl"] < four["kl"]
    assert eight["kl"] / eight["measured"] < 0.01


def test_a_pruned_session_stays_pruned_until_its_tokens_are_prefilled() -> None:
    core = run(KV, 0.25, steps=150)
    degraded = ~core.task.sim.state.ue["healthy"][0]
    assert degraded.any() and core.task.scorer.degraded == degraded.sum()
    plans = idle_plans(1, CONFIG.num_ues)
    plans["medium"] = TOKEN
    healed = np.zeros(CONFIG.num_ues, bool)
    for _ in range(200):
        core.step(plans)
        for _, event in core.task.events():
            if event["kind"] == RESUMED:
                # A migration that was under way when the plan changed may still arrive pruned.
                healed[event["ue"]] = event["medium"] == TOKEN
                degraded[event["ue"]] |= event["medium"] == KV
        still = degraded & ~healed & (core.task.sim.state.ue["session"][0] == 0)
        assert not core.task.sim.state.ue["healthy"][0][still].any()
        assert core.task.sim.state.ue["healthy"][0][healed].all()
        assert (core.task.scores.kl[0][~still & ~degraded] == 0).all()
    assert (healed & degraded).any()


def test_the_positions_of_real_sessions_follow_the_simulator() -> None:
    core = run(KV, 0.5, steps=120)
    context = core.task.sim.state.ue["context"] / CONFIG.serving.context_scale
    assert np.array_equal(core.task.scorer.positions, np.floor(context + 1e-6).astype(int))


def test_environments_of_a_batch_score_like_single_ones() -> None:
    batch = run(KV, 0.5, steps=100, envs=2)
    single = [run(KV, 0.5, steps=100, seed=s) for s in (0, 1)]
    assert batch.sum["measured"] == sum(core.sum["measured"] for core in single)
    assert batch.sum["kl"] == pytest.approx(sum(core.sum["kl"] for core in single), rel=1e-4)


def test_scoring_none_measures_nothing() -> None:
    core = make_core(HandoverConfig(num_ues=4, scoring=ScoringConfig(mode="none")))
    core.reset([0])
    core.step(idle_plans(1, 4))
    assert core.task.scores is None


def test_other_models_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"scoring.model.*embedded"):
        make_core(HandoverConfig(num_ues=4, scoring=ScoringConfig(model="some-model")))
