"""train.py --resume: a training that was killed at any moment goes on to the same numbers as one that was not."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.logger import Logger

from kvroam.agents.learned import BEST
from kvroam.envs.base.core import Core
from kvroam.errors import KvroamError, PolicyError
from kvroam.experiment import Experiment, load_experiment
from kvroam.train import command, train
from kvroam.training import checkpoints, folder
from kvroam.training.checkpoints import POLICY, STATE

SETTINGS = ["num_ues=4", "episode_s=4.0", "sessions.scripts=4", "sessions.think_s=0.2", "radio.time_to_trigger_s=0.08",
            "train.num_envs=2", "train.rollout_steps=24", "train.batch_size=64", "train.epochs=2", "train.hidden=[16]",
            "train.neutral_bias=0", "train.total_steps=768", "train.checkpoint_every=1", "train.evaluate_every=300",
            "train.evaluate_episodes=2"]
WAYS = {"maskable-ppo at decision points": [],
        "ppo at decision points": ["train.algorithm=ppo"],
        "mappo": ["train.algorithm=mappo"],
        "maskable-ppo": ["train.decisions=false"],
        "ppo": ["train.decisions=false", "train.algorithm=ppo"],
        "recurrent-ppo": ["train.decisions=false", "train.algorithm=recurrent-ppo"]}


class Killed(Exception):
    """What no code of ours catches."""


def configured(way: str) -> Experiment:
    return load_experiment("handover", [*SETTINGS, *WAYS[way]])


@pytest.fixture(scope="module")
def config() -> Experiment:
    return configured("maskable-ppo at decision points")


@pytest.fixture(scope="module")
def straight(config: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    train(config, out, quiet=True)
    return out


def at_step(monkeypatch: pytest.MonkeyPatch, step: float, act: Callable[[], object]) -> list[int]:
    """Let `act` happen in step number `step` of the environments from now; returns the count of steps, as it grows."""
    count, original = [0], Core.step

    def counted(self: Core, plans: np.ndarray) -> None:
        count[0] += 1
        if count[0] == step:
            act()
        original(self, plans)

    monkeypatch.setattr(Core, "step", counted)
    return count


def kill() -> None:
    raise Killed


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


def results(out: Path) -> dict[str, object]:
    """What a run has come to: policies to the last bit, the learning curve without its seconds, all scalars."""
    rows = list(csv.DictReader((out / "learning_curve.csv").read_text().splitlines()))
    curve = [tuple(row[name] for name in row if name != "seconds") for row in rows]
    return {"last": (out / POLICY).read_bytes(), "best": (out / BEST).read_bytes(), "curve": curve,
            "scalars": scalars(out)}


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_random_moments_and_resumed_gives_the_numbers_of_a_straight_run(
        way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(way)
    with monkeypatch.context() as patch:
        count = at_step(patch, np.inf, kill)
        train(config, tmp_path / "straight", quiet=True)
    out, draws = tmp_path / "killed", np.random.default_rng(len(way))
    for _ in range(2):
        with monkeypatch.context() as patch:
            at_step(patch, draws.integers(1, count[0] // 2), kill)
            can_go_on = (out / STATE).is_file()
            with pytest.raises(Killed):
                train(config, out, quiet=True, resume=can_go_on, overwrite=not can_go_on)
    assert not (out / "run.lock").exists()
    can_go_on = (out / STATE).is_file()
    assert can_go_on, "one of the moments was after a checkpoint"
    train(config, out, quiet=True, resume=True)
    assert results(out) == results(tmp_path / "straight")
    assert not list(out.glob("resume*")) and len(results(out)["curve"]) >= 3  # type: ignore[arg-type]


def test_a_process_that_is_killed_leaves_a_run_that_goes_on(straight: Path, tmp_path: Path) -> None:
    program = ("import os, signal, sys\n"
               "from kvroam.envs.base.core import Core\n"
               "from kvroam.train import command\n"
               "count, original = [0], Core.step\n"
               "def step(self, plans):\n"
               "    count[0] += 1\n"
               f"    if count[0] == {np.random.default_rng(0).integers(130, 170)}:\n"
               "        os.kill(os.getpid(), signal.SIGKILL)\n"
               "    original(self, plans)\n"
               "Core.step = step\n"
               "command.main(sys.argv[1:])\n")
    arguments = ["--out", str(tmp_path), "--quiet", "--set", *SETTINGS]
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / STATE).is_file() and (tmp_path / "run.lock").is_file()
    assert command.main(["--resume", str(tmp_path), "--quiet"]) == 0
    assert results(tmp_path) == results(straight)


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
    assert results(tmp_path) == results(straight)


@pytest.mark.parametrize("victim", ["resume_*.zip", "resume_*.pkl", STATE, POLICY])
def test_a_full_disk_leaves_the_checkpoint_before_intact(
        victim: str, config: Experiment, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes, count = Path.write_bytes, [0]

    def full(self: Path, data: bytes) -> int:
        if self.match(f".{victim}".replace(".json", ".*.json").replace(".safetensors", ".*.safetensors")):
            count[0] += 1
            if count[0] == 2:
                write_bytes(self, data[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(KvroamError) as caught:
            train(config, tmp_path, quiet=True)
    assert all(word in str(caught.value) for word in ("No space left", "--resume")), str(caught.value)
    assert not list(tmp_path.glob(".*")), "no drafts are left"
    if victim == "resume_*.pkl":
        train(config, tmp_path, quiet=True, resume=True)
        assert results(tmp_path) == results(straight)
    else:
        checkpoints.read(tmp_path, config, lambda: Logger(None, []))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_with_a_checkpoint_to_go_on_from(
        number: signal.Signals, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    before = signal.getsignal(number)
    arguments = ["--out", str(tmp_path), "--quiet", "--set", *SETTINGS]
    with monkeypatch.context() as patch:
        at_step(patch, 90, lambda: os.kill(os.getpid(), number))
        assert command.main(arguments) == 130
    assert signal.getsignal(number) is before
    assert f"--resume {tmp_path}" in capsys.readouterr().err
    assert command.main(["--resume", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / POLICY).read_bytes() == (straight / POLICY).read_bytes()


def test_the_second_signal_stops_at_once(
        config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 3, twice)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, quiet=True)
    assert not list(tmp_path.glob("resume*"))


def test_a_folder_that_a_training_uses_is_refused_to_another(config: Experiment, straight: Path) -> None:
    before = sorted(path.name for path in straight.iterdir())
    with folder.owned(straight):
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(KvroamError, match=rf"used by another training \(process {os.getpid()}\).*--out"):
                train(config, straight, quiet=True, **how)
    assert sorted(path.name for path in straight.iterdir()) == before


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    (tmp_path / "run.lock").write_text(f"{gone.pid}\n")
    with folder.owned(tmp_path):
        assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "run.lock").exists()


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
