"""The shipped model: checksums, what it reads and recalls, its scripts, and the rows it was trained on."""

import dataclasses
import hashlib
import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kvroam.errors import ConfigError, ModelError
from kvroam.kvbackend.embedded import (
    MAX_TOKENS,
    load_model,
    load_texts,
    load_tokenizer,
    make_script,
    script_bank,
)
from kvroam.kvbackend.embedded.keys import KeyBook
from kvroam.kvbackend.embedded.manifest import ASSETS, read_manifest
from kvroam.kvbackend.embedded.scripts import SITUATIONS
from kvroam.kvbackend.embedded.tokenizer import SPECIALS, VOCABULARY
from kvroam.kvbackend.embedded.training import train
from kvroam.kvbackend.embedded.training.corpus import read_corpus
from kvroam.kvbackend.embedded.training.drills import block_row, generic_row, half_row, periodic, table_row
from kvroam.kvbackend.embedded.training.exams import Recall, bits_per_byte, greedy, induction, recall, tables
from kvroam.kvbackend.embedded.training.lessons import SessionMix, exam_row, key_words, session_row, text_row
from kvroam.kvbackend.embedded.training.phases import PHASES, batch
from kvroam.kvbackend.embedded.training.publish import publish
from kvroam.kvbackend.embedded.training.report import drift_table
from kvroam.kvbackend.embedded.training.sample import LoopGuard, sample_texts
from kvroam.kvbackend.embedded.training.vocabulary import check_words
from kvroam.kvbackend.embedded.words import NOUNS, SUFFIXES, held_out

# The report says .996 and .990 for the shipped weights; 128 questions are asked here.
RECALL_512 = 0.97
RECALL_1024 = 0.95
# Changes with the weights (their texts), the tokenizer or the script writer, and with nothing else.
BANK_SHA256 = "d5bcd5f155a44d13490a5bc8e784ab1495fd8c9036b4c336d5fedde3dc581b4b"
QUESTION = re.compile(r"<ask>([a-z_]+)=(?=([0-9]{4})\n)")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded():
    return load_model()


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def bank():
    return script_bank(24, MAX_TOKENS, 7)


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "assets"
    shutil.copytree(ASSETS, folder)
    return folder


