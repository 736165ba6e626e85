"""train.py: a short run learns and is evaluated; curves, settings and a film are there; what cannot be is refused."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest

from kvroam.envs.handover.actions import parts
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.rewards import NAMES as TERMS
from kvroam.envs.handover.sb3 import HandoverVecEnv
from kvroam.errors import ConfigError, PolicyError
from kvroam.evaluate import evaluate
from kvroam.experiment import load_experiment
from kvroam.train import command, train

SHORT = ["train.total_steps=20000", "train.rollout_steps=40", "train.batch_size=1024", "episode_s=10.0",
         "train.scoring=none", "scoring.mode=none", "train.evaluate_every=10000", "train.evaluate_episodes=2"]
TINY = ["num_ues=4", "episode_s=2.0", "scoring.mode=none", "train.scoring=none", "train.num_envs=2",
        "train.rollout_steps=16", "train.batch_size=64", "train.epochs=1", "train.hidden=[8]", "train.total_steps=256",
        "train.evaluate_every=100", "train.evaluate_episodes=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "short"
    train(load_experiment("handover", SHORT), out, quiet=True)
    return out


def test_a_short_run_beats_random(run: Path) -> None:
    results = evaluate(load_experiment("handover", SHORT), ["random", str(run)], 3, 100)
    cost = {name: np.mean(policy["episodes"]["cost"]) for name, policy in results["policies"].items()}
    assert cost["short"] < 0.8 * cost["random"]


def test_tensorboard_has_rewards_metrics_settings_evaluations_and_a_film(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"reward/{name}" for name in (*TERMS, "total")} <= tags
    assert {"episode/cost", "episode/interruption_s_mean", "train/loss", "held_out/avoidable_cost"} <= tags
    assert "_hparams_/session_start_info" in events.summary_metadata
    pytest.importorskip("pygame")
    (image,) = events.Images("clip")
    assert image.encoded_image_string == (run / "clip.gif").read_bytes() and image.width == 800


def test_the_learning_curve_is_that_of_the_held_out_episodes(run: Path) -> None:
    from kvroam.agents import policy_file
    from kvroam.training.held_out import FIRST_SEED

    rows = list(csv.DictReader((run / "learning_curve.csv").read_text().splitlines()))
    assert list(rows[0]) == ["steps", "seconds", "avoidable_cost", "ci_low", "ci_high"]
    steps = [int(row["steps"]) for row in rows]
    assert steps[0] == 0 and steps[-1] >= 20_000 and len(steps) >= 3 and steps == sorted(set(steps))
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    costs = [float(row["avoidable_cost"]) for row in rows]
    best = policy_file.read(run / "best.safetensors")
    assert best.about.steps == steps[int(np.argmin(costs))]
    config = load_experiment("handover", SHORT)
    seeds = range(FIRST_SEED, FIRST_SEED + 2)
    found = evaluate(config, [str(run)], 2, FIRST_SEED)["policies"]["short"]
    assert np.mean(found["episodes"]["avoidable_cost"]) == pytest.approx(min(costs), rel=1e-4)
    assert not set(seeds) & set(range(config.train.seed, config.train.seed + config.train.num_envs))


def test_it_ends_early_when_nothing_improves(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    still = [*TINY, "train.learning_rate=1e-12", "train.patience=1", "train.total_steps=100000"]
    out = train(load_experiment("handover", still), tmp_path, quiet=True).parent
    assert "1 evaluations without improvement" in capsys.readouterr().err
    rows = (out / "learning_curve.csv").read_text().splitlines()
    assert len(rows) == 3 and not (out / "resume.json").exists()


def test_worlds_are_trained_in_side_by_side_and_evaluated_each(tmp_path: Path) -> None:
    world = "base: handover\nepisode_s: 2.0\nnum_ues: {}\n"
    for name, ues in (("few", 2), ("many", 5)):
        (tmp_path / f"{name}.yaml").write_text(world.format(ues))
    worlds = [str(tmp_path / "few.yaml"), str(tmp_path / "many.yaml")]
    named = f"train.worlds=[{tmp_path / 'few.yaml'},{tmp_path / 'many.yaml'}]"
    train(load_experiment("handover", [*TINY, named]), tmp_path / "run", quiet=True)
    rows = list(csv.DictReader((tmp_path / "run" / "learning_curve.csv").read_text().splitlines()))
    assert list(rows[0]) == ["steps", "seconds", "avoidable_cost", "ci_low", "ci_high", *worlds]
    for row in rows:
        assert float(row["avoidable_cost"]) == pytest.approx((float(row[worlds[0]]) + float(row[worlds[1]])) / 2,
                                                             rel=1e-4)
    (tmp_path / "odd.yaml").write_text("base: handover\nactions: {candidates: 2}\n")
    with pytest.raises(ConfigError, match=r"odd\.yaml has other actions"):
        train(load_experiment("handover", [*TINY, f"train.worlds=[{tmp_path / 'odd.yaml'}]"]), tmp_path / "x")


@pytest.mark.parametrize(("way", "decisions", "masked"), [
    ([], True, True), (["train.algorithm=ppo"], True, False), (["train.algorithm=mappo"], True, True),
    (["train.decisions=false"], False, True), (["train.decisions=false", "train.algorithm=ppo"], False, False),
    (["train.decisions=false", "train.algorithm=recurrent-ppo"], False, False)])
def test_every_algorithm_leaves_a_policy_that_acts_as_it_was_trained(
        way: list[str], decisions: bool, masked: bool, tmp_path: Path) -> None:
    from kvroam.agents import policy_file

    config = load_experiment("handover", [*TINY, *way, "train.evaluate_every=0"])
    about = policy_file.read(train(config, tmp_path, quiet=True)).about
    assert (about.decisions, about.masked, about.algorithm) == (decisions, masked, config.train.algorithm)
    assert about.network.kind == ("lstm" if about.algorithm == "recurrent-ppo" else "mlp") and about.steps >= 256
    assert not (tmp_path / "learning_curve.csv").exists() and not (tmp_path / "best.safetensors").exists()
    evaluate(config, [str(tmp_path)], 1, 0)


def test_a_training_can_start_from_a_policy(tmp_path: Path) -> None:
    from kvroam.agents import policy_file

    first = train(load_experiment("handover", TINY), tmp_path / "first", quiet=True)
    more = [*TINY, f"train.start={first}", "train.learning_rate=1e-30", "train.epochs=1"]
    second = train(load_experiment("handover", more), tmp_path / "second", quiet=True)
    a, b = policy_file.read(first).tensors, policy_file.read(second).tensors
    assert set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)
    with pytest.raises(PolicyError, match=r"train\.hidden"):
        train(load_experiment("handover", [*more, "train.hidden=[9]"]), tmp_path / "third", quiet=True)
    assert not (tmp_path / "third" / "config.json").exists()


@pytest.mark.parametrize(("settings", "words"), [
    (["train.algorithm=recurrent-ppo"], ["recurrent-ppo", "decisions: false"]),
    (["train.algorithm=ppoo"], ["ppoo", "did you mean 'ppo'"]),
    (["train.decisions=false", "train.worlds=[calm,crowd]"], ["worlds", "decisions: true"]),
    (["train.decisions=false", "train.algorithm=mappo"], ["mappo", "decisions: true"]),
    (["train.engine=rllib", "train.algorithm=mappo"], ["mappo", "rllib", "sb3"]),
    (["train.patience=0"], ["patience is 0"]),
    (["train.patience=2", "train.evaluate_every=0"], ["evaluate_every"]),
    (["train.evaluate_episodes=1"], ["evaluate_episodes is 1"]),
    (["train.start=absent.safetensors"], ["absent.safetensors", "absent"]),
])
def test_what_cannot_be_trained_is_refused_in_one_line(
        settings: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert command.main(["--out", str(tmp_path), "--quiet", "--set", *TINY, *settings]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert not any(tmp_path.iterdir())


def test_bad_settings_give_one_line(capsys: pytest.CaptureFixture) -> None:
    assert command.main(["--set", "train.learning_rate=0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "learning_rate" in error


def test_two_runs_with_one_seed_are_the_same(tmp_path: Path) -> None:
    first, second = (train(load_experiment("handover", TINY), tmp_path / name, quiet=True) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    other = train(load_experiment("handover", [*TINY, "train.seed=3"]), tmp_path / "c", quiet=True)
    assert other.read_bytes() != first.read_bytes()


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
