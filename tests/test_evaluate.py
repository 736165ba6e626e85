"""evaluate.py: the same worlds for every policy, the table, the files, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvroam.envs.handover.metrics import METRICS as MEASURED
from kvroam.errors import ConfigError
from kvroam.evaluate import command, evaluate
from kvroam.evaluation.report import write_results
from kvroam.experiment import load_experiment
from kvroam.train import train

SMALL = ["episode_s=15.0", "sessions.scripts=4"]
FILES = ("results.json", "table.md", "report.html", "interruption_drift.png", "pareto.png")


@pytest.fixture(scope="module")
def results() -> dict:
    return evaluate(load_experiment("handover", SMALL), ["random", "tho", "cho", "ctho", "token-aware"], 3, 7)


def mean(results: dict, policy: str, metric: str) -> float:
    return float(np.nanmean(results["policies"][policy]["episodes"][metric]))


def test_results_have_every_metric_of_every_episode(results: dict) -> None:
    assert results["seeds"] == [7, 8, 9] and results["scoring"] == "kv"
    for policy in results["policies"].values():
        assert set(policy["episodes"]) == {metric.name for metric in MEASURED}
        assert all(len(values) == 3 for values in policy["episodes"].values())
        assert all({"mean", "iqm", "ci_low", "ci_high"} <= set(s) for s in policy["summary"].values())


def test_all_policies_face_the_same_handovers(results: dict) -> None:
    handovers = {tuple(policy["episodes"]["handovers"]) for policy in results["policies"].values()}
    assert len(handovers) == 1 and min(handovers.pop()) > 0


def test_ctho_is_not_worse_than_tho_and_cho_in_the_worst_interruption() -> None:
    # The worst of an episode depends on who else queues at its server; over these many episodes that evens out.
    experiment = load_experiment("handover", ["episode_s=15.0", "scoring.mode=none"])
    results = evaluate(experiment, ["tho", "cho", "ctho"], 24, 100)
    worst = {name: mean(results, name, "interruption_s_worst") for name in ("tho", "cho", "ctho")}
    assert worst["ctho"] <= worst["tho"] and worst["ctho"] <= worst["cho"]


def test_exact_policies_have_no_drift_and_token_aware_trades_drift_for_speed(results: dict) -> None:
    for name in ("tho", "cho", "ctho"):
        assert mean(results, name, "drift_kl_mean") == 0.0
        assert mean(results, name, "top1_agreement") == 1.0
    assert mean(results, "token-aware", "drift_kl_mean") > 0.0
    assert mean(results, "token-aware", "interruption_s_mean") < mean(results, "cho", "interruption_s_mean")


def test_paired_differences_are_those_of_the_episodes(results: dict) -> None:
    difference = results["paired"]["ctho"]["cho"]["cost"]
    episodes = results["policies"]
    expected = np.subtract(episodes["cho"]["episodes"]["cost"], episodes["ctho"]["episodes"]["cost"]).mean()
    assert difference["mean"] == pytest.approx(expected) and difference["n"] == 3
    ratio = mean(results, "cho", "cost") / mean(results, "ctho", "cost")
    assert difference["ratio"] == pytest.approx(ratio) and difference["ratio_low"] < ratio < difference["ratio_high"]


def test_an_evaluation_repeats_exactly(results: dict) -> None:
    again = evaluate(load_experiment("handover", SMALL), ["token-aware"], 3, 7)
    first = results["policies"]["token-aware"]["episodes"]
    for name, values in again["policies"]["token-aware"]["episodes"].items():
        assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(values, first[name], strict=True)), name


def test_several_scenarios_give_a_table_each_and_one_over_all(tmp_path: Path) -> None:
    quick = ["scoring.mode=none", "episode_s=5.0"]
    configs = {name: load_experiment(name, quick) for name in ("calm", "rush_hour")}
    results = evaluate(configs, ["cho", "ctho"], 2, 3)
    assert results["scenarios"] == ["calm", "calm", "rush_hour", "rush_hour"] and results["seeds"] == [3, 4, 3, 4]
    alone = evaluate(configs["rush_hour"], ["ctho"], 2, 3)["policies"]["ctho"]["episodes"]["cost"]
    assert results["by_scenario"]["rush_hour"]["policies"]["ctho"]["episodes"]["cost"] == alone
    assert results["policies"]["ctho"]["episodes"]["cost"][2:] == alone
    text = write_results(tmp_path, results)["table.md"].read_text()
    assert all(f"## {title}" in text for title in ("Cost per scenario", "Against ctho", "calm", "rush_hour"))


def test_the_command_writes_its_files_and_prints_the_table(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "evaluate.py", "--policies", "cho", "--episodes", "1", "--quiet",
         "--out", str(tmp_path), "--set", "scoring.mode=none", "episode_s=5.0"],
        capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "cho" in run.stdout and "drift and recall were not measured" in run.stdout
    assert all((tmp_path / name).stat().st_size > 100 for name in FILES)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["scoring"] == "none" and written["config"]["episode_s"] == 5.0
    assert {p.name for p in tmp_path.iterdir()} == {*FILES, "episodes"}


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    assert command.main(["--out", str(occupied / "out"), "--quiet"]) == 2
    assert "not a folder that can be written to" in capsys.readouterr().err
    assert occupied.read_text() == "mine"


@pytest.mark.parametrize(("arguments", "words"), [
    (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    (["--set", "backhaul.capacity_bbps=1"], ["capacity_bbps", "capacity_bps"]),
    (["--set", "backhaul.capacity_bps=-5"], ["capacity_bps", "-5", "above 0"]),
    (["--set", "actions.keep=[1.5]"], ["keep", "1.5", "(0, 1]"]),
    (["--set", "scene=atlantis"], ["atlantis", "munich"]),
    (["--set", "scoring.scorer=psychic"], ["psychic", "window"]),
    (["--policies", "cth0"], ["cth0", "ctho"]),
    (["--policies", "runs/absent/policy.safetensors"], ["runs/absent/policy.safetensors", "train.py"]),
    (["--policies", "cho", "cho"], ["cho", "twice"]),
    (["--config", "calm", "calm"], ["calm", "twice", "NAME=PATH"]),
    (["--config", "a=calm", "a=rush_hour"], ["'a'", "twice"]),
    (["--policies", "x=cho", "x=tho"], ["'x'", "twice", "NAME=PATH"]),
    (["--policies", "x=cth0"], ["cth0", "ctho"]),
    (["--episodes", "0"], ["episodes", "0"]),
    (["--seed", "-1"], ["seed", "-1"]),
])
def test_what_cannot_be_used_gives_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    small = ["--out", str(out)] + ([] if "--episodes" in arguments else ["--episodes", "1"])
    assert command.main([*arguments, *small]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert all(word in error for word in words), error
    assert not out.exists()


def test_configurations_of_one_file_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = []
    for ues in (3, 4):
        files.append(tmp_path / str(ues) / "city.yaml")
        files[-1].parent.mkdir()
        files[-1].write_text(f"base: calm\nnum_ues: {ues}\n")
    arguments = ["--policies", "cho", "--episodes", "1", "--quiet", "--out", str(tmp_path / "out"), "--set",
                 "scoring.mode=none", "episode_s=1.0"]
    assert command.main(["--config", *map(str, files), *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in ("'city' twice", *map(str, files), f"other={files[1]}"))
    assert command.main(["--config", str(files[0]), f"large={files[1]}", *arguments]) == 0
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {name: part["config"]["num_ues"] for name, part in written["by_scenario"].items()} == {"city": 3, "large": 4}


def test_policies_are_called_what_they_are_named() -> None:
    small = load_experiment("handover", ["scoring.mode=none", "episode_s=5.0", "num_ues=4"])
    policies = evaluate(small, ["cheap=cho:bits=4", "cho:bits=4"], 1, 7)["policies"]
    assert list(policies) == ["cheap", "cho:bits=4"]
    assert policies["cheap"]["episodes"]["cost"] == policies["cho:bits=4"]["episodes"]["cost"]
    assert list(evaluate(small, {"one": "cho", "two": "tho"}, 1, 7)["policies"]) == ["one", "two"]


def test_two_checkpoints_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    quick = ["num_ues=2", "episode_s=1.0", "scoring.mode=none", "train.num_envs=1", "train.rollout_steps=8",
             "train.batch_size=16", "train.epochs=1", "train.hidden=[4]", "train.total_steps=16",
             "train.evaluate_every=0"]
    runs = [tmp_path / name / "ppo" for name in "ab"]
    for seed, run in enumerate(runs):
        train(load_experiment("handover", [*quick, f"train.seed={seed}"]), run, quiet=True)
    arguments = ["--config", str(runs[0] / "config.json"), "--episodes", "1", "--quiet", "--out", str(tmp_path / "out")]
    assert command.main(["--policies", *map(str, runs), *arguments]) == 2
    assert f"other={runs[1]}" in capsys.readouterr().err
    assert command.main(["--policies", str(runs[0]), f"second={runs[1]}", *arguments]) == 0
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["policies"]) == ["ppo", "second"]


@pytest.mark.parametrize("given", ["handover", None, {"a": "handover"}, {}, load_experiment().environment])
def test_evaluate_says_what_it_expects(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected an Experiment.*load_experiment\('handover'\)"):
        evaluate(given, ["cho"], 1, 0)
