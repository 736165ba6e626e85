"""The sweep's table against a loop written by hand, and its command from the outside."""

import csv

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvroam.errors import ConfigError
from kvroam.files import write_whole
from kvroam.kvbackend import TransferPlan
from kvroam.kvbackend.embedded.model import load_model
from kvroam.kvbackend.sweep import command, measure

from .conftest import VOCAB

COLUMNS = ["scorer", "keep", "precision", "bytes", "kl", "js", "top1", "dnll", "recall", "recall_hot", "recall_cold",
           "wrong"]
SMALL = ["--sessions", "3", "--context", "150", "--horizon", "60", "--quiet"]


def run(*arguments: str) -> int:
    return command.command.main(arguments)


def read(folder) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_points_equal_a_loop_by_hand(backend):
    rng = np.random.default_rng(3)
    answer = np.zeros(200, np.int8)
    answer[[130, 140, 141, 150]] = 1, 2, 2, 1
    references = backend.references([(rng.integers(0, VOCAB, n), answer[:n]) for n in (200, 180, 145)])
    settings = backend.settings
    points = list(measure.sweep(backend, references, 120, 40, ["streaming", "key-norm"], [0.5, 1.0], ["int4", "bf16"]))
    assert [(p.scorer, p.keep, p.precision) for p in points] == [
        (s, k, p) for s in ("streaming", "key-norm") for k in (0.5, 1.0) for p in ("int4", "bf16")
    ]
    assert backend.settings is settings
    plan = TransferPlan(keep=0.5, bits=4)
    try:
        backend.settings = type(settings)(scorer="key-norm", scope="sequence")
        sizes, sums, tokens, hits, totals = [], np.zeros(4), 0, np.zeros(2), np.zeros(2)
        for reference in references:
            session = backend.open(reference, 120)
            sizes.append(backend.migrate([session], [plan])[0].payload_bytes)
            drift = backend.advance([session], [min(40, session.remaining)])
            sums += [float(x[0]) for x in (drift.kl, drift.js, drift.matches, drift.delta_nll)]
            tokens += drift.tokens[0]
            hits += drift.hot_hits[0], drift.cold_hits[0]
            totals += drift.hot_total[0], drift.cold_total[0]
    finally:
        backend.settings = settings
    point = points[4]
    assert tokens == 40 + 40 + 25 and point.bytes == np.mean(sizes)
    assert (point.kl, point.js, point.top1, point.dnll) == pytest.approx(sums / tokens, abs=1e-5)
    assert (point.recall_hot, point.recall_cold) == pytest.approx(hits / totals)
    assert point.recall == pytest.approx(hits.sum() / totals.sum())


def test_a_list_per_head_is_the_scope_head(backend, tokens):
    references = backend.references([tokens])
    (point,) = measure.sweep(backend, references, 200, 50, ["key-norm@head"], [0.3])
    settings = backend.settings
    try:
        backend.settings = type(settings)(scorer="key-norm", scope="head")
        session = backend.open(references[0], 200)
        (move,) = backend.migrate([session], [TransferPlan(keep=0.3)])
        drift = backend.advance([session], [50])
    finally:
        backend.settings = settings
    assert (point.scorer, point.bytes) == ("key-norm@head", move.payload_bytes)
    assert point.kl == pytest.approx(drift.kl[0] / 50, abs=1e-6)


def test_the_oracle_needs_sessions_that_tell_their_facts(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("One station hands the session to the next. " * 200, encoding="utf-8")
    assert run(*SMALL, "--scorers", "oracle", "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path)) == 2
    assert "a plain text does not tell" in capsys.readouterr().err
    assert run(*SMALL, "--scorers", "oracle", "--keeps", "0.3", "--out", str(tmp_path)) == 0
    rows = read(tmp_path)
    assert {row["scorer"] for row in rows} == {"oracle"} and float(rows[0]["recall"]) > 0.8


def test_text_without_questions_has_no_recall(backend, tokens):
    (point,) = measure.sweep(backend, backend.references([tokens]), 200, 50, keeps=[1.0])
    assert (point.recall, point.recall_hot, point.recall_cold) == (None, None, None)
    assert (point.kl, point.top1) == (0.0, 1.0)


def test_command_measures_the_embedded_model(tmp_path):
    assert run(*SMALL, "--scorers", "window", "random", "--keeps", "1", "0.3", "--out", str(tmp_path)) == 0
    rows = read(tmp_path)
    assert list(rows[0]) == COLUMNS and len(rows) == 2 * 2 * 4
    whole = [row for row in rows if (row["keep"], row["precision"]) == ("1", "fp16")]
    assert [float(row["kl"]) for row in whole] == [0.0, 0.0] and [float(row["top1"]) for row in whole] == [1.0, 1.0]
    assert float(whole[0]["recall"]) > 0.8
    size = {(row["keep"], row["precision"]): float(row["bytes"]) for row in rows}
    assert size["1", "fp16"] > size["1", "int8"] > size["1", "int4"] > size["1", "int2"] > size["0.3", "int2"]
    assert all(float(row["kl"]) > 0 for row in rows if row["keep"] == "0.3")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep.csv", "sweep.png"]


def test_command_measures_any_model_on_any_text(tmp_path):
    tokenizer = load_model()[1]
    tokenizer.save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("One station hands the session to the next. " * 200, encoding="utf-8")
    arguments = ["--model", str(tmp_path / "model"), "--text", str(tmp_path / "text.txt"), "--precisions", "fp32"]
    assert run(*SMALL, *arguments, "--keeps", "1", "0.2", "--out", str(tmp_path / "out")) == 0
    rows = read(tmp_path / "out")
    assert len(rows) == 8 * 2 and {row["recall"] for row in rows} == {""}
    assert float(rows[0]["kl"]) == 0.0 < float(rows[1]["kl"])


def test_same_arguments_write_the_same_table(tmp_path):
    arguments = [*SMALL, "--scorers", "random", "--keeps", "0.4", "--precisions", "int8", "--seed", "5"]
    for name in "ab":
        assert run(*arguments, "--out", str(tmp_path / name)) == 0
    assert (tmp_path / "a/sweep.csv").read_bytes() == (tmp_path / "b/sweep.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--scorers", "windw"], "windw"),
        (["--scorers", "oracle@heads"], "oracle@heads"),
        (["--precisions", "int3"], "int3"),
        (["--keeps", "1.5"], "1.5"),
        (["--sessions", "0"], "--sessions 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--context", "1000"], "1000"),
        (["--situation", "windy"], "windy"),
        (["--model", "hollow"], "hollow"),
        (["--text", "absent.txt"], "absent.txt"),
        (["--out", "file/folder"], "file/folder"),
        (["--device", "tpu9"], "tpu9"),
    ],
)
def test_unusable_arguments_are_one_line_and_code_2(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hollow").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert run("--quiet", *arguments) == 2
    message = capsys.readouterr().err
    assert named in message and message.count("\n") == 1


def test_text_that_is_too_short_or_not_text_is_refused(backend, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        command.text_scripts(backend, path, 1, 10)
    path.write_text("short", encoding="utf-8")
    with pytest.raises(ConfigError, match="tokenizer"):
        command.text_scripts(backend, path, 1, 10)


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sweep.csv"
    path.write_text("old", encoding="utf-8")

    def fail(draft):
        draft.write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match="No space left"):
        write_whole(path, fail)
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]
