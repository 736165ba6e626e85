"""train.py --resume: a training that was killed goes on to the same numbers as one that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.errors import PolicyError
from kvroam.experiment import Experiment, load_experiment
from kvroam.train import command, train
from kvroam.training import checkpoints
from kvroam.training.checkpoints import STATE

SETTINGS = ["num_ues=4", "episode_s=4.0", "sessions.scripts=4", "sessions.think_s=0.2", "radio.time_to_trigger_s=0.08",
            "train.num_envs=2", "train.rollout_steps=24", "train.batch_size=64", "train.epochs=2", "train.hidden=[16]",
            "train.neutral_bias=0", "train.total_steps=768", "train.checkpoint_every=1"]
ROLLOUT = 24  # environment steps of each


class Killed(Exception):
    """What no code of ours catches."""


@pytest.fixture(scope="module")
def config() -> Experiment:
    return load_experiment("handover", SETTINGS)


@pytest.fixture(scope="module")
def straight(config: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    train(config, out, quiet=True)
    return out


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Let `act` happen in the environment step number `step` from now."""
    count, original = [0], HandoverVecEnv.step_wait

    def step_wait(self):
        count[0] += 1
        if count[0] == step:
            act()
        return original(self)

    monkeypatch.setattr(HandoverVecEnv, "step_wait", step_wait)


def kill() -> None:
    raise Killed


def everything(path: Path) -> dict[str, np.ndarray]:
    """Weights and optimiser of a checkpoint."""
    from stable_baselines3 import PPO

    model = PPO.load(path, device="cpu")
    found = {name: value.numpy() for name, value in model.policy.state_dict().items()}
    for i, state in model.policy.optimizer.state_dict()["state"].items():
        found.update((f"adam/{i}/{name}", np.asarray(value)) for name, value in state.items())
    return found


def same(a: Path, b: Path) -> bool:
    first, second = everything(a), everything(b)
    return set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)


def scalars(out: Path) -> dict[tuple[str, int], float]:
    """Every scalar in the TensorBoard files of a run, but for what measures time."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for file in (out / "tensorboard").iterdir():
        events = EventAccumulator(str(file))
        events.Reload()
        found.update({(tag, event.step): event.value for tag in events.Tags()["scalars"]
                      for event in events.Scalars(tag) if not tag.startswith("time/")})
    return found


def test_killed_in_any_rollout_and_resumed_gives_the_weights_of_a_straight_run(
        config: Experiment, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_step(patch, ROLLOUT + 7, kill)
        train(config, tmp_path, quiet=True)
    assert (tmp_path / STATE).is_file() and not (tmp_path / "policy.zip").exists()
    assert [p.name for p in tmp_path.glob("checkpoint*")] == ["checkpoint_000000192.zip"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_step(patch, ROLLOUT + 1, kill)
        train(config, tmp_path, quiet=True, resume=True)
    train(config, tmp_path, quiet=True, resume=True)
    assert same(tmp_path / "policy.zip", straight / "policy.zip")
    assert not same(tmp_path / "checkpoint_000000576.zip", straight / "policy.zip")
    assert scalars(tmp_path) == scalars(straight) and not (tmp_path / STATE).exists()


def test_killed_between_a_checkpoint_and_its_index_the_pair_before_is_gone_on_from(
        config: Experiment, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, written = checkpoints.write_whole, []

    def write_whole(path: Path, write: Callable[[Path], object]) -> None:
        written.append(path.name)
        if written.count(STATE) == 2:
            raise Killed
        whole(path, write)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "write_whole", write_whole)
        train(config, tmp_path, quiet=True)
    assert len(list(tmp_path.glob("resume_*.pkl"))) == 2
    train(config, tmp_path, quiet=True, resume=True)
    assert same(tmp_path / "policy.zip", straight / "policy.zip") and scalars(tmp_path) == scalars(straight)
    assert not list(tmp_path.glob("resume*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_with_a_checkpoint_to_go_on_from(
        number: signal.Signals, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    before = signal.getsignal(number)
    arguments = ["--out", str(tmp_path), "--quiet", "--set", *SETTINGS, "train.checkpoint_every=100000"]
    with monkeypatch.context() as patch:
        at_step(patch, ROLLOUT + 3, lambda: os.kill(os.getpid(), number))
        assert command.main(arguments) == 130
    assert signal.getsignal(number) is before
    assert f"--resume {tmp_path}" in capsys.readouterr().err
    assert [p.name for p in tmp_path.glob("checkpoint*")] == ["checkpoint_000000384.zip"]
    assert command.main(["--resume", str(tmp_path), "--quiet"]) == 0
    assert same(tmp_path / "policy.zip", straight / "policy.zip")


def test_the_second_signal_stops_at_once(
        config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 3, twice)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, quiet=True)
    assert not list(tmp_path.glob("checkpoint*"))


def test_a_run_that_cannot_go_on_says_why(
        config: Experiment, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, words in (
        ([str(straight)], ["finished", "--out"]),
        ([str(tmp_path)], ["config.json"]),
        ([str(straight), "--set", "num_ues=3"], ["--resume", "--set"]),
    ):
        assert command.main(["--resume", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and all(word in error for word in words), error
    (tmp_path / STATE).write_bytes(b"no pickle")
    with pytest.raises(PolicyError, match="cannot be read"):
        train(config, tmp_path, quiet=True, resume=True)


def test_a_new_run_forgets_what_an_older_one_could_have_gone_on_from(
        config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / STATE).write_bytes(b"old")
    at_step(monkeypatch, 1, kill)
    with pytest.raises(Killed):
        train(config, tmp_path, quiet=True, overwrite=True)
    assert not (tmp_path / STATE).exists()
