"""Training libraries on our interfaces: Stable-Baselines3, and RLlib, TorchRL and sb3-contrib where installed."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from kvroam.envs import Core, HandoverCentralEnv, HandoverEnv
from kvroam.envs.handover.actions import parts, sizes
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.sb3 import HandoverVecEnv

CONFIG = HandoverConfig(num_ues=3, episode_s=2.0, scoring=ScoringConfig(mode="none"))


def test_the_rows_of_the_vec_env_are_the_single_environments_and_end_with_what_was_seen_last() -> None:
    env = HandoverVecEnv(CONFIG, 2, seed=9)
    singles = [HandoverEnv(CONFIG) for _ in range(2)]
    rows = env.reset()
    env.action_space.seed(0)
    firsts = [single.reset(seed=9 + e)[0] for e, single in enumerate(singles)]
    assert np.array_equal(rows, np.concatenate([list(first.values()) for first in firsts]))
    assert len({row.tobytes() for row in rows}) == 6
    for _ in range(CONFIG.max_steps):
        action = np.stack([env.action_space.sample() for _ in range(6)])
        rows, rewards, done, infos = env.step(action)
        chosen = action.reshape(2, 3, len(parts(CONFIG.actions)))
        results = [single.step(dict(zip(single.agents, chosen[e], strict=True))) for e, single in enumerate(singles)]
        assert np.array_equal(rewards, np.float32([list(result[1].values()) for result in results]).reshape(-1))
    assert done.all() and all(info["TimeLimit.truncated"] for info in infos)
    last = np.concatenate([list(result[0].values()) for result in results])
    assert np.array_equal([info["terminal_observation"] for info in infos], last)
    nexts = np.concatenate([list(single.reset()[0].values()) for single in singles])
    assert np.array_equal(rows, nexts), "the next episode of the same seed"


def test_rows_are_asked_like_separate_environments() -> None:
    env = HandoverVecEnv(CONFIG, 2, seed=9)
    env.reset()
    masks = env.env_method("action_masks")
    assert len(masks) == 6 and masks[0].shape == (sum(sizes(CONFIG.actions)),)
    assert np.array_equal(env.env_method("action_masks", indices=[4])[0], masks[4])
    assert env.get_attr("render_mode") == [None] * 6 and env.has_attr("action_masks")
    assert env.get_attr("num_envs", indices=[0, 1]) == [6, 6]
    with pytest.raises(AttributeError):
        env.get_attr("nothing_of_the_kind")
    with pytest.raises(AttributeError, match="share one core"):
        env.set_attr("render_mode", "human")


def test_ppo_bootstraps_through_the_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reward 1 for ever and gamma 0.9 are worth 10; taken for ends, horizons of 20 steps make it 6."""
    from stable_baselines3 import PPO

    original = Core.step

    def step(core: Core, plans: np.ndarray) -> None:
        original(core, plans)
        core.reward = np.ones_like(core.reward)

    monkeypatch.setattr(Core, "step", step)
    env = HandoverVecEnv(CONFIG, 2, seed=0)
    model = PPO("MlpPolicy", env, n_steps=20, batch_size=120, n_epochs=20, gamma=0.9, gae_lambda=1.0, seed=0,
                learning_rate=0.02, vf_coef=1.0, max_grad_norm=10.0, device="cpu",
                policy_kwargs={"net_arch": {"pi": [4], "vf": [16]}})
    model.learn(20 * 6 * 10)
    values = [model.policy.predict_values(model.policy.obs_to_tensor(env.reset())[0]).mean().item() for _ in range(3)]
    assert np.mean(values) == pytest.approx(10.0, abs=0.6)


def test_maskable_ppo_never_does_what_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    contrib = pytest.importorskip("sb3_contrib", reason="sb3-contrib is no dependency of kvroam")
    env, original = HandoverVecEnv(CONFIG, 2, seed=0), HandoverVecEnv.step_async
    edges, taken = np.cumsum([0, *sizes(CONFIG.actions)])[:-1], []

    def step_async(self, actions: np.ndarray) -> None:
        taken.append(np.take_along_axis(self.action_masks(), edges + actions, axis=1).all())
        original(self, actions)

    monkeypatch.setattr(HandoverVecEnv, "step_async", step_async)
    contrib.MaskablePPO("MlpPolicy", env, n_steps=32, batch_size=64, seed=0, device="cpu").learn(384)
    assert len(taken) == 64 and all(taken)


def test_torchrl_takes_the_parallel_and_the_central_environment() -> None:
    pytest.importorskip("torchrl", reason="torchrl is no dependency of kvroam")
    from torchrl.envs import GymWrapper, PettingZooWrapper
    from torchrl.envs.utils import check_env_specs

    env = PettingZooWrapper(HandoverEnv(CONFIG), return_state=True)
    check_env_specs(env, seed=0)
    steps = env.rollout(50)
    assert steps["next", "ue", "reward"].shape == (20, 3, 1) and steps["next", "ue", "truncated"][-1].all()
    assert not steps["next", "ue", "terminated"].any()
    check_env_specs(GymWrapper(HandoverCentralEnv(CONFIG)), seed=0)


def test_rllib_plays_a_whole_episode() -> None:
    pytest.importorskip("ray.rllib", reason="ray[rllib] is no dependency of kvroam")
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

    env, ends = ParallelPettingZooEnv(HandoverEnv(CONFIG)), []
    rows, _ = env.reset(seed=1)
    while not (ends and ends[-1]):
        rows, _, terminated, truncated, _ = env.step({a: env.get_action_space(a).sample() for a in rows})
        assert not terminated["__all__"] and set(rows) == {"ue_0", "ue_1", "ue_2"}
        ends.append(truncated["__all__"])
    assert len(ends) == CONFIG.max_steps


def test_wrapped_central_environments_train_with_stable_baselines3() -> None:
    from stable_baselines3 import A2C, SAC

    from kvroam.envs.views.wrappers import BoxActions

    def make():
        return gym.make("kvroam:kvroam/HandoverEgo-v0", config=CONFIG)

    A2C("MlpPolicy", make(), n_steps=8, seed=0, device="cpu").learn(32)
    SAC("MlpPolicy", BoxActions(make()), learning_starts=8, batch_size=8, buffer_size=64, seed=0,
        device="cpu", policy_kwargs={"net_arch": [8]}).learn(24)
