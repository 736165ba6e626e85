"""What all command lines have in common, and the small modules beside them."""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from kvroam import commands, compat, files
from kvroam.errors import ConfigError, KvroamWarning

ROOT = Path(__file__).parents[1]


def program(execute, **options) -> commands.Command:
    return commands.Command("prog", "Does things:\n`prog`.\n\nMore.", commands.add_seed, execute, **options)


def test_the_help_is_the_first_paragraph_of_the_docstring(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        program(print).main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and "Does things: `prog`." in text and "More." not in text and "--seed" in text


def test_an_error_of_the_user_is_one_line_and_code_2(capsys: pytest.CaptureFixture) -> None:
    def fail(args: argparse.Namespace) -> None:
        raise ConfigError(f"seed is {args.seed}:\n   give another")

    assert program(fail).main(["--seed", "3"]) == 2
    assert capsys.readouterr().err == "prog: seed is 3: give another\n"
    with pytest.raises(ConfigError):
        program(fail)(["--seed", "3"])


def test_an_error_of_ours_is_not_hidden() -> None:
    def fail(args: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program(fail).main([])


def test_an_interruption_is_code_130(capsys: pytest.CaptureFixture) -> None:
    def interrupt(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    assert program(interrupt).main([]) == 130
    assert capsys.readouterr().err == "prog: interrupted\n"


def test_a_warning_of_ours_is_one_line_and_others_stay_as_they_are(capsys: pytest.CaptureFixture) -> None:
    def warn(args: argparse.Namespace) -> None:
        warnings.warn("look\nout", KvroamWarning, stacklevel=1)

    assert program(warn).main([]) == 0
    assert capsys.readouterr().err == "prog: warning: look out\n"
    with pytest.warns(UserWarning, match="theirs"):
        program(lambda args: warnings.warn("theirs", UserWarning, stacklevel=1)).main([])


def test_a_command_has_one_torch_thread_and_gives_the_others_back() -> None:
    seen = []
    torch.set_num_threads(2)
    program(lambda args: seen.append(torch.get_num_threads())).main([])
    program(lambda args: seen.append(torch.get_num_threads()), torch=False).main([])
    assert seen == [1, 2] and torch.get_num_threads() == 2


def test_threads_are_as_many_as_asked_for_and_at_least_one(capsys: pytest.CaptureFixture) -> None:
    seen: list[int] = []
    torch.set_num_threads(2)
    several = commands.Command("prog", "", commands.add_threads, lambda args: seen.append(torch.get_num_threads()))
    assert several.main(["--threads", "3"]) == several.main([]) == 0
    assert seen == [3, 1] and torch.get_num_threads() == 2
    with pytest.raises(SystemExit):
        several.main(["--threads", "0"])
    assert "--threads: 0 is below 1" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    assert files.make_folder(tmp_path / "a" / "b").is_dir() and files.make_folder(tmp_path / "a").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        files.make_folder(tmp_path / "file" / "folder")


def test_a_closed_pipe_gives_no_traceback(tmp_path: Path) -> None:
    arguments = ["--policies", "cho", "--episodes", "1", "--quiet", "--out", "out", "--set", "scoring.mode=none",
                 "episode_s=1.0"]
    run = subprocess.Popen([sys.executable, ROOT / "evaluate.py", *arguments], cwd=tmp_path, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None and run.stderr is not None
    run.stdout.close()
    said = [line for line in run.stderr if not line.startswith("kvroam: compiling the simulator")]
    assert said == []
    assert run.wait() == 141 and (tmp_path / "out" / "results.json").is_file()


class Logger:
    def __init__(self, **values: dict) -> None:
        self.__dict__.update(values)


def test_pending_scalars_go_from_one_logger_to_another() -> None:
    from stable_baselines3.common.logger import configure

    first, second = configure(None, []), configure(None, [])
    first.record("train/loss", 3.0)
    first.record_mean("train/kl", 1.0)
    compat.restore_pending_scalars(second, compat.pending_scalars(first))
    second.record_mean("train/kl", 2.0)
    assert second.name_to_value["train/loss"] == 3.0 and second.name_to_value["train/kl"] == 1.5


def test_a_logger_without_those_fields_is_gone_on_without_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_said", False)
    with pytest.warns(KvroamWarning, match="one row"):
        assert compat.pending_scalars(Logger()) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compat.restore_pending_scalars(Logger(), {})
