"""What trains the embedded model: rows of every kind, exams that know their answers, runs that repeat and resume."""

import dataclasses
import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kvroam.errors import ModelError
from kvroam.kvbackend.embedded import (
    load_model,
    load_texts,
)
from kvroam.kvbackend.embedded.keys import KeyBook
from kvroam.kvbackend.embedded.manifest import ASSETS, read_manifest
from kvroam.kvbackend.embedded.tokenizer import VOCABULARY
from kvroam.kvbackend.embedded.training import publish as publish_module
from kvroam.kvbackend.embedded.training import train
from kvroam.kvbackend.embedded.training.corpus import read_corpus
from kvroam.kvbackend.embedded.training.drills import block_row, generic_row, half_row, periodic, table_row
from kvroam.kvbackend.embedded.training.exams import Recall, bits_per_byte, induction, recall, tables
from kvroam.kvbackend.embedded.training.lessons import SessionMix, exam_row, key_words, session_row, text_row
from kvroam.kvbackend.embedded.training.phases import PHASES, batch
from kvroam.kvbackend.embedded.training.publish import publish
from kvroam.kvbackend.embedded.words import NOUNS, SUFFIXES, held_out

from .test_embedded import QUESTION, UNSEEN


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


# Training rows


@pytest.fixture(scope="module")
def book(tokenizer):
    return KeyBook.from_tokenizer(tokenizer, key_words([UNSEEN]))


@pytest.fixture(scope="module")
def stream():
    return load_texts()[:8].reshape(-1).astype(np.int64)


def test_sessions_supervise_stated_values_of_seen_keys_only(tokenizer, book, stream):
    rng = np.random.default_rng(5)
    unseen = {f"{n}_{s}" for i, n in enumerate(NOUNS) for j, s in enumerate(SUFFIXES) if held_out(i, j)}
    assert 0.08 < len(unseen) / (len(NOUNS) * len(SUFFIXES)) < 0.12
    answers = 0
    for _ in range(20):
        tokens, weight = session_row(rng, book, stream, 512, SessionMix(text_weight=0.0, free=0.3))
        assert tokens.shape == weight.shape == (513,)
        text = tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        stated = dict(re.findall(r"<fact>([a-z_]+)=([0-9]{4})\n", text))
        assert not unseen & set(stated)
        asked = QUESTION.findall(text)
        assert all(stated[key] == value for key, value in asked)
        assert 2 * len(asked) <= (weight == 2.0).sum() <= 2 * len(asked) + 2
        answers += len(asked)
    assert answers > 200


def test_exams_ask_each_fact_once_at_the_end(tokenizer, book, stream):
    rng = np.random.default_rng(6)
    tokens, spots = exam_row(rng, book, stream, 512, book.draw(rng, 12, unseen=True), 8)
    assert tokens.shape == (512,)
    text = tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
    stated = dict(re.findall(r"<fact>([a-z_]+)=([0-9]{4})\n", text))
    asked = QUESTION.findall(text)
    assert len(stated) == 12 and len(dict(asked)) == 8
    assert [tokenizer.decode(tokens[s : s + 2].tolist()) for s in spots] == [stated[key] for key, _ in asked]


def test_free_keys_are_distinct_and_shared_keys_share_a_word(book):
    rng = np.random.default_rng(7)
    free = book.draw(rng, 40, free=1.0)
    assert len(set(free)) == 40 and any(len(key) > 2 for key in free)
    shared = book.draw(rng, 12, shared=1.0)
    assert all(any({a, b} & set(other) for other in shared[:i]) for i, (a, b) in enumerate(shared) if i)


