"""reward.sharing team, and scoring.drift resume: what is charged, when, and that the metrics stay the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kvroam.envs import HandoverEnv, make_core
from kvroam.envs.handover.config import HandoverConfig, RewardConfig, ScoringConfig
from kvroam.envs.handover.rewards import NAMES as TERMS
from kvroam.envs.handover.world.simulator import idle_plans
from kvroam.envs.handover.world.state import DETOUR, KV, OPENED, RESUMED, TOKEN
from kvroam.envs.sim.params import ServingConfig, SessionConfig

DRIFT = TERMS.index("drift")
STREAM = HandoverConfig(num_ues=6, episode_s=15.0, sessions=SessionConfig(scripts=4, think_s=0.2),
                        serving=ServingConfig("qwen2.5-7b"))
RESUME = replace(STREAM, scoring=ScoringConfig(drift="resume", horizon=24))


def plans_for(medium: int, keep: float = 1.0) -> np.ndarray:
    plans = idle_plans(1, 6)
    plans["medium"], plans["keep"] = medium, keep
    return plans


def test_a_team_shares_the_mean_of_every_term_and_the_terms_sum_exactly() -> None:
    physics = replace(STREAM, num_ues=8, scoring=ScoringConfig(mode="none"))
    team = replace(physics, reward=RewardConfig(sharing="team"))
    envs = HandoverEnv(physics), HandoverEnv(team)
    for env in envs:
        env.reset(seed=2)
    generator, earned = np.random.default_rng(0), 0
    while envs[0].agents:
        actions = {a: generator.integers(0, envs[0].action_space(a).nvec) for a in envs[0].agents}
        (_, own, _, _, own_infos), (_, shared, _, _, infos) = (env.step(actions) for env in envs)
        assert len(set(shared.values())) == 1
        assert shared["ue_0"] == pytest.approx(np.mean(list(own.values())), abs=1e-12)
        for name in TERMS:
            mean = np.mean([own_infos[a][f"reward_{name}"] for a in own])
            assert infos["ue_3"][f"reward_{name}"] == pytest.approx(mean, abs=1e-12)
        assert shared["ue_0"] == sum((infos["ue_0"][f"reward_{name}"] for name in TERMS), 0.0)
        earned += len(set(own.values())) > 1
    assert earned > 10
    physics_traces = [env.core.task.sim.state.ue.tobytes() for env in envs]
    assert physics_traces[0] == physics_traces[1], "sharing a reward does not change the world"


def test_resume_charges_the_horizon_when_a_pruned_session_arrives_and_nothing_else() -> None:
    from kvroam.kvbackend import TransferPlan

    core = make_core(RESUME)
    core.reset([1])
    charges = 0
    for _ in range(150):
        at, script = core.task.scorer.positions, core.task.sim.state.ue["script"][0].copy()
        fresh = core.task.sim.state.ue["healthy"][0].copy()
        core.step(plans_for(KV, 0.25))
        arrived = [event for _, event in core.task.events() if event["kind"] == RESUMED and event["medium"] != DETOUR]
        opened = {int(event["ue"]) for _, event in core.task.events() if event["kind"] == OPENED}
        charged = core.terms[0, :, DRIFT]
        assert set(np.flatnonzero(charged)) <= {int(event["ue"]) for event in arrived}
        for event in arrived:
            u = int(event["ue"])
            if not fresh[u] or u in opened or sum(int(other["ue"]) == u for other in arrived) > 1:
                continue
            # The same arrival on a backend session of our own: open, prune, look ahead.
            backend = core.task.scorer.backend
            position = int(np.floor(event["context"] / RESUME.serving.context_scale + 1e-6))
            session = backend.open(core.task.scorer.references[script[u]], position)
            snapshot = int(np.floor(event["snapshot"] / RESUME.serving.context_scale + 1e-6))
            backend.migrate([session], [TransferPlan(keep=0.25, bits=16, prefix_tokens=0, snapshot_tokens=snapshot)])
            kl = backend.advance([session], [min(24, session.remaining)]).kl[0]
            backend.close(session)
            assert position >= at[0, u] and kl > 0
            assert charged[u] == pytest.approx(-RESUME.reward.drift * kl, rel=1e-4)
            charges += 1
    assert charges > 3


@pytest.mark.parametrize("medium", [TOKEN, KV, DETOUR])
def test_whole_arrivals_are_charged_nothing(medium: int) -> None:
    core, resumed = make_core(RESUME), 0
    core.reset([1])
    for _ in range(150):
        core.step(plans_for(medium))
        resumed += sum(event["kind"] == RESUMED for _, event in core.task.events())
        assert not core.terms[..., DRIFT].any()
    assert resumed > 0


def test_the_metrics_do_not_depend_on_when_drift_is_charged() -> None:
    results, charged = [], []
    for config in (STREAM, RESUME):
        core, total = make_core(config), 0.0
        core.reset([1])
        meter = core.task.meter()
        for _ in range(150):
            core.step(plans_for(KV, 0.25))
            meter.add(core)
            total += core.terms[..., DRIFT].sum()
        results.append(meter.result(0))
        charged.append(total)
    assert results[0]["drift_kl_mean"] > 0 and charged[0] < 0 and charged[1] < 0 and charged[0] != charged[1]
    for result in results:
        del result["cost"], result["avoidable_cost"]
    assert str(results[0]) == str(results[1])


def test_stream_charges_exactly_the_drift_of_the_tokens_of_the_step() -> None:
    core = make_core(STREAM)
    core.reset([1])
    for _ in range(60):
        core.step(plans_for(KV, 0.25))
        assert np.array_equal(core.terms[..., DRIFT], -STREAM.reward.drift * core.task.scores.kl)
