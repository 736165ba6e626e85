"""An evaluation that was stopped goes on where it was, and never mixes in what was made in another way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvroam.errors import ConfigError, KvroamWarning
from kvroam.evaluate import command
from kvroam.evaluation import identity, units
from kvroam.evaluation.results import evaluate
from kvroam.evaluation.store import Store
from kvroam.evaluation.units import SIDE_BY_SIDE
from kvroam.experiment import load_experiment

ROOT = Path(__file__).parents[1]
QUICK = ["num_ues=4", "episode_s=2.0", "scoring.mode=none"]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The policies whose blocks were really played, in order."""
    found: list[str] = []
    play = units.Stage.play

    def counted(self: units.Stage, unit: units.Unit, tick) -> units.Played:
        found.append(unit.policy)
        return play(self, unit, tick)

    monkeypatch.setattr(units.Stage, "play", counted)
    return found


def run(out: Path, *more: str, settings: tuple[str, ...] = tuple(QUICK), policies: tuple[str, ...] = ("cho", "tho")
        ) -> int:
    return command.main(["--policies", *policies, "--episodes", "3", "--quiet", "--out", str(out), *more, "--set",
                         *settings])


def content(out: Path) -> str:
    found = json.loads((out / "results.json").read_text())
    for policy in found["policies"].values():
        policy.pop("wall_s")
    del found["machine"], found["command"]
    return json.dumps(found)


def test_what_is_stored_is_not_played_again_and_gives_the_same_results(
    tmp_path: Path, played: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert run(tmp_path) == 0
    first = content(tmp_path)
    assert played == ["cho", "tho"] and "already" not in capsys.readouterr().out
    assert run(tmp_path) == 0
    assert played == ["cho", "tho"] and "6 of 6 episodes are in" in capsys.readouterr().out
    assert content(tmp_path) == first
    assert run(tmp_path, "--fresh") == 0
    assert played == ["cho", "tho"] * 2 and content(tmp_path) == first
    assert run(tmp_path, policies=("cho", "low=cho:bits=4")) == 0
    assert played == [*["cho", "tho"] * 2, "low"]


def test_more_episodes_play_only_what_is_not_there(tmp_path: Path, played: list[str]) -> None:
    experiment = load_experiment("handover", QUICK)
    evaluate(experiment, ["cho"], SIDE_BY_SIDE, 5, store=Store(tmp_path))
    longer = evaluate(experiment, ["cho"], SIDE_BY_SIDE + 2, 5, store=Store(tmp_path))
    assert played == ["cho"] * 2
    assert str(longer["policies"]["cho"]["episodes"]) == str(
        evaluate(experiment, ["cho"], SIDE_BY_SIDE + 2, 5)["policies"]["cho"]["episodes"])


def test_a_changed_setting_is_played_again(tmp_path: Path, played: list[str]) -> None:
    assert run(tmp_path) == 0
    changed = ("num_ues=5", *QUICK[1:])
    assert run(tmp_path, settings=changed) == 0
    assert played == ["cho", "tho"] * 2
    assert run(tmp_path) == run(tmp_path, settings=changed) == 0
    assert len(played) == 4, "both are there"
    assert run(tmp_path, settings=(*QUICK, "evaluate.ttft_objective_s=0.2")) == 0
    assert len(played) == 6, "objectives are part of what is measured"
    assert run(tmp_path, settings=(*QUICK, "train.gamma=0.5")) == 0
    assert len(played) == 6, "how policies are trained is not"


def test_a_setting_from_the_command_line_holds_in_every_scenario_and_in_its_fingerprint(tmp_path: Path) -> None:
    arguments = ["--config", "calm", "rush_hour", "--policies", "cho", "--episodes", "1", "--quiet"]
    found = []
    for number in ("3", "4"):
        out = tmp_path / number
        command([*arguments, "--out", str(out), "--set", "scoring.mode=none", "episode_s=1.0", f"num_ues={number}"])
        found.append(json.loads((out / "results.json").read_text())["by_scenario"])
        assert [part["config"]["num_ues"] for part in found[-1].values()] == [int(number)] * 2
    prints = [part["fingerprint"] for one in found for part in one.values()]
    assert len(set(prints)) == 4


def test_a_policy_file_that_was_changed_is_played_again(tmp_path: Path, played: list[str]) -> None:
    file = tmp_path / "mine.py"
    text = ("from kvroam.agents.handover import KV, reactive_plans\n\n\nclass Mine:\n    def act(self, view):\n"
            "        return reactive_plans(view, KV, bits=8)\n")
    file.write_text(text)
    for _ in range(2):
        assert run(tmp_path / "out", policies=(f"{file}:Mine",)) == 0
    assert played == ["Mine"]
    file.write_text(text.replace("bits=8", "bits=4"))
    assert run(tmp_path / "out", policies=(f"{file}:Mine",)) == 0
    assert played == ["Mine", "Mine"]


def test_a_checkpoint_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "policy.safetensors").write_bytes(b"tensors")
    (tmp_path / "copy.zip").write_bytes(b"tensors")
    (tmp_path / "other.zip").write_bytes(b"others")
    of = identity.of_policy
    assert of(str(tmp_path / "run")) == of(tmp_path / "copy.zip") != of(str(tmp_path / "other.zip"))
    assert of("cho") == {"name": "cho"} and of(object()) is None
    assert of("json.decoder:JSONDecoder") != of("json.decoder:JSONDecodeError")


