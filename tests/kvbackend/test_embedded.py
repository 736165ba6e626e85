"""The shipped model: checksums, what it reads and recalls, and its scripts."""

import hashlib
import math
import re

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError, ModelError
from kvroam.kvbackend.embedded import (
    MAX_TOKENS,
    load_model,
    load_texts,
    make_script,
    script_bank,
)
from kvroam.kvbackend.embedded.manifest import ASSETS, read_manifest
from kvroam.kvbackend.embedded.scripts import SITUATIONS
from kvroam.kvbackend.embedded.tokenizer import SPECIALS, VOCABULARY
from kvroam.kvbackend.embedded.training.exams import bits_per_byte, greedy
from kvroam.kvbackend.embedded.training.report import drift_table
from kvroam.kvbackend.embedded.training.sample import LoopGuard, sample_texts
from kvroam.kvbackend.embedded.training.vocabulary import check_words
from kvroam.kvbackend.embedded.words import NOUNS, SUFFIXES

# The report says .996 and .990 for the shipped weights; 128 questions are asked here.
RECALL_512 = 0.97
RECALL_1024 = 0.95
# Changes with the weights (their texts), the tokenizer or the script writer, and with nothing else.
BANK_SHA256 = "d5bcd5f155a44d13490a5bc8e784ab1495fd8c9036b4c336d5fedde3dc581b4b"
QUESTION = re.compile(r"<ask>([a-z_]+)=(?=([0-9]{4})\n)")


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


@pytest.fixture(scope="module")
def bank():
    return script_bank(24, MAX_TOKENS, 7)


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
