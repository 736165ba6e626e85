"""The benchmark's table on shapes that take no time; what it measures is not asserted."""

import json

import pytest

from kvroam.benchmarks import kv
from kvroam.commands import run as run_command


def run(*arguments: str) -> int:
    return run_command("benchmark", kv.command, list(arguments))


def test_actions_take_turns_and_the_first_turn_is_not_counted(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(kv.time, "perf_counter", lambda: clock[0])

    def action(name, seconds):
        calls.append(name)
        clock[0] += seconds.pop(0)

    first, second = [9.0, 3.0, 2.0], [0.5, 7.0, 8.0]
    times = kv.in_turn([lambda: action("a", first), lambda: action("b", second)], repeats=2)
    assert calls == list("ababab") and times == [2.0, 7.0]


def test_codec_rows_cover_every_width():
    rows = kv.codec_rows(1, (40, 2, 1, 8))
    cases = {row["case"] for row in rows}
    for name in ("fp16", "int8", "int4", "int2"):
        assert {f"{name} pack / memcpy", f"{name} unpack / memcpy"} < cases
    assert all(row["value"] > 0 for row in rows)


def test_command_prints_a_table_and_writes_json(tmp_path, capsys):
    path = tmp_path / "kv.json"
    arguments = ["--cuda-7b", "--tiny", "--device", "cpu", "--contexts", "40", "--sessions", "2", "--repeats", "1"]
    assert run(*arguments, "--json", str(path)) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [set(row) for row in found["rows"]] == [{"part", "case", "threads", "value", "unit", "target"}] * 3
    assert {"cpu", "torch_threads"} <= set(found["machine"]) and "torch" in found["versions"]
    printed = capsys.readouterr().out
    assert all(row["case"] in printed for row in found["rows"])


@pytest.mark.parametrize(
    "arguments", [["--parts", "codecs"], ["--repeats", "0"], ["--threads", "0"], ["--tiny", "--json", "no/folder/x"]]
)
def test_unusable_arguments_are_one_line_and_code_2(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    extra = ["--cuda-7b", "--device", "cpu", "--contexts", "40", "--sessions", "1"] if "--json" in arguments else []
    assert run(*arguments, *extra) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_seven_billion_parameters_need_a_gpu(monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("--cuda-7b") == 2
    assert "needs a GPU" in capsys.readouterr().err
