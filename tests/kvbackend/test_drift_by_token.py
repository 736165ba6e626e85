"""Drift by kind of token: the kinds against the text, one cell against a masked forward, and the page's findings."""

import re
from pathlib import Path

import numpy as np
import pytest

from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.embedded import load_model
from kvroam.kvbackend.embedded.scripts import script_bank
from kvroam.kvbackend.embedded.tokenizer import BOS, load_tokenizer
from kvroam.kvbackend.embedded.training import drift_by_token as module
from kvroam.kvbackend.embedded.training import pruning_page
from kvroam.kvbackend.embedded.training.drift_by_token import KEEPS, KINDS, SCORERS, SOURCES
from kvroam.kvbackend.embedded.training.drift_by_token_page import find, page, read_csv
from kvroam.kvbackend.embedded.training.pruning import HORIZON, START

from .masked_forward import kl, masked_logits

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def table():
    return read_csv(DOCS / "drift_by_token.csv")


@pytest.fixture(scope="module")
def backend():
    return KVBackend.load(device="cpu")


# Measuring


def test_kinds_are_those_of_the_words():
    tokenizer = load_tokenizer()
    for script in script_bank(4, 700, 5, "text"):
        pieces = [tokenizer.decode([int(t)], skip_special_tokens=False) for t in script.tokens]
        letters = np.concatenate([np.full(len(p), i) for i, p in enumerate(pieces)])
        expected = np.zeros(len(pieces), int)
        for found in re.finditer(r"<(fact|ask)>([a-z_]+=)([0-9]{4}\n)?", "".join(pieces)):
            first = "statement" if found[1] == "fact" else "question"
            expected[np.unique(letters[slice(*found.span(2))])] = KINDS.index(first)
            if found[3]:
                second = "statement" if found[1] == "fact" else "answer"
                expected[np.unique(letters[slice(*found.span(3))])] = KINDS.index(second)
        whole = len(pieces) - 7  # the end may cut a statement
        assert np.array_equal(module.kinds(script.tokens)[:whole], expected[:whole])
        assert set(expected) == set(range(len(KINDS)))


def test_each_prediction_is_that_of_a_forward_pass_that_cannot_see_what_was_dropped(backend):
    rows = [row[:220] for row in module.tokens_of("sessions", 2, 6)]
    found = module.drift_by_token(backend, rows, "streaming", TransferPlan(keep=0.25), 160, 40)
    assert found.shape == (2, 40)
    model = load_model()[0]
    model.set_attn_implementation("eager")
    kept = np.r_[0:4, 124:160]  # a quarter of 160: four sinks, and the newest
    for row, drift in zip(rows, found, strict=True):
        whole, pruned = (masked_logits(model, row[:200].astype(np.int64), s) for s in ([], [(160, kept)]))
        # The backend stores keys and values at 16 bits.
        assert drift == pytest.approx(kl(whole, pruned)[160:200], rel=0.01, abs=1e-3)
        assert drift.mean() > 0.03


def test_parts_of_the_kinds_add_up():
    rng = np.random.default_rng(3)
    drift, kind = rng.random((5, 40)), rng.integers(0, 3, (5, 40))
    whole = module.summary(drift, kind >= 0)
    parts = [module.summary(drift, kind == k) for k in range(4)]
    assert sum(p["part"] for p in parts) == pytest.approx(whole["part"], abs=3e-4)
    assert parts[1]["kl"] == pytest.approx(drift[kind == 1].mean(), abs=1e-4)
    assert whole["kl"] == whole["part"] and whole["part_low"] < whole["part"] < whole["part_high"]
    assert parts[3]["share"] == parts[3]["kl"] == parts[3]["tokens"] == 0


def test_plain_texts_hold_no_facts_and_no_questions():
    for source in SOURCES[1:]:
        rows = module.tokens_of(source, 4, 1)
        assert len(rows) == 4 and {len(row) for row in rows} == {START + HORIZON + 1}
        assert all(row[0] == BOS and not module.kinds(row).any() for row in rows)


def test_the_command_writes_table_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "HORIZON", 8)
    monkeypatch.setattr(module, "SCORERS", ("streaming",))
    monkeypatch.setattr(module, "KEEPS", (0.25,))
    monkeypatch.setattr(module, "page", lambda rows, *_: str(len(rows)))
    arguments = ["--out", str(tmp_path), "--rows", "2", "--quiet"]
    assert module.command.main(arguments) == 0
    assert len(read_csv(tmp_path / "drift_by_token.csv")) == len(KINDS) + len(SOURCES)
    before = (tmp_path / "drift_by_token.csv").read_bytes()
    assert module.command.main([*arguments, "--measured"]) == 0
    assert (tmp_path / "drift_by_token.csv").read_bytes() == before
    assert module.command.main(["--out", str(tmp_path), "--rows", "0"]) == 2
    assert module.command.main(["--out", str(tmp_path / "absent"), "--measured"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


# The page


def test_the_page_is_that_of_the_table(table):
    assert (DOCS / "drift_by_token.md").read_text(encoding="utf-8") == page(table, START, HORIZON)


def test_the_sessions_are_those_of_the_pruning_table(table):
    pruned = pruning_page.read_csv(DOCS / "pruning.csv")
    for scorer in SCORERS:
        for keep in KEEPS:
            known = pruning_page.find(pruned, "text", scorer, keep)["kl"]
            assert find(table, "sessions", scorer, keep)["part"] == pytest.approx(known, rel=0.02)


def test_a_line_of_the_shipped_table_is_measured_again(table, backend):
    rows = module.tokens_of("own text", 40, 2027)
    again = module.drift_by_token(backend, rows, "window", TransferPlan(keep=0.25), START, HORIZON)
    assert again.mean() == pytest.approx(find(table, "own text", "window", 0.25)["part"], rel=0.02)


def test_the_findings_are_true(table):
    def row(source, scorer="window", kind="all"):
        return find(table, source, scorer, 0.25, kind)

    sessions = row("sessions")
    # Text drifts several times less than sessions, whether it stands in them or alone.
    assert row("own text")["part_high"] < sessions["part_low"] / 3
    assert row("held-out text")["part_high"] < sessions["part_low"] / 1.5
    assert row("sessions", kind="text")["kl"] < 0.3 * sessions["part"]
    assert row("sessions", kind="text")["share"] > 0.8
    assert row("sessions", kind="text")["part"] < 0.25 * sessions["part"]
    asked = sum(row("sessions", kind=kind)["part"] for kind in ("question", "answer"))
    assert asked > row("sessions", kind="statement")["part"] > row("sessions", kind="text")["part"]
    assert row("sessions", kind="answer")["kl"] > 2.0
    for source in SOURCES:
        for scorer in SCORERS:
            parts = [find(table, source, scorer, keep)["part"] for keep in KEEPS]
            assert parts == sorted(parts), "drift grows as less is kept"
