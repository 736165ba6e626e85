"""Policy files are data: they act exactly as the model they were made of, and whatever is wrong with one is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import VecNormalize

from kvroam import agents
from kvroam.agents import policy_file
from kvroam.agents.learned import LearnedPolicy
from kvroam.envs.base.decisions import Holder
from kvroam.envs.base.make import make_core
from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.errors import PolicyError
from kvroam.experiment import Experiment, load_experiment
from kvroam.training import checkpoints

SETTINGS = ["num_ues=4", "episode_s=2.0", "scoring.mode=none", "train.num_envs=2", "train.seed=7"]


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("handover", SETTINGS)


@pytest.fixture(scope="module")
def env(experiment: Experiment) -> HandoverVecEnv:
    return HandoverVecEnv(experiment.environment, 2, seed=3)


def model_of(kind: Any, env: Any, **more: Any) -> Any:
    """A model with weights that decide something."""
    name = "MlpLstmPolicy" if kind is RecurrentPPO else "MlpPolicy"
    model = kind(name, env, n_steps=4, batch_size=16, seed=1, device="cpu", policy_kwargs=more or {"net_arch": [16, 8]})
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@pytest.fixture(scope="module")
def model(env: HandoverVecEnv) -> MaskablePPO:
    return model_of(MaskablePPO, env)


@pytest.fixture
def file(model: MaskablePPO, experiment: Experiment, tmp_path: Path) -> Path:
    return checkpoints.save(model, tmp_path / "one.safetensors", experiment)


def rows_of(env: HandoverVecEnv) -> tuple[np.ndarray, np.ndarray]:
    """Observations as they occur and others, and masks with at least one choice of each part."""
    draws = np.random.default_rng(0)
    rows = env.reset()
    rows = np.concatenate([rows, draws.normal(size=(200, rows.shape[1])).astype(np.float32)])
    masks = draws.random((len(rows), int(env.action_space.nvec.sum()))) < 0.5
    masks[:, np.concatenate([[0], np.cumsum(env.action_space.nvec)[:-1]])] = True
    return rows, masks


def log_probabilities(logits: np.ndarray, masks: np.ndarray | None, sizes: list[int]) -> np.ndarray:
    """By the definition of the softmax, part by part."""
    scores = logits.astype(np.float64) if masks is None else np.where(masks, logits.astype(np.float64), -np.inf)
    parts = np.split(scores, np.cumsum(sizes)[:-1], axis=1)
    return np.concatenate([part - np.log(np.exp(part).sum(axis=1, keepdims=True)) for part in parts], axis=1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("more", [{}, {"net_arch": dict(pi=[8], vf=[12, 4]), "activation_fn": torch.nn.ReLU},
                                  {"net_arch": []}], ids=["tanh", "relu", "linear"])
def test_logits_and_choices_are_those_of_stable_baselines3(
        masked: bool, more: dict, env: HandoverVecEnv, experiment: Experiment) -> None:
    model = model_of(MaskablePPO if masked else PPO, env, **more)
    actor = policy_file.from_sb3(model, experiment, decisions=False, masked=masked).actor()
    rows, masks = rows_of(env)
    with torch.no_grad():
        given = {"action_masks": masks} if masked else {}
        theirs = model.policy.get_distribution(torch.as_tensor(rows), **given)
    logits, _ = actor.logits(rows)
    found = log_probabilities(logits, masks if masked else None, actor.sizes)
    parts = theirs.distributions if masked else theirs.distribution
    expected = np.concatenate([part.logits.numpy() for part in parts], axis=1)
    open_ones = masks if masked else np.ones_like(masks)
    assert np.allclose(found[open_ones], expected[open_ones], atol=2e-5)
    chosen = actor.choose(logits, masks if masked else None)
    assert np.array_equal(chosen, model.predict(rows, deterministic=True, **given)[0])


def test_a_recurrent_policy_remembers_as_its_model_does(env: HandoverVecEnv, experiment: Experiment) -> None:
    model = model_of(RecurrentPPO, env, net_arch=[8], lstm_hidden_size=6, n_lstm_layers=2)
    actor = policy_file.from_sb3(model, experiment, decisions=False, masked=False).actor()
    rows, _ = rows_of(env)
    memory, state, starts = actor.memory(len(rows)), None, np.ones(len(rows), bool)
    for step in range(5):
        seen = np.roll(rows, step, axis=0)
        theirs, state = model.predict(seen, state=state, episode_start=starts, deterministic=True)
        logits, memory = actor.logits(seen, memory)
        assert np.array_equal(actor.choose(logits), theirs)
        assert np.allclose(memory[0], state[0], atol=1e-6) and np.allclose(memory[1], state[1], atol=1e-6)
        starts[:] = False
    assert not np.allclose(logits, actor.logits(seen)[0]), "it matters what was before"


def test_of_a_critic_that_sees_more_only_the_actor_is_kept() -> None:
    from kvroam.training.algorithm import make_env, make_model

    config = load_experiment("handover", [*SETTINGS, "train.algorithm=mappo", "train.scoring=none", "train.hidden=[8]",
                                          "train.rollout_steps=4", "train.batch_size=16"])
    worlds = make_env(config)
    model, rows = make_model(config, worlds), worlds.reset()
    assert rows.shape[1] > worlds.seen
    found = checkpoints.policy_of(model, config)
    actor = found.actor()
    logits, _ = actor.logits(rows[:, :worlds.seen])
    with torch.no_grad():
        parts = model.policy.get_distribution(torch.as_tensor(rows)).distributions
    expected = np.concatenate([part.logits.numpy() for part in parts], axis=1)
    assert np.allclose(log_probabilities(logits, None, actor.sizes), expected, atol=2e-5)
    assert (found.about.algorithm, found.about.decisions, found.about.masked) == ("mappo", True, True)


def test_draws_follow_the_probabilities(file: Path, env: HandoverVecEnv) -> None:
    actor = policy_file.read(file).actor()
    logits = np.zeros((40_000, sum(actor.sizes)), np.float32)
    logits[:, 0] = np.log(3.0)
    masks = np.ones_like(logits, bool)
    masks[:, 1] = False
    chosen = actor.choose(logits, masks, np.random.default_rng(0))[:, 0]
    expected = np.ones(actor.sizes[0])
    expected[0], expected[1] = 3.0, 0.0
    share = np.bincount(chosen, minlength=actor.sizes[0]) / len(chosen)
    assert np.allclose(share, expected / expected.sum(), atol=0.01) and share[1] == 0


def test_statistics_of_vecnormalize_are_part_of_the_file(experiment: Experiment, tmp_path: Path) -> None:
    env = VecNormalize(HandoverVecEnv(experiment.environment, 2, seed=5), clip_obs=1.5)
    model = model_of(PPO, env)
    env.reset()
    for _ in range(5):
        env.step(np.zeros((8, len(env.action_space.nvec)), np.int64))
    env.training = False
    path = checkpoints.save(model, tmp_path / "n.safetensors", experiment)
    rows = env.unnormalize_obs(env.normalize_obs(env.venv.reset()))
    found, _ = policy_file.read(path).actor().logits(rows)
    expected, _ = policy_file.from_sb3(model_of(PPO, env.venv), experiment, False, False).actor().logits(
        env.normalize_obs(rows))
    assert np.allclose(found, expected, atol=1e-5)


def test_what_is_written_is_read(file: Path, experiment: Experiment, model: MaskablePPO) -> None:
    found = policy_file.read(file)
    about = found.about
    assert (about.format, about.environment, about.algorithm) == (2, "kvroam/Handover-v0", "maskable-ppo")
    assert about.masked and not about.decisions and about.normalisation is None
    assert about.network == policy_file.Network("mlp", (16, 8), "Tanh")
    assert about.actions[0][1] == model.action_space.nvec[0]
    assert len(about.observations) == model.observation_space.shape[0]
    again = file.with_name("again.safetensors")
    policy_file.write(again, found)
    assert again.read_bytes() == file.read_bytes()
    assert not any("value" in name or "critic" in name for name in found.tensors), "the actor only"


def test_loading_leaves_the_random_numbers_of_torch_alone(env: HandoverVecEnv, experiment: Experiment) -> None:
    model = model_of(RecurrentPPO, env, lstm_hidden_size=4, net_arch=[4])
    found = policy_file.from_sb3(model, experiment, False, False)
    before = torch.get_rng_state()
    found.actor()
    assert torch.equal(torch.get_rng_state(), before)


def changed(path: Path, change: Callable[[dict], None]) -> None:
    """Rewrite what a file says about itself, and nothing else."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    about = json.loads(header["__metadata__"]["kvroam"])
    change(about)
    header["__metadata__"]["kvroam"] = json.dumps(about, sort_keys=True)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length:])