def test_a_file_that_the_settings_name_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("a")
    experiment = load_experiment("handover", [f"mobility.trace={trace}"])
    before = identity.of_scenario(experiment)
    assert before == identity.of_scenario(experiment)
    trace.write_text("b")
    assert identity.of_scenario(experiment) != before


def halves(text: str) -> str:
    return text[:len(text) // 2]


def retouched(text: str) -> str:
    found = json.loads(text)
    found["metrics"]["cost"][0] += 1.0
    return json.dumps(found)


@pytest.mark.parametrize("harm", [halves, retouched, lambda text: "", lambda text: "[]", lambda text: "{}",
                                  lambda text: text.replace('"format": 1', '"format": 99')])
def test_a_damaged_file_is_played_again_with_a_message(
    harm, tmp_path: Path, played: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert run(tmp_path) == 0
    first = content(tmp_path)
    victim = next(p for p in (tmp_path / "episodes").iterdir() if '"policy": "tho"' in p.read_text())
    victim.write_text(harm(victim.read_text()))
    capsys.readouterr()
    assert run(tmp_path) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{victim} is damaged: its 3 episodes of 'tho' are played again" in error
    assert played == ["cho", "tho", "tho"] and content(tmp_path) == first
    assert run(tmp_path) == 0 and len(played) == 3, "it is whole again"


def test_bytes_that_are_no_text_are_damage(tmp_path: Path, played: list[str]) -> None:
    experiment = load_experiment("handover", QUICK)
    evaluate(experiment, ["cho"], 2, 0, store=Store(tmp_path))
    next((tmp_path / "episodes").iterdir()).write_bytes(b"\xff\xfe\x00")
    with pytest.warns(KvroamWarning, match="damaged"):
        evaluate(experiment, ["cho"], 2, 0, store=Store(tmp_path))
    assert played == ["cho", "cho"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_kill_leaves_whole_files_and_the_rest_is_played_later(workers: str, tmp_path: Path) -> None:
    arguments = [sys.executable, ROOT / "evaluate.py", "--config", "calm", "--policies", "cho", "tho", "ctho", "random",
                 "--episodes", str(4 * SIDE_BY_SIDE), "--quiet", "--out", str(tmp_path / "out"), "--workers", workers,
                 "--set", *QUICK[:1], "episode_s=20.0", QUICK[2]]
    folder = tmp_path / "out" / "episodes"
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder.exists() and len(list(folder.glob("[!.]*"))) >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(list(folder.glob("[!.]*")))
    for path in folder.glob("[!.]*"):
        assert json.loads(path.read_text())["format"] == 1
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert f"{kept * SIDE_BY_SIDE} of {16 * SIDE_BY_SIDE} episodes are in" in done.stdout
    assert "damaged" not in done.stderr
    calm = load_experiment("calm", [QUICK[0], "episode_s=20.0", QUICK[2]])
    written = json.loads((tmp_path / "out" / "results.json").read_text())["policies"]["ctho"]["episodes"]["cost"]
    assert written == evaluate(calm, ["ctho"], 4 * SIDE_BY_SIDE, 1000)["policies"]["ctho"]["episodes"]["cost"]


def test_the_folder_of_another_evaluation_is_refused_unless_it_shall_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(tmp_path, policies=("cho", "tho")) == 0
    before = content(tmp_path)
    for other in (("--config", "calm"), ("--policies", "ctho")):
        capsys.readouterr()
        assert run(tmp_path, *other) == 2
        error = capsys.readouterr().err
        assert "another evaluation (cho, tho in handover)" in error and "--fresh" in error
    assert content(tmp_path) == before
    assert run(tmp_path, policies=("cho", "ctho")) == 0, "one is the same: the evaluation goes on"
    assert run(tmp_path, "--config", "calm", "--fresh") == 0


def test_the_run_folder_of_a_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "policy.safetensors").write_bytes(b"")
    assert run(tmp_path) == 2
    assert "run folder of a training" in capsys.readouterr().err


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Simulated, because root, as which containers run, may read everything.
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    def deny_stored(path: Path, *more: str, **named: str) -> str:
        return deny() if path.parent.name == "episodes" else read(path, *more, **named)  # type: ignore[return-value]

    read = Path.read_text
    experiment = load_experiment("handover", QUICK)
    evaluate(experiment, ["cho"], 1, 0, store=Store(tmp_path))
    store = Store(tmp_path)
    monkeypatch.setattr(Path, "read_text", deny_stored)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\): give another --out"):
        evaluate(experiment, ["cho"], 1, 0, store=store)
    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\): give another --out"):
        Store(tmp_path)
