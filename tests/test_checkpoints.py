"""A run folder: evaluate.py runs nothing that is stored in it, and a run is resumed only as it was written."""

from __future__ import annotations

import json
import pickle
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kvroam.agents import make, policy_file
from kvroam.errors import PolicyError
from kvroam.evaluate import command as evaluate_command
from kvroam.experiment import Experiment, load_experiment
from kvroam.train import command as train_command
from kvroam.train import train
from kvroam.training import checkpoints

SETTINGS = ["num_ues=4", "episode_s=1.0", "scoring.mode=none", "train.scoring=none", "train.num_envs=2",
            "train.rollout_steps=8", "train.batch_size=32", "train.epochs=1", "train.hidden=[16,8]",
            "train.total_steps=192", "train.checkpoint_every=64", "train.evaluate_every=100",
            "train.evaluate_episodes=2"]


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


def evaluated(path: Path, out: Path) -> int:
    return evaluate_command.main(["--policies", str(path), "--episodes", "1", "--quiet", "--out", str(out), "--set",
                                  "num_ues=4", "episode_s=1.0", "scoring.mode=none"])


def test_an_evaluation_opens_nothing_that_could_run_code(stopped: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for file in (*stopped.glob("resume_*"), stopped / "policy.pkl", stopped / "policy.zip"):
        file.write_bytes(pickle.dumps(Payload(marker)))
    pickle.loads(file.read_bytes())
    assert marker.exists(), "the payload works where it is unpickled"
    marker.unlink()
    assert evaluated(stopped, tmp_path / "out") == 0
    assert evaluated(stopped / "policy.pkl", tmp_path / "out") == 2
    assert evaluated(stopped / "policy.zip", tmp_path / "out") == 2
    assert not marker.exists()


@pytest.mark.parametrize("victim", ["resume_*.zip", "resume_*.pkl"])
def test_code_in_a_run_that_is_resumed_is_not_run(
        victim: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    marker = tmp_path / "marker"
    (file,) = stopped.glob(victim)
    file.write_bytes(pickle.dumps(Payload(marker)))
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


@pytest.mark.parametrize("best", [True, False])
def test_of_a_run_folder_the_best_policy_is_evaluated_or_else_the_last(
        best: bool, run: Path, experiment: Experiment, tmp_path: Path) -> None:
    out = shutil.copytree(run, tmp_path / "copy")
    last, other = (policy_file.read(out / f"{name}.safetensors") for name in ("policy", "best"))
    marked = policy_file.assemble(experiment, other.about.network, other.tensors, algorithm="bc", decisions=True,
                                  masked=True, steps=3)
    policy_file.write(out / "best.safetensors", marked)
    if not best:
        (out / "best.safetensors").unlink()
    assert make(str(out), experiment.environment).about == (marked if best else last).about  # type: ignore[attr-defined]
    for file in out.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(PolicyError, match=r"best\.safetensors nor policy\.safetensors"):
        make(str(out), experiment.environment)


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
    assert policy_file.read(out / "policy.safetensors").about.config["train"]["seed"] == 5
    assert (out / "policy.safetensors").read_bytes() != (run / "policy.safetensors").read_bytes()


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
    make(str(out / "policy.safetensors"), experiment.environment)


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