@pytest.mark.parametrize(("change", "words"), [
    (lambda about: about.update(format=1), ["format 1", "reads 2", "train it anew"]),
    (lambda about: about.update(masked=False), ["altered"]),
    (lambda about: about["config"].update(num_ues=9), ["altered"]),
    (lambda about: about.update(steps=3), ["altered"]),
    (lambda about: about.update(surprise=1), ["surprise"]),
    (lambda about: about["network"].update(activation="Softmax"), ["Softmax", "Tanh"]),
    (lambda about: about["network"].update(hidden=[16, 9]), ["altered"]),
    (lambda about: about.pop("actions"), ["actions"]),
])
def test_what_a_file_says_of_itself_is_checked(change: Callable[[dict], None], words: list[str], file: Path) -> None:
    changed(file, change)
    with pytest.raises(PolicyError) as caught:
        policy_file.read(file)
    assert all(word in str(caught.value) for word in [*words, "one.safetensors"]), str(caught.value)


def test_tensors_that_were_altered_are_noticed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(PolicyError, match=r"one\.safetensors.*altered.*tensors"):
        policy_file.read(file)


@pytest.mark.parametrize("kept", [0, 5, 100, 2000, -4])
def test_a_truncated_file_is_refused(kept: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(PolicyError, match=r"one\.safetensors.*(damaged|is not a safetensors)"):
        policy_file.read(file)


def test_files_of_others_are_refused_and_not_opened(
        file: Path, model: MaskablePPO, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import save_file

    folder = file.parent
    model.save(folder / "theirs.zip")
    (folder / "hidden.safetensors").write_bytes((folder / "theirs.zip").read_bytes())
    (folder / "resume_000000064.pkl").write_bytes(b"\x80\x04.")
    (folder / "text.safetensors").write_text("hello, this is a letter")
    save_file({"a": np.zeros(3, np.float32)}, folder / "foreign.safetensors")
    for name, words in (("theirs.zip", ["not opened", "checkpoints.save(model, path, experiment)"]),
                        ("hidden.safetensors", ["not opened", ".zip", "checkpoints.save"]),
                        ("resume_000000064.pkl", ["not opened", ".pkl", "checkpoints.save"]),
                        ("text.safetensors", ["not a safetensors"]),
                        ("foreign.safetensors", ["kvroam did not write", "checkpoints.save"]),
                        ("absent.safetensors", ["does not exist"])):
        with pytest.raises(PolicyError) as caught:
            agents.make(str(folder / name), experiment.environment)
        assert all(word in str(caught.value) for word in [*words, name]), str(caught.value)


@pytest.mark.parametrize(("overrides", "words"), [
    (["actions.candidates=2"], ["actions", "number 0 was", "here it is"]),
])
def test_another_layout_is_refused_by_the_first_difference(overrides: list[str], words: list[str], file: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        agents.make(str(file), load_experiment("handover", overrides).environment)
    assert all(word in str(caught.value) for word in [*words, "one.safetensors"]), str(caught.value)


def test_other_observations_are_refused_by_the_first_difference(file: Path, experiment: Experiment) -> None:
    found = policy_file.read(file)
    names = list(found.about.observations)
    names[2] = "weather"
    odd = policy_file.PolicyFile(policy_file.replace(found.about, observations=tuple(names)), found.tensors)
    with pytest.raises(PolicyError, match=r"observations.*number 2 was weather"):
        LearnedPolicy(odd, experiment.environment)


def test_models_that_need_more_than_the_file_holds_are_not_stored(
        env: HandoverVecEnv, experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="A2C"):
        checkpoints.save(A2C("MlpPolicy", env), tmp_path / "a.safetensors", experiment)
    odd = model_of(PPO, env, activation_fn=torch.nn.Softplus)
    with pytest.raises(PolicyError, match="activation"):
        checkpoints.save(odd, tmp_path / "a.safetensors", experiment)
    with pytest.raises(PolicyError, match="own experiment"):
        checkpoints.save(model_of(PPO, env), tmp_path / "a.safetensors", load_experiment("handover",
                                                                                         ["actions.candidates=2"]))
    with pytest.raises(PolicyError, match=r"\.zip"):
        checkpoints.save(model_of(PPO, env), tmp_path / "a.zip", experiment)
    assert not any(tmp_path.iterdir())


def test_at_decision_points_plans_are_held_until_the_next_one(env: HandoverVecEnv, experiment: Experiment) -> None:
    found = policy_file.from_sb3(model_of(MaskablePPO, env), experiment, decisions=True, masked=True)
    core, config = make_core(experiment.environment, 3), experiment.environment
    player, actor = LearnedPolicy(found, config), found.actor()
    core.reset([1, 2, 3])
    player.reset(core.view)
    holder, actions = Holder(core.task), np.zeros((3, 4, len(actor.sizes)), np.int64)
    asked = 0
    for _ in range(config.max_steps):
        due = holder.due()
        asked += due.sum()
        logits, _ = actor.logits(core.observe().reshape(12, -1))
        actions[due] = actor.choose(logits, core.masks().reshape(12, -1)).reshape(actions.shape)[due]
        plans = player.act(core.view)
        assert np.array_equal(plans, holder.decide(due, actions))
        core.step(plans)
    assert 0 < asked < 12 * config.max_steps


def test_an_environment_that_begins_anew_by_itself_is_noticed(env: HandoverVecEnv, experiment: Experiment) -> None:
    model = model_of(RecurrentPPO, env, lstm_hidden_size=4, net_arch=[4])
    found = policy_file.from_sb3(model, experiment, False, False)
    core = make_core(experiment.environment, 2)
    player = LearnedPolicy(found, experiment.environment)
    core.reset([1, 2])
    for _ in range(6):
        core.step(player.act(core.view))
    core.reset([9], [1])
    plans = player.act(core.view)
    assert player._memory[0].reshape(1, 2, 4, -1)[:, 0].any()
    alone = make_core(experiment.environment, 1)
    alone.reset([9])
    assert np.array_equal(plans[1], LearnedPolicy(found, experiment.environment).act(alone.view)[0])


def test_a_shipped_policy_is_found_by_name(
        file: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    from kvroam.agents import registry

    monkeypatch.setattr(registry, "shipped", lambda task="handover": {"roamer": file})
    found = agents.make("roamer", experiment.environment)
    assert isinstance(found, LearnedPolicy) and found.training_seeds == range(7, 9)
    with pytest.raises(PolicyError, match="did you mean roamer"):
        agents.make("roamr", experiment.environment)
    with pytest.raises(PolicyError, match=r"choose among .*roamer"):
        agents.make("xyzxyz", experiment.environment)


def test_every_shipped_policy_acts_in_its_environment(experiment: Experiment) -> None:
    for name, path in agents.shipped().items():
        found = agents.make(name, experiment.environment)
        assert found.name == name == path.stem
