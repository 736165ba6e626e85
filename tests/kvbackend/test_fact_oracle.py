"""The oracle keeps the facts: its marks against the text, its order by hand, and what it sends."""

import re
from dataclasses import replace

import numpy as np
import pytest

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.embedded.scripts import script_bank
from kvroam.kvbackend.embedded.tokenizer import load_tokenizer
from kvroam.kvbackend.scorers.fact_oracle import FactOracle, oracle_scores
from kvroam.kvbackend.settings import KVSettings
from kvroam.kvbackend.sweep.measure import sweep

CONTEXT = 400


@pytest.fixture(scope="module")
def scripts():
    return script_bank(4, 560, 5, "pending")


@pytest.fixture(scope="module")
def embedded():
    return KVBackend.load(device="cpu")


def statements(script, tokenizer):
    """Key -> positions of `=` and value in its statement, read from the decoded text."""
    pieces = [tokenizer.decode([int(t)], skip_special_tokens=False) for t in script.tokens]
    starts = np.cumsum([0, *map(len, pieces)])
    found = {}
    for match in re.finditer(r"<fact>([a-z_]+)(=[0-9]{4})\n", "".join(pieces)):
        found[match[1]] = np.flatnonzero((starts[:-1] >= match.start(2)) & (starts[:-1] < match.end(2)))
    return found


def test_scripts_mark_separator_and_value_of_each_fact_and_its_answers(scripts):
    tokenizer = load_tokenizer()
    for script in scripts:
        stated = statements(script, tokenizer)
        assert len(stated) > 8
        marked = np.flatnonzero((script.fact >= 0) & (script.answer == 0))
        assert marked.tolist() == sorted(np.concatenate(list(stated.values())).tolist())
        for at in stated.values():
            (number,) = set(script.fact[at].tolist())
            answers = np.flatnonzero((script.fact == number) & (script.answer > 0))
            assert np.array_equal(np.resize(script.tokens[at[1:]], len(answers)), script.tokens[answers])
        assert np.array_equal(script.fact[script.answer > 0] >= 0, np.ones((script.answer > 0).sum(), bool))


def test_facts_asked_soonest_come_first_then_other_facts_then_the_newest_tokens():
    #               0   1  2   3  4   5  6   7 | 8  9 10 11
    fact = np.array([-1, 0, -1, 1, -1, 2, 0, -1, -1, 2, -1, 0])
    answer = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1])
    order = np.argsort(-oracle_scores(fact, answer, 8))
    assert order.tolist() == [5, 1, 3, 7, 6, 4, 2, 0]


def test_what_is_sent_is_the_facts_beside_the_guarded_tokens(embedded, scripts):
    tokenizer = load_tokenizer()
    references = embedded.references(scripts)
    before = embedded.settings
    try:
        embedded.settings = replace(before, scorer=FactOracle(references, scripts), scope="sequence", sinks=2, recent=3)
        for script, reference in zip(scripts, references, strict=True):
            facts = {int(i) for at in statements(script, tokenizer).values() for i in at if i < CONTEXT}
            guarded = {0, 1, CONTEXT - 3, CONTEXT - 2, CONTEXT - 1}
            session = embedded.open(reference, CONTEXT)
            embedded.migrate([session], [TransferPlan(budget_tokens=len(facts | guarded))])
            assert set(session.positions.tolist()) == facts | guarded
            embedded.close(session)
    finally:
        embedded.settings = before


def test_the_oracle_answers_where_the_window_has_forgotten(embedded, scripts):
    references = embedded.references(scripts)
    points = sweep(embedded, references, CONTEXT, 160, ["window", "oracle", "oracle@head"], [0.15], scripts=scripts)
    window, oracle, per_head = points
    assert [point.scorer for point in (window, oracle, per_head)] == ["window", "oracle", "oracle@head"]
    assert window.recall < 0.6 and oracle.recall > 0.95
    assert per_head.recall == oracle.recall and per_head.bytes > oracle.bytes


def test_a_script_that_does_not_tell_its_facts_is_refused(embedded, scripts):
    references = embedded.references(scripts[:1])
    with pytest.raises(ConfigError, match="a plain text does not tell"):
        list(sweep(embedded, references, 100, 20, ["oracle"]))
    with pytest.raises(ConfigError, match="a plain text does not tell"):
        FactOracle(references, [scripts[0].tokens])
    other = embedded.open(embedded.references(scripts[1:2])[0], 100)
    embedded_settings = embedded.settings
    try:
        embedded.settings = replace(embedded_settings, scorer=FactOracle(references, scripts[:1]))
        with pytest.raises(ConfigError, match="does not know this script"):
            embedded.encode(other, TransferPlan(keep=0.5))
    finally:
        embedded.settings = embedded_settings
        embedded.close(other)


def test_the_oracle_is_no_setting_of_its_own():
    with pytest.raises(ConfigError, match="'oracle' does not exist"):
        KVSettings(scorer="oracle")