# Files


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_an_altered_file_is_refused(copied, name):
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{name} has sha256 .*reinstall") as caught:
        load_model(folder=copied)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_refused(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is absent"):
        load_model(folder=copied)


def test_a_broken_manifest_is_refused(copied):
    (copied / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest\.json cannot be read"):
        load_model(folder=copied)


def test_altered_texts_are_refused(copied):
    (copied / "texts.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"texts.npz has sha256"):
        load_texts(copied)


def test_every_shipped_file_is_listed_and_small():
    files = read_manifest(ASSETS)["files"]
    present = {path.name: path for path in ASSETS.iterdir() if path.name != "manifest.json"}
    assert set(files) == set(present)
    for name, path in present.items():
        assert files[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 4_000_000


def test_loading_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    model, tokenizer = load_model(dtype=torch.bfloat16)
    assert torch.equal(before, torch.random.get_rng_state())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert len(tokenizer) == VOCABULARY == model.config.vocab_size
    assert model.config.max_position_embeddings == MAX_TOKENS


# Language


def test_a_fact_costs_seven_tokens(tokenizer):
    check_words(tokenizer)
    tokens = tokenizer.encode("<fact>door_code=4821\n").tokens
    assert tokens[:6] == ["<fact>", "door", "_code", "=", "48", "21"] and len(tokens) == 7


def test_tokens_decode_to_the_text_they_came_from(tokenizer):
    text = "def area(self, w_1: int) -> float:\n    return 3.14159 * w_1 ** 2  # say \"ok\"\n\n\tx = [0x1F, '~']\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


UNSEEN = '''
class ShoppingList:
    """A list of things to buy, in the order in which they were added."""

    def __init__(self, owner, items=()):
        self.owner = owner
        self.items = list(items)

    def add(self, name, count=1):
        """Add an item to the list. If the count is not positive, raise an error."""
        if count <= 0:
            raise ValueError("count must be positive, not %r" % count)
        self.items.append((name, count))

    def remove(self, name):
        for i, (item, count) in enumerate(self.items):
            if item == name:
                del self.items[i]
                return True
        return False

    def __len__(self):
        return len(self.items)
'''


def test_the_model_reads_text_far_better_than_chance(model, tokenizer):
    ids = tokenizer.encode(UNSEEN).ids
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    nats = -logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum().item()
    uniform = math.log2(VOCABULARY) * len(ids) / len(UNSEEN)
    assert nats / math.log(2) / len(UNSEEN) < 0.55 * uniform
    assert bits_per_byte(model, [ids], [len(UNSEEN)], 1, len(ids)).value == pytest.approx(
        nats / math.log(2) / (len(ids) - 1) * len(ids) / len(UNSEEN), rel=1e-4
    )


def conversation(rng, tokenizer, filler, length, facts, queries):
    """A recall exam written as a string, independent of the training code; returns ids and where answers start."""
    names = rng.permutation(len(NOUNS) * len(SUFFIXES))[:facts]
    keys = [f"{NOUNS[i // len(SUFFIXES)]}_{SUFFIXES[i % len(SUFFIXES)]}" for i in names]
    values = [f"{v:04d}" for v in rng.integers(10000, size=facts)]
    asked = rng.permutation(facts)[:queries]
    tail = "".join(f"<ask>{keys[i]}={values[i]}\n" for i in asked)
    gap = (length - 1 - 7 * (facts + queries)) // facts
    head = [1]
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        head += filler[i * gap : (i + 1) * gap].tolist()
        head += tokenizer.encode(f"<fact>{key}={value}\n").ids
    ids = head + tokenizer.encode(tail).ids
    return ids, [len(head) + 7 * i + 4 for i in range(queries)]


@pytest.mark.parametrize(("length", "facts", "least"), [(512, 8, RECALL_512), (1000, 16, RECALL_1024)])
def test_facts_are_recalled_from_the_context(model, tokenizer, length, facts, least):
    rng = np.random.default_rng(11)
    texts = load_texts().astype(np.int64)
    right = []
    for i in range(16):
        ids, starts = conversation(rng, tokenizer, texts[i], length, facts, 8)
        guesses = greedy(model, np.asarray([ids]))[0]
        right += [all(guesses[s + k - 1] == ids[s + k] for k in (0, 1)) for s in starts]
    assert len(right) == 128
    assert np.mean(right) >= least


def test_a_repeated_random_block_is_copied(model):
    rng = np.random.default_rng(12)
    block = rng.integers(6, VOCABULARY, size=(16, 64))
    tokens = np.concatenate([block, block], axis=1)
    assert (greedy(model, tokens)[:, 64:-1] == tokens[:, 65:]).mean() >= 0.95


def test_texts_are_sampled_without_special_tokens_and_repeatably(model):
    texts = load_texts()
    assert texts.shape[0] >= 64 and texts.shape[1] >= 512
    assert len(SPECIALS) <= texts.min() and texts.max() < VOCABULARY
    drawn = [sample_texts(model, 3, 20, 0.8, seed) for seed in (4, 4, 5)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert drawn[0].min() >= len(SPECIALS)
    with pytest.raises(ModelError, match="choose a shorter document"):
        sample_texts(model, 1, MAX_TOKENS, 0.8, 1)


def test_texts_do_not_loop():
    for row in load_texts()[:20].tolist():
        fours = list(zip(row, row[1:], row[2:], row[3:], strict=False))
        assert len(set(fours)) == len(fours)
    guard = LoopGuard()
    for token in (7, 8, 9, 7):
        guard.add(token)
    assert guard.banned() == [8]
    for token in [*range(100, 140), 7, 8, 9]:
        guard.add(token)
    assert guard.banned() == [7]


# Scripts


def test_scripts_have_the_asked_length_and_known_ids(bank):
    for script in [*bank, make_script(np.random.default_rng(1), 64), make_script(np.random.default_rng(1), 333)]:
        assert script.tokens.dtype == np.int32 and script.answer.dtype == np.int8 and script.query.dtype == np.int16
        assert len(script.tokens) == len(script.answer) == len(script.query)
        assert script.tokens.min() >= 0 and script.tokens.max() < VOCABULARY
        assert np.array_equal(script.answer > 0, script.query >= 0)
    assert {len(script.tokens) for script in bank} == {MAX_TOKENS}


def test_scripts_depend_on_seed_and_index_only(bank):
    again = script_bank(2, MAX_TOKENS, 7)
    for a, b in zip(again, bank, strict=False):
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("tokens", "answer", "query"))
    assert not np.array_equal(script_bank(1, MAX_TOKENS, 8)[0].tokens, bank[0].tokens)


def test_scripts_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for script in script_bank(4, 512, 0):
        for array, kind in ((script.tokens, "<i4"), (script.answer, "<i1"), (script.query, "<i2")):
            digest.update(array.astype(kind).tobytes())
    assert digest.hexdigest() == BANK_SHA256


@pytest.mark.parametrize("situation", ["mixed", *SITUATIONS])
def test_answers_are_the_stated_values_and_hot_or_cold_by_their_history(tokenizer, situation):
    for script in script_bank(6, MAX_TOKENS, 9, situation):
        pieces = [tokenizer.decode([int(t)], skip_special_tokens=False) for t in script.tokens]
        starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
        text = "".join(pieces)
        index = {int(at): i for i, at in enumerate(starts[:-1])}
        stated, asked = {}, {}
        marked = np.zeros(len(pieces), bool)
        query = 0
        for found in re.finditer(r"<(fact|ask)>([a-z_]+)=(?:([0-9]{4})\n)?", text):
            kind, key, value = found.groups()
            if kind == "fact":
                if value is None:
                    assert found.end() >= len(text) - 8, "only the script's end cuts a statement"
                    continue
                assert key not in stated
                stated[key] = value
                continue
            at = index[found.start()]
            if value is not None:
                assert stated[key] == value
                first = index[found.start(3)]
                expected = 1 if key in asked else 2
                assert list(script.answer[first : first + 2]) == [expected] * 2
                assert list(script.query[first : first + 2]) == [query] * 2
                assert key not in asked or at - asked[key] <= 128
                marked[first : first + 2] = True
                query += 1
            asked[key] = index.get(found.end(), len(pieces))
        assert np.array_equal(marked, script.answer > 0)
        assert query == script.query.max() + 1


def test_every_position_is_followed_by_questions_about_what_came_before(tokenizer, bank):
    ask, fact = SPECIALS.index("<ask>"), SPECIALS.index("<fact>")
    covered = {1: [], 2: []}
    for script in bank:
        stated = {}
        for at in np.flatnonzero(script.tokens == fact):
            stated.setdefault(tuple(script.tokens[at + 1 : at + 3]), at)
        asks = [(at, tuple(script.tokens[at + 1 : at + 3])) for at in np.flatnonzero(script.tokens == ask)]
        for position in range(128, 720, 37):
            ahead = [(script.answer[at + 4], key) for at, key in asks if position <= at < position + 300 - 6]
            for kind in (1, 2):
                covered[kind].append(any(mark == kind and stated[key] < position for mark, key in ahead))
    assert np.mean(covered[1]) > 0.97 and np.mean(covered[2]) > 0.97


def test_the_whole_cache_answers_nearly_everything_on_scripts(model, bank):
    tokens = np.stack([script.tokens for script in bank[:12]]).astype(np.int64)
    guesses = greedy(model, tokens)
    right = []
    for i, script in enumerate(bank[:12]):
        for name in range(script.query.max() + 1):
            at = np.flatnonzero(script.query == name)
            right.append((guesses[i, at - 1] == tokens[i, at]).all())
    assert len(right) > 200
    assert np.mean(right) >= 0.97


def test_drift_grows_as_less_is_kept():
    rows = drift_table(ASSETS, "mixed", 4, 3)
    assert rows[0]["keep"] == 1.0 and rows[0]["kl"] == 0.0 and rows[0]["top1"] == 1.0
    assert [row["kl"] for row in rows] == sorted(row["kl"] for row in rows)
    assert rows[-1]["cold"] < 0.5 < rows[0]["cold"]
    assert rows[-1]["hot"] > rows[-1]["cold"]


def test_unusable_scripts_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="'sunny' is unknown; choose one of mixed, pending"):
        make_script(rng, 256, "sunny")
    with pytest.raises(ConfigError, match=r"2000 is outside 64\.\.1024"):
        make_script(rng, 2000)


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
        return train.main(["--out", str(out), "--seed", "3", *args]), out

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


def test_a_missed_gate_ends_the_training_with_one_line(short_course, monkeypatch, capsys):
    monkeypatch.setattr(train, "GATES", {"A": {"tables": 0.9}})
    code, out = short_course("missed")
    assert code == 2
    assert capsys.readouterr().err == (
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
