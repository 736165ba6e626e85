"""Training, evaluation and the commands work with a task that they have never heard of: the miniature one."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kvroam import agents
from kvroam.envs.base import registry
from kvroam.evaluate import command as evaluate_command
from kvroam.evaluate import evaluate
from kvroam.experiment import build_experiment
from kvroam.train import command as train_command

SMALL = {"task": "counting", "players": 3, "train": {
    "total_steps": 12_000, "num_envs": 8, "rollout_steps": 32, "batch_size": 64, "learning_rate": 0.003,
    "gamma": 0.0, "hidden": [32]}}


def test_a_policy_is_trained_and_beats_a_constant_one(counting: ModuleType, tmp_path: Path) -> None:
    file, run = tmp_path / "counting.yaml", tmp_path / "run"
    file.write_text(json.dumps(SMALL))
    train_command(["--config", str(file), "--out", str(run), "--quiet"])
    assert json.loads((run / "config.json").read_text())["task"] == "counting"

    def zero(view) -> np.ndarray:
        return np.zeros((view.num_envs, view.num_agents, 1), int)

    results = evaluate(build_experiment(SMALL), [str(run), counting.perfect, zero], 4, 1000)
    cost = {name: np.mean(found["episodes"]["cost"]) for name, found in results["policies"].items()}
    assert cost["perfect"] == 0.0
    assert cost["run"] < 0.5 * cost["zero"], cost
    evaluate_command(["--config", str(file), "--policies", str(run), "--episodes", "2", "--quiet",
                      "--out", str(tmp_path / "out")])
    assert "cost" in (tmp_path / "out" / "table.md").read_text()


def test_a_checkpoint_of_one_task_is_refused_in_another(counting: ModuleType, tmp_path: Path) -> None:
    file, run = tmp_path / "counting.yaml", tmp_path / "run"
    file.write_text(json.dumps(SMALL | {"train": SMALL["train"] | {"total_steps": 256}}))
    train_command(["--config", str(file), "--out", str(run), "--quiet"])
    with pytest.raises(ValueError, match=r"trained for kvroam/Counting-v0, this is kvroam/Handover-v0"):
        agents.make(str(run), registry.config_class("handover")())


def test_a_task_that_draws_nothing_says_so(counting: ModuleType) -> None:
    env = counting.CountingEnv(render_mode="rgb_array")
    with pytest.raises(ValueError, match="Counting draws nothing"):
        env.reset(seed=0)