def test_drills_supervise_only_what_the_row_has_shown_before():
    rng = np.random.default_rng(8)
    tokens, weight = periodic(rng, 64, 10)
    assert np.array_equal(tokens[10:], tokens[:-10]) and not weight[:11].any() and weight[11:].all()
    tokens, weight = table_row(rng, 64)
    known = dict(zip(tokens[0::2].tolist(), tokens[1::2].tolist(), strict=False))
    supervised = np.flatnonzero(weight)
    assert len(supervised) > 10 and all(known[tokens[i - 1]] == tokens[i] for i in supervised)
    for row in (block_row(rng, 128), generic_row(rng, 128), text_row(rng, np.arange(6, 2000), 128)):
        assert row[0].shape == row[1].shape == (129,) and row[1][0] == 0 and row[1].sum() > 0


def test_the_last_phase_copies_blocks_of_a_quarter_to_half_of_a_row():
    rng = np.random.default_rng(9)
    for length in (128, 1024):
        periods = [int(np.flatnonzero(half_row(rng, length)[1])[0]) - 1 for _ in range(60)]
        assert length // 4 <= min(periods) < 0.28 * length and 0.47 * length < max(periods) <= length // 2
    rows = [half_row(rng, 128) for _ in range(60)]
    assert min(len(set(tokens.tolist())) for tokens, _ in rows) > 20
    assert PHASES[-1].blocks is half_row and all(phase.blocks is block_row for phase in PHASES[:-1])


def test_batches_hold_the_mix_of_their_phase(book, stream):
    for i, phase in enumerate(PHASES):
        tokens, weight = batch(phase, 0, np.random.default_rng(i), book, stream)
        assert tokens.shape == weight.shape == (phase.shapes[0][0], phase.shapes[0][1] + 1)
        again, _ = batch(phase, 0, np.random.default_rng(i), book, stream)
        assert np.array_equal(tokens, again)
    plain = [weight.all() for weight in batch(PHASES[3], 0, np.random.default_rng(1), book, stream)[1][:, 1:]]
    assert sum(plain) == 5


class Cheat:
    """A stand-in that predicts the row's own next token plus `shift`, whatever came before."""

    def __init__(self, shift):
        self.shift = shift

    def __call__(self, input_ids, use_cache):
        following = (torch.roll(input_ids, -1, dims=1) + self.shift) % VOCABULARY
        return SimpleNamespace(logits=torch.nn.functional.one_hot(following, VOCABULARY).float() * 50)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 0.0)])
def test_exams_look_at_the_answers(book, stream, shift, expected):
    cheat = Cheat(shift)
    for exam in (Recall(128, 4, 4), Recall(512, 12, free=0.5), Recall(512, 12, shared=1.0)):
        assert recall(cheat, book, stream, exam, 16, 1).value == expected
    assert induction(cheat, 16, 64, 4, 1).value == expected
    assert tables(cheat, 4, 1) == expected
    bits = bits_per_byte(cheat, [stream[:600].tolist()], [2400], 9).value
    assert bits == pytest.approx(0.0 if shift == 0 else 50 / math.log(2) / 4, abs=1e-3)


# Training


@pytest.fixture
def short_course(monkeypatch, tmp_path, tokenizer):
    """Two phases of two steps on a little text, with the shipped tokenizer."""
    texts = [tokenizer.decode(row.tolist()) for row in load_texts()[:3]]
    few = [dataclasses.replace(phase, steps=2, shapes=((2, 64),)) for phase in PHASES[:2]]
    monkeypatch.setattr(train, "PHASES", few)
    monkeypatch.setattr(train, "GATES", {})
    monkeypatch.setattr(train, "read_corpus", lambda: (texts[:2], texts[2:]))
    monkeypatch.setattr(train, "examine", lambda *_: {"tables": 0.5})

    def run(name, *args):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        shutil.copyfile(ASSETS / "tokenizer.json", out / "tokenizer.json")
        return train.command.main(["--out", str(out), "--seed", "3", *args]), out

    return run


