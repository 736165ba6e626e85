"""The table of what pruning does: its cases against the text, one line by hand, and the page's findings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.embedded.scripts import SITUATIONS, Script, script_bank
from kvroam.kvbackend.embedded.tokenizer import load_tokenizer
from kvroam.kvbackend.embedded.training import pruning
from kvroam.kvbackend.embedded.training.cases import judged_at, moment
from kvroam.kvbackend.embedded.training.gates import greatest_rise
from kvroam.kvbackend.embedded.training.pruning_page import draw, equal, find, page, read_csv

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def table():
    return read_csv(DOCS / "pruning.csv")


@pytest.fixture(scope="module")
def backend():
    return KVBackend.load(device="cpu")


# Cases


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_handover_meets_its_situation(situation):
    tokenizer = load_tokenizer()
    for script in script_bank(6, 896, 3, situation):
        at = moment(script, situation, 448)
        before = tokenizer.decode(script.tokens[:at].tolist(), skip_special_tokens=False)
        after = tokenizer.decode(script.tokens[at:].tolist(), skip_special_tokens=False)
        assert 448 <= at < 700
        if situation == "pending":
            assert re.search(r"<ask>[a-z_]+=$", before)
            assert not re.match(r"[0-9]{4}\n", after) and not after.startswith("<ask>")
        elif situation == "answered":
            assert re.search(r"<ask>[a-z_]+=[0-9]{4}\n$", before) and not after.startswith("<ask>")
        elif situation == "adverse":
            assert after.startswith("<ask>")
            assert not {2, 3} & set(script.tokens[at - 40 : at].tolist()), "40 tokens without fact or question"
        else:
            assert at == 448


@pytest.mark.parametrize("situation", SITUATIONS)
def test_judged_answers_can_be_read_from_before_the_handover_only(situation):
    tokenizer = load_tokenizer()
    kinds = {1: 0, 2: 0}
    for script in script_bank(6, 896, 4, situation):
        at = moment(script, situation, 448)
        case = judged_at(script, at)
        assert np.array_equal(case.tokens, script.tokens) and np.array_equal(case.answer[:at], script.answer[:at])
        pieces = [tokenizer.decode([int(t)], skip_special_tokens=False) for t in script.tokens]
        starts = np.cumsum([0, *map(len, pieces)])
        text, cut = "".join(pieces), starts[at]
        stated = set(re.findall(r"<fact>([a-z_]+)=[0-9]{4}\n", text[:cut]))
        recent = set(re.findall(r"<ask>([a-z_]+)=", text[starts[at - 128] : cut]))
        expected, said = np.zeros(len(pieces), int), set()
        for found in re.finditer(r"<ask>([a-z_]+)=([0-9]{4})\n", text[cut:]):
            first = int(np.searchsorted(starts, cut + found.start(2)))
            if found[1] in stated and found[1] not in said:
                kind = 1 if found[1] in recent else 2
                expected[first : first + 2] = kind
                kinds[kind] += 1
            said.add(found[1])
        assert np.array_equal(case.answer[at:], expected[at:])
    assert min(kinds.values()) > 0


def test_a_fact_that_was_asked_about_long_ago_is_cold():
    fact, question = [2, 50, 60, 33, 70, 71, 9], [3, 50, 60, 33, 70, 71, 9]
    for gap, kind in ((100, 1), (150, 2)):
        tokens = np.array([1, *fact, *question, *[40] * gap, *question])
        answer, query, number = (np.full(len(tokens), x) for x in (0, -1, -1))
        number[4:7] = 0
        for name, at in enumerate((12, len(tokens) - 3)):
            answer[at : at + 2], query[at : at + 2], number[at : at + 2] = 1, name, 0
        context = 15 + gap
        case = judged_at(Script(tokens, answer, query, number), context)
        assert case.answer[context:].tolist() == [0, 0, 0, 0, kind, kind, 0]


def test_a_situation_that_never_comes_is_an_error():
    (script,) = script_bank(1, 200, 1, "text")
    with pytest.raises(ConfigError, match="no pending moment after token 190"):
        moment(script, "pending", 190)
    with pytest.raises(ConfigError, match="'sunny' is unknown"):
        moment(script, "sunny", 10)


# The table


def test_a_line_equals_handovers_one_by_one(backend):
    bench = pruning.Bench(backend, "adverse", 3, 8)
    found = bench.row("streaming", "int8", 0.5)
    settings = backend.settings
    try:
        backend.settings = type(settings)(scorer="streaming", scope="sequence")
        size, kl, hits, total = [], [], 0, 0
        for reference, context in zip(bench.references, bench.contexts, strict=True):
            session = backend.open(reference, context)
            size.append(backend.migrate([session], [TransferPlan(keep=0.5, bits=8)])[0].payload_bytes)
            drift = backend.advance([session], [160])
            kl.append(drift.kl[0] / 160)
            hits, total = hits + drift.cold_hits[0], total + drift.cold_total[0]
            backend.close(session)
    finally:
        backend.settings = settings
    assert found["bytes"] == pytest.approx(np.mean(size), abs=0.06) and found["keep"] == 0.5
    assert found["kl"] == pytest.approx(np.mean(kl), abs=1e-3)
    assert (found["cold"], found["cold_count"]) == (round(hits / total, 4), total)


def test_a_budget_in_bytes_is_used_up_and_not_exceeded(backend):
    bench = pruning.Bench(backend, "pending", 2, 8)
    row = bench.row("window", "int4", 1.0, "int2")
    assert 0.97 * bench.sizes["int2"].mean() < row["bytes"] <= bench.sizes["int2"].mean() + 0.1
    assert 0.5 < row["keep"] < 0.7
    assert bench.row("window", "int2", 1.0, "int2")["keep"] == 1.0


def test_the_command_writes_table_figure_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pruning, "SCORERS", ("window",))
    monkeypatch.setattr(pruning, "HEADWISE", ())
    monkeypatch.setattr(pruning, "BUDGETS", {})
    monkeypatch.setattr(pruning, "KEEPS", (1.0, 0.25))
    monkeypatch.setattr(pruning, "SITUATIONS", ("pending", "text"))
    monkeypatch.setattr(pruning, "page", lambda rows: json.dumps(rows))
    arguments = ["--out", str(tmp_path), "--scripts", "2", "--quiet"]
    assert pruning.command.main(arguments) == 0
    rows = read_csv(tmp_path / "pruning.csv")
    assert [(r["situation"], r["scorer"], r["keep"]) for r in rows] == [
        (s, n, k) for s in ("pending", "text") for n in ("window", "oracle") for k in (1.0, 0.25)
    ]
    assert all((row["kl"] == 0.0) == (row["keep"] == 1.0) for row in rows)
    assert json.loads((tmp_path / "pruning.md").read_text(encoding="utf-8")) == rows
    assert (tmp_path / "pruning.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "pruning.csv").read_bytes()
    assert pruning.command.main([*arguments, "--measured"]) == 0
    assert (tmp_path / "pruning.csv").read_bytes() == before
    assert pruning.command.main(["--out", str(tmp_path), "--scripts", "0"]) == 2
    assert pruning.command.main(["--out", str(tmp_path / "absent"), "--measured"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


# The page


def test_the_page_is_that_of_the_table(table, tmp_path):
    assert (DOCS / "pruning.md").read_text(encoding="utf-8") == page(table)
    draw(table, tmp_path / "pruning.png")
    assert (tmp_path / "pruning.png").stat().st_size > 10_000


def test_the_table_is_complete(table):
    keys = [
        (r["situation"], r["budget"], r["scorer"], r["precision"], r["keep"] if not r["budget"] else 0) for r in table
    ]
    assert len(set(keys)) == len(keys)
    scorers = [*pruning.SCORERS, *pruning.HEADWISE, "oracle"]
    for situation in SITUATIONS:
        for scorer in scorers:
            for keep in (1.0, 0.75, 0.5, 0.25, 0.1, 0.05):
                row = find(table, situation, scorer, keep)
                for kind in ("kl", "top1", "hot", "cold"):
                    assert row[f"{kind}_low"] <= row[kind] <= row[f"{kind}_high"]
        for budget, precisions in pruning.BUDGETS.items():
            for scorer in pruning.EQUAL_SCORERS:
                sizes = [equal(table, situation, budget, scorer, precision)["bytes"] for precision in precisions]
                assert max(sizes) < 1.05 * min(sizes)


def test_a_line_of_the_shipped_table_is_measured_again(table, backend):
    again = pruning.Bench(backend, "pending", 40, 2028).row("window", "fp16", 0.1)
    shipped = find(table, "pending", "window", 0.1)
    assert (again["hot_count"], again["cold_count"]) == (shipped["hot_count"], shipped["cold_count"])
    assert again["bytes"] == shipped["bytes"]
    # Another processor rounds otherwise, which may turn single answers.
    assert again["kl"] == pytest.approx(shipped["kl"], rel=0.01)
    assert again["hot"] == pytest.approx(shipped["hot"], abs=0.03)


def test_recall_does_not_rise_when_the_cache_is_pruned(table):
    for situation in SITUATIONS:
        for scorer in [*pruning.SCORERS, *pruning.HEADWISE, "oracle"]:
            rows = [r for r in table if (r["situation"], r["scorer"], r["budget"]) == (situation, scorer, "")]
            assert len(rows) == 6
            assert greatest_rise(rows) <= 0.0, (situation, scorer)


def test_the_findings_are_true(table):
    def value(situation, scorer, keep, kind="hot"):
        return find(table, situation, scorer, keep)[kind]

    def low(situation, scorer, keep, kind="hot"):
        return find(table, situation, scorer, keep)[f"{kind}_low"]

    def high(situation, scorer, keep, kind="hot"):
        return find(table, situation, scorer, keep)[f"{kind}_high"]

    fair = [*pruning.SCORERS, *pruning.HEADWISE]
    asked = ("pending", "answered", "adverse")
    for situation in asked:
        for kind in ("hot", "cold"):
            assert value(situation, "oracle", 0.1, kind) >= 0.9
            assert all(
                value(situation, "oracle", 0.1, kind) >= value(situation, name, 0.1, kind) - 0.05 for name in fair
            )
    # What a repetition looks at is what will be needed; the oracle knows nothing of the text.
    old = [name for name in fair if not name.startswith(("reconstruction", "expected-attention"))]
    for situation in SITUATIONS:
        assert all(value(situation, name, 0.25, "cold") < 0.5 for name in old)
        for name in ("reconstruction", "reconstruction@head"):
            assert low(situation, name, 0.25, "cold") > max(high(situation, other, 0.25, "cold") for other in old)
            assert high(situation, name, 0.25, "kl") < 0.5 * low(situation, "window", 0.25, "kl")
            assert value(situation, name, 0.25, "kl") < value(situation, "oracle", 0.25, "kl")
    for situation, least in (("pending", 0.9), ("answered", 0.9), ("adverse", 0.8)):
        assert value(situation, "reconstruction", 0.25, "cold") >= least
    # At a tenth the window keeps more of the open questions, and nothing cold.
    assert value("pending", "window", 0.1) > value("pending", "reconstruction", 0.1)
    assert value("pending", "window", 0.1, "cold") == 0.0 < low("pending", "reconstruction", 0.1, "cold")
    # Lists per head below a quarter.
    for situation in asked:
        one, each = ("reconstruction", "reconstruction@head")
        assert high(situation, each, 0.1, "kl") < low(situation, one, 0.1, "kl")
        assert abs(value(situation, each, 0.1, "cold") - value(situation, one, 0.1, "cold")) < 0.1
    # Expected attention lies in between.
    for situation in asked:
        found = value(situation, "expected-attention", 0.5, "cold")
        assert value(situation, "window", 0.5, "cold") + 0.3 < found < value(situation, "reconstruction", 0.5, "cold")
    # Open questions protect their facts; pooling decides.
    for name in ("streaming", "random", "window-raw"):
        assert low("pending", "window", 0.25) > high("pending", name, 0.25)
    # Recent answers need no attention.
    assert abs(value("answered", "streaming", 0.1) - value("answered", "window", 0.1)) < 0.15
    assert low("answered", "streaming", 0.1) > high("answered", "random", 0.1)
    # A window that sees only text forgets worse than chance; a long budget reaches back, a short one does not.
    assert high("adverse", "window", 0.25) < low("adverse", "random", 0.25)
    assert high("adverse", "window", 0.25) < low("adverse", "attention-sum-raw", 0.25)
    assert low("adverse", "streaming", 0.25) > 0.8 and high("adverse", "streaming", 0.1) < 0.2
    # With lists per head the window is worse still.
    assert high("adverse", "window@head", 0.75) < low("adverse", "window", 0.75)
    # Quantise first, down to 4 bits; then prune.
    for situation in asked:
        for name in ("window", "reconstruction"):
            whole, pruned = (equal(table, situation, "int4", name, p) for p in ("int4", "fp16"))
            assert whole["keep"] == 1.0 and whole["kl_high"] < pruned["kl_low"]
        for budget in ("int2", "int2/2"):
            fp16, int4, int2 = (equal(table, situation, budget, "reconstruction", p) for p in ("fp16", "int4", "int2"))
            assert int4["kl_high"] < min(int2["kl_low"], fp16["kl_low"])
        assert equal(table, situation, "int2/2", "reconstruction", "int4")["bytes"] < 27_000
        assert int4["hot"] > 0.9 and int4["cold"] > 0.9
