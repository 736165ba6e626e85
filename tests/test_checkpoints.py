"""Checkpoints are data: evaluate.py executes nothing in them, acts exactly as training did, and refuses the rest."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pickle
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import VecNormalize

from kvroam.agents import make
from kvroam.agents.learned import LearnedPolicy
from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.errors import PolicyError
from kvroam.evaluate import command as evaluate_command
from kvroam.experiment import Experiment, load_experiment
from kvroam.train import command as train_command
from kvroam.train import train
from kvroam.training import checkpoints, description

SETTINGS = ["num_ues=4", "episode_s=1.0", "scoring.mode=none", "train.num_envs=2", "train.rollout_steps=8",
            "train.batch_size=32", "train.epochs=1", "train.hidden=[16,8]", "train.total_steps=192",
            "train.checkpoint_every=64"]


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.marker,)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("handover", SETTINGS)


@pytest.fixture(scope="module")
def run(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    train(experiment, out, quiet=True)
    return out


@pytest.fixture
def stopped(experiment: Experiment, tmp_path: Path) -> Path:
    """A run that stands at a checkpoint in the middle."""
    from kvroam.training.algorithm import make_env, make_logger, make_model
    from kvroam.training.folder import begin

    out = tmp_path / "stopped"
    begin(out, experiment)
    env = make_env(experiment)
    model = make_model(experiment, env)
    model.set_logger(make_logger(str(out / "tensorboard")))
    model.learn(64)
    checkpoints.write(model, env, out, experiment)
    return out


def rewritten(source: Path, target: Path, **entries: bytes | None) -> Path:
    """A copy of a .zip with entries replaced or, where None, left out; `_` in their names stands for a dot."""
    changed = {name.replace("__", "."): content for name, content in entries.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = changed.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def poisoned(source: Path, marker: Path) -> bytes:
    """The `data` of a checkpoint, with an object that runs code in it."""
    with zipfile.ZipFile(source) as archive:
        data = json.loads(archive.read("data"))
    code = base64.b64encode(cloudpickle.dumps(Payload(marker))).decode()
    data["anything"] = {":type:": "<class 'float'>", ":serialized:": code}
    return json.dumps(data).encode()


def evaluated(path: Path, out: Path) -> int:
    return evaluate_command.main(["--policies", str(path), "--episodes", "1", "--quiet", "--out", str(out), "--set",
                                  "num_ues=4", "episode_s=1.0", "scoring.mode=none"])


def test_a_checkpoint_acts_as_stable_baselines3_itself_to_the_last_bit(run: Path, experiment: Experiment) -> None:
    ours = LearnedPolicy(run, experiment.environment).network
    theirs = PPO.load(run / "policy.zip", device="cpu")
    rows = HandoverVecEnv(experiment.environment, 8, seed=3).reset()
    rows = np.concatenate([rows, np.random.default_rng(0).normal(size=(500, rows.shape[1])).astype(np.float32)])
    assert np.array_equal(ours.predict(rows, deterministic=True)[0], theirs.predict(rows, deterministic=True)[0])
    tensor = torch.as_tensor(rows)
    with torch.no_grad():
        for a, b in zip(ours.get_distribution(tensor).distribution, theirs.policy.get_distribution(tensor).distribution,
                        strict=True):
            assert torch.equal(a.logits, b.logits)
        assert torch.equal(ours.predict_values(tensor), theirs.policy.predict_values(tensor))


def test_loading_a_checkpoint_leaves_the_random_numbers_of_torch_alone(run: Path, experiment: Experiment) -> None:
    before = torch.get_rng_state()
    LearnedPolicy(run, experiment.environment)
    assert torch.equal(torch.get_rng_state(), before)


def test_code_in_a_checkpoint_is_not_run_by_an_evaluation(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bad = rewritten(run / "policy.zip", tmp_path / "bad.zip", data=poisoned(run / "policy.zip", marker))
    PPO.load(bad, device="cpu")
    assert marker.exists(), "the payload works where a checkpoint is unpickled"
    marker.unlink()
    assert evaluated(bad, tmp_path / "out") == 0
    assert not marker.exists()


def test_a_checkpoint_without_a_description_is_refused_and_not_run(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    marker = tmp_path / "marker"
    bad = rewritten(run / "policy.zip", tmp_path / "bad.zip", data=poisoned(run / "policy.zip", marker),
                    kvroam__json=None)
    assert evaluated(bad, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "would run code" in error and "checkpoints.save" in error and error.count("\n") == 1
    assert not marker.exists()


def test_code_in_the_place_of_tensors_is_refused_and_not_run(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    marker = tmp_path / "marker"
    for content in (pickle.dumps(Payload(marker)), torch_saved(Payload(marker))):
        bad = rewritten(run / "policy.zip", tmp_path / "bad.zip", policy__pth=content)
        assert evaluated(bad, tmp_path / "out") == 2
        assert "policy.pth" in capsys.readouterr().err and not marker.exists()
        with contextlib.suppress(RuntimeError):
            torch.load(io.BytesIO(content), weights_only=False)
        assert marker.exists(), "the payload works where tensors are unpickled"
        marker.unlink()


def torch_saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize("victim", ["resume", "checkpoint"])
def test_code_in_a_run_that_is_resumed_is_not_run(
        victim: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    marker = tmp_path / "marker"
    (file,) = stopped.glob(f"{victim}_*")
    if victim == "resume":
        file.write_bytes(pickle.dumps(Payload(marker)))
        pickle.loads(file.read_bytes())
    else:
        copy = shutil.copy(file, tmp_path / "copy.zip")
        rewritten(Path(copy), file, data=poisoned(file, marker))
        PPO.load(file, device="cpu")
    assert marker.exists(), "the payload works where the file is unpickled"
    marker.unlink()
    assert train_command.main(["--resume", str(stopped), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert file.name in error and "SHA-256" in error and "trusting" not in error and error.count("\n") == 1
    assert not marker.exists()


def test_resuming_says_whose_run_it_trusts(stopped: Path, capsys: pytest.CaptureFixture) -> None:
    author = json.loads((stopped / "resume.json").read_text())["written_by"]
    assert train_command.main(["--resume", str(stopped), "--quiet"]) == 0
    error = capsys.readouterr().err
    assert f"trusting {stopped}" in error and f"written by {author}" in error and error.count("\n") == 1


def test_an_index_that_names_files_elsewhere_is_refused(stopped: Path, capsys: pytest.CaptureFixture) -> None:
    index = json.loads((stopped / "resume.json").read_text())
    index["state"] = "../" + index["state"]
    (stopped / "resume.json").write_text(json.dumps(index))
    assert train_command.main(["--resume", str(stopped), "--quiet"]) == 2
    assert "resume.json cannot be read" in capsys.readouterr().err


def test_a_run_is_not_resumed_with_another_configuration(stopped: Path, capsys: pytest.CaptureFixture) -> None:
    config = json.loads((stopped / "config.json").read_text())
    config["num_ues"] = 5
    (stopped / "config.json").write_text(json.dumps(config))
    assert train_command.main(["--resume", str(stopped), "--quiet"]) == 2
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "words"), [
    ({"format": 99}, ["format 99", "train it anew"]),
    ({"algorithm": "RecurrentPPO"}, ["RecurrentPPO", "PPO only"]),
    ({"task": "chess"}, ["chess", "handover"]),
    ({"fingerprint": "0" * 12}, ["altered", "000000000000"]),
    ({"observation_size": 3}, ["trained on 3 observations"]),
    ({"policy_layers": [16, 9]}, ["weights"]),
    ({"policy_layers": [10**9]}, ["weights"]),
    ({"value_layers": [0]}, ["weights"]),
    ({"activation": "Softmax"}, ["Softmax", "Tanh"]),
    ({"activation": None}, ["activation"]),
    ({"surprise": 1}, ["surprise"]),
])
def test_what_a_checkpoint_says_of_itself_is_checked(
        change: dict[str, Any], words: list[str], run: Path, tmp_path: Path, experiment: Experiment) -> None:
    with zipfile.ZipFile(run / "policy.zip") as archive:
        about = json.loads(archive.read(description.ENTRY))
    bad = rewritten(run / "policy.zip", tmp_path / "bad.zip", kvroam__json=json.dumps(about | change).encode())
    with pytest.raises(PolicyError) as caught:
        LearnedPolicy(bad, experiment.environment)
    assert all(word in str(caught.value) for word in [*words, "bad.zip"]), str(caught.value)


def test_a_description_is_stored_with_what_the_policy_was_trained_in(run: Path, experiment: Experiment) -> None:
    from kvroam.experiment import build_experiment

    about = description.read(run / "policy.zip")
    assert (about.format, about.algorithm, about.task) == (1, "PPO", "handover")
    assert about.policy_layers == about.value_layers == (16, 8) and about.steps == 192
    assert build_experiment(about.config) == experiment


def test_ppo_under_vecnormalize_is_refused_by_name_when_it_is_stored_and_when_it_is_read(
        experiment: Experiment, tmp_path: Path) -> None:
    model = PPO("MlpPolicy", VecNormalize(HandoverVecEnv(experiment.environment)), n_steps=4, batch_size=16)
    model.learn(16)
    with pytest.raises(PolicyError, match="VecNormalize"):
        checkpoints.save(model, tmp_path / "ours.zip", experiment)
    assert not any(tmp_path.iterdir())
    model.save(tmp_path / "theirs.zip")
    with pytest.raises(PolicyError, match="VecNormalize"):
        make(str(tmp_path / "theirs.zip"), experiment.environment)


def test_models_that_need_more_than_a_plain_network_are_not_stored(experiment: Experiment, tmp_path: Path) -> None:
    env = HandoverVecEnv(experiment.environment)
    with pytest.raises(PolicyError, match="A2C"):
        checkpoints.save(A2C("MlpPolicy", env), tmp_path / "a.zip", experiment)
    odd = PPO("MlpPolicy", env, n_steps=4, batch_size=16, policy_kwargs={"activation_fn": torch.nn.Softplus})
    with pytest.raises(PolicyError, match="activation"):
        checkpoints.save(odd, tmp_path / "a.zip", experiment)


def test_a_model_of_ones_own_can_be_stored_and_evaluated(experiment: Experiment, tmp_path: Path) -> None:
    own = PPO("MlpPolicy", HandoverVecEnv(experiment.environment), n_steps=4, batch_size=16,
              policy_kwargs={"activation_fn": torch.nn.ReLU, "net_arch": dict(pi=[8], vf=[12, 4])})
    path = checkpoints.save(own, tmp_path / "own.zip", experiment)
    rows = HandoverVecEnv(experiment.environment, 4).reset()
    found = LearnedPolicy(path, experiment.environment).network.predict(rows, deterministic=True)[0]
    assert np.array_equal(found, own.predict(rows, deterministic=True)[0])


@pytest.mark.parametrize(("module", "more", "name"), [
    ("sb3_contrib.common.recurrent.policies", {}, "RecurrentPPO"),
    ("somebodys.policies", {"_last_lstm_states": None}, "RecurrentPPO"),
    ("sb3_contrib.common.maskable.policies", {}, "MaskablePPO"),
])
def test_algorithms_of_sb3_contrib_are_refused_by_name(
        module: str, more: dict[str, None], name: str, run: Path, tmp_path: Path, experiment: Experiment) -> None:
    with zipfile.ZipFile(run / "policy.zip") as archive:
        data = json.loads(archive.read("data"))
    assert data["policy_class"]["__module__"] == "stable_baselines3.common.policies"
    data["policy_class"]["__module__"] = module
    data.update(more)
    foreign = rewritten(run / "policy.zip", tmp_path / "foreign.zip", data=json.dumps(data).encode(), kvroam__json=None)
    with pytest.raises(PolicyError, match=name):
        LearnedPolicy(foreign, experiment.environment)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, experiment: Experiment, run: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("letter.txt", "hello")
    (tmp_path / "text.zip").write_text("hello")
    for name in ("other.zip", "text.zip"):
        with pytest.raises(PolicyError, match=name):
            LearnedPolicy(tmp_path / name, experiment.environment)
    for content in (b"{", b"[]", b"\xff", b'"x"'):
        bad = rewritten(run / "policy.zip", tmp_path / "bad.zip", kvroam__json=content)
        with pytest.raises(PolicyError, match=r"bad\.zip"):
            LearnedPolicy(bad, experiment.environment)


def test_a_folder_that_holds_a_run_is_not_trained_into(
        run: Path, experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "again"
    shutil.copytree(run, out)
    (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    arguments = ["--out", str(out), "--quiet", "--set", *SETTINGS, "train.seed=5"]
    assert train_command.main(arguments) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in ("holds a run", "--out", "--overwrite")) and error.count("\n") == 1
    assert "--resume" not in error, "the run has finished"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert train_command.main([*arguments, "--overwrite"]) == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert len(list((out / "tensorboard").iterdir())) == 1
    assert description.read(out / "policy.zip").config["train"]["seed"] == 5
    assert (out / "policy.zip").read_bytes() != (run / "policy.zip").read_bytes()


def test_a_folder_with_a_run_that_can_go_on_says_so(stopped: Path, capsys: pytest.CaptureFixture) -> None:
    assert train_command.main(["--out", str(stopped), "--quiet", "--set", *SETTINGS]) == 2
    assert f"--resume {stopped}" in capsys.readouterr().err


def test_a_policy_beside_the_configuration_of_another_run_is_refused(
        run: Path, experiment: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    shutil.copytree(run, out)
    config = json.loads((out / "config.json").read_text())
    config["train"]["seed"] = 7
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(PolicyError, match="another"):
        make(str(out), experiment.environment)
    make(str(out / "policy.zip"), experiment.environment)


def test_the_command_that_training_prints_evaluates_the_configuration_that_was_trained(
        tmp_path: Path, capsys: pytest.CaptureFixture, experiment: Experiment) -> None:
    out = tmp_path / "a run"
    assert train_command.main(["--out", str(out), "--quiet", "--set", *SETTINGS]) == 0
    hint = shlex.split(capsys.readouterr().out.splitlines()[-1].partition("python evaluate.py ")[2])
    assert hint[0] == "--config" and load_experiment(hint[1]) == experiment
    assert evaluate_command.main([*hint, "--episodes", "1", "--quiet", "--out", str(tmp_path / "eval")]) == 0
    written = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert written["config"]["num_ues"] == 4 and list(written["policies"]) == ["ctho", "a run"]


def test_evaluating_the_seeds_of_the_training_gives_a_warning(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--config", str(run / "config.json"), "--policies", "cho", str(run), "--episodes", "2", "--quiet",
                 "--out", str(tmp_path)]
    assert evaluate_command.main([*arguments, "--seed", "1"]) == 0
    error = capsys.readouterr().err
    assert "warning" in error and "'ppo' was trained on seed 1," in error and error.count("\n") == 1
    assert evaluate_command.main([*arguments, "--seed", "2"]) == 0
    assert evaluate_command.main(arguments) == 0
    assert capsys.readouterr().err == ""


def test_by_default_the_evaluated_seeds_are_not_those_of_the_training() -> None:
    from kvroam.settings.loader import shipped

    for name in shipped():
        one = load_experiment(name)
        assert one.evaluate.seed >= one.train.seed + one.train.num_envs


def test_training_and_evaluating_as_functions_leave_the_threads_of_torch_alone(
        experiment: Experiment, run: Path, tmp_path: Path) -> None:
    from kvroam.evaluate import evaluate

    torch.set_num_threads(2)
    train(experiment, tmp_path / "threads", quiet=True)
    evaluate(experiment, [str(run)], 1, 0)
    assert torch.get_num_threads() == 2