def test_training_repeats_and_resumes_exactly(short_course):
    code, whole = short_course("whole")
    assert code == 0
    weights = (whole / "model.safetensors").read_bytes()
    assert short_course("half", "--last", "A")[0] == 0
    code, resumed = short_course("half", "--resume")
    assert code == 0 and (resumed / "model.safetensors").read_bytes() == weights
    log = json.loads((resumed / "training_log.json").read_text())
    assert [entry.get("phase") for entry in log["log"]] == [None, "A", "B"]
    assert (whole / "phase_A.safetensors").read_bytes() != (whole / "phase_B.safetensors").read_bytes()


def test_a_training_can_be_published_and_loaded(short_course, tmp_path):
    _, run = short_course("whole")
    publish(run, tmp_path / "shipped")
    model, _ = load_model(folder=tmp_path / "shipped")
    trained = load_file(run / "phase_B.safetensors")
    assert trained and all(torch.equal(model.state_dict()[k], v.half().float()) for k, v in trained.items())
    assert read_manifest(tmp_path / "shipped")["made"]["seed"] == 3
    with pytest.raises(ModelError, match="train into it first"):
        publish(tmp_path / "nothing", tmp_path / "shipped")


def test_publishing_samples_the_texts_and_then_reports(short_course, tmp_path, monkeypatch, capsys):
    _, run = short_course("whole")
    said = []
    monkeypatch.setattr(publish_module.sample, "command", lambda arguments: said.append(("sample", arguments)))
    monkeypatch.setattr(publish_module.report, "command", lambda arguments: said.append(("report", arguments)))
    target = ["--folder", str(tmp_path / "shipped")]
    assert publish_module.command.main(["--run", str(run), *target, "--quick"]) == 0
    assert said == [("sample", target), ("report", [*target, "--quick"])]
    (tmp_path / "file").touch()
    assert publish_module.command.main(["--run", str(run), "--folder", str(tmp_path / "file" / "shipped")]) == 2
    assert "cannot be made" in capsys.readouterr().err and len(said) == 2


def test_a_missed_gate_ends_the_training_with_one_line(short_course, monkeypatch, capsys):
    monkeypatch.setattr(train, "GATES", {"A": {"tables": 0.9}})
    code, out = short_course("missed")
    assert code == 2
    assert capsys.readouterr().err == (
        "python -m kvroam.kvbackend.embedded.training.train: "
        "phase A: tables is 0.500, at least 0.9 is needed; train again with another --seed than 3\n"
    )
    assert json.loads((out / "training_log.json").read_text())["log"][-1]["tables"] == 0.5


def test_the_loss_is_the_weighted_mean_over_supervised_tokens(model):
    rng = np.random.default_rng(10)
    tokens, weights = (np.stack(part) for part in zip(*(table_row(rng, 48) for _ in range(3)), strict=True))
    weights *= rng.choice([0.5, 2.0], size=weights.shape)
    with torch.inference_mode():
        found = float(train.weighted_loss(model, torch.from_numpy(tokens), torch.from_numpy(weights)))
        log_p = model(input_ids=torch.from_numpy(tokens)).logits.double().log_softmax(-1).numpy()
    terms = [
        (weights[row, i], -log_p[row, i - 1, tokens[row, i]])
        for row in range(3)
        for i in range(1, 49)
        if weights[row, i]
    ]
    assert found == pytest.approx(sum(w * x for w, x in terms) / sum(w for w, _ in terms), rel=0.03)


# Corpus


def test_the_corpus_leaves_out_tests_packages_and_non_ascii_text(tmp_path):
    for i in range(60):
        (tmp_path / f"m{i:02d}.py").write_text(f"x = {i}\n")
    for name in ("test/a.py", "site-packages/b.py", "sub/test_c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no = 1\n")
    (tmp_path / "z.py").write_text("é = 1\n", encoding="utf-8")
    (tmp_path / "z.md").write_text("no")
    train, held = read_corpus(tmp_path)
    assert held == ["x = 29\n", "x = 59\n"]
    assert train == [f"x = {i}\n" for i in range(60) if i not in (29, 59)]
    with pytest.raises(ModelError, match="at least 30 are needed"):
        read_corpus(tmp_path / "sub")
