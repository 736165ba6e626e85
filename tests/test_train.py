"""train.py: a short run learns, its checkpoint is evaluated, its scalars are there."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kvroam.envs.handover.actions import parts
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.rewards import NAMES as TERMS
from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.errors import PolicyError
from kvroam.evaluate import evaluate
from kvroam.experiment import load_experiment
from kvroam.train import command, train

SHORT = ["train.total_steps=40000", "train.rollout_steps=64", "episode_s=10.0", "sessions.scripts=4",
         "train.checkpoint_every=20000"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "short"
    train(load_experiment("handover", SHORT), out, quiet=True)
    return out


def test_a_short_run_beats_random(run: Path) -> None:
    results = evaluate(load_experiment("handover", SHORT), ["random", str(run)], 3, 100)
    cost = {name: np.mean(policy["episodes"]["cost"]) for name, policy in results["policies"].items()}
    assert cost["short"] < 0.8 * cost["random"]


def test_tensorboard_has_every_reward_term_and_the_episode_metrics(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"reward/{name}" for name in (*TERMS, "total")} <= tags
    assert {"episode/cost", "episode/interruption_s_mean", "episode/drift_kl_mean", "train/loss"} <= tags


def test_checkpoints_are_written_along_the_way_and_can_be_evaluated(run: Path) -> None:
    checkpoints = sorted(run.glob("checkpoint_*.zip"))
    assert len(checkpoints) >= 1 and all(zipfile.is_zipfile(path) for path in checkpoints)
    config = load_experiment("handover", [*SHORT, "scoring.mode=none"])
    results = evaluate(config, [str(checkpoints[0])], 1, 0)
    assert list(results["policies"]) == [checkpoints[0].stem]
    assert not list(run.glob(".*"))


def test_a_checkpoint_for_other_spaces_is_refused(run: Path) -> None:
    with pytest.raises(PolicyError, match="trained on"):
        evaluate(load_experiment("handover", ["actions.candidates=2"]), [str(run)], 1, 0)


def test_a_damaged_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes((run / "policy.zip").read_bytes()[:1000])
    with pytest.raises(PolicyError, match="damaged"):
        evaluate(load_experiment("handover"), [str(damaged)], 1, 0)


def test_bad_settings_give_one_line(capsys: pytest.CaptureFixture) -> None:
    assert command.main(["--set", "train.learning_rate=0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "learning_rate" in error


def test_two_runs_with_one_seed_are_the_same(tmp_path: Path) -> None:
    from stable_baselines3 import PPO

    config = load_experiment("handover", ["train.total_steps=4096", "train.rollout_steps=32", "episode_s=2.0",
                                           "scoring.mode=none", "num_ues=8"])
    first, second = (PPO.load(train(config, tmp_path / name, quiet=True)) for name in ("a", "b"))
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())


def test_the_vector_environment_truncates_and_gives_the_last_observation() -> None:
    config = resolve("handover", ["episode_s=0.5", "scoring.mode=none", "num_ues=4"])
    env = HandoverVecEnv(config, 3, seed=5)
    start = env.reset()
    rows = start.reshape(3, 4, -1)
    assert not np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[1], rows[2])
    action = np.zeros((12, len(parts(config.actions))), np.int64)
    for _ in range(4):
        _, _, done, _ = env.step(action)
        assert not done.any()
    last, _, done, infos = env.step(action)
    assert done.all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    assert not np.array_equal(np.stack([info["terminal_observation"] for info in infos]), last)
    assert not np.array_equal(last, start)
    masks = env.env_method("action_masks")
    assert len(masks) == 12 and masks[0].shape == (sum(env.action_space.nvec),)


def test_the_time_of_an_episode_is_what_has_passed() -> None:
    before = time.perf_counter()
    config = resolve("handover", ["episode_s=0.3", "scoring.mode=none", "num_ues=2"])
    env = HandoverVecEnv(config)
    made = time.perf_counter()
    env.reset()
    for episode in range(2):
        time.sleep(0.02)
        for _ in range(3):
            began = time.perf_counter()
            infos = env.step(np.zeros((2, len(parts(config.actions))), np.int64))[3]
            ended = time.perf_counter()
        elapsed = {info["episode"]["t"] for info in infos}
        assert began - made - 1e-5 <= min(elapsed) and max(elapsed) <= ended - before + 1e-5, episode
