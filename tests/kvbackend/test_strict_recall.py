"""Which answers test what a lossy handover left, and which are wrong because of it, against brute force."""

import copy

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.drift import Marks
from kvroam.kvbackend.embedded.scripts import script_bank

from .conftest import VOCAB
from .masked_forward import masked_logits
from .plain import PLAIN

LOSSY = TransferPlan(keep=0.7, bits=32)


def is_strict(name: int, answer, query, fact, lost_at: int) -> bool:
    """Told before the handover, not told since, and all of the answer judged after it: said token by token."""
    own = [p for p in range(len(answer)) if answer[p] and query[p] == name]
    told = [p for p in range(own[0]) if fact[p] == fact[own[0]]]
    before = [p for p in told if p < lost_at]
    since = [p for p in told if p >= lost_at]
    judged_after = own[0] - 1 >= lost_at  # the row that predicts the first token has not been read at the handover
    return fact[own[0]] >= 0 and bool(before) and not since and judged_after


@pytest.mark.parametrize("situation", ["mixed", "pending", "answered", "adverse", "text"])
def test_strict_answers_of_real_scripts_are_those_of_the_definition(situation):
    found = 0
    for script in script_bank(3, 640, 5, situation):
        marks = Marks(script.answer, script.query, script.fact)
        for lost_at in range(1, 640, 7):
            for i, name in enumerate(marks.ids):
                expected = is_strict(name, script.answer, script.query, script.fact, lost_at)
                assert marks.strict(i, lost_at) == expected
                found += expected
    assert found > 100


def test_hand_made_case():
    """Fact 0 is told at 1 and 2 and answered at 5 and 6, and again at 9; fact 1 is never stated."""
    fact = np.array([-1, 0, 0, -1, -1, 0, 0, -1, 1, 0], np.int16)
    answer = np.array([0, 0, 0, 0, 0, 1, 1, 0, 2, 1], np.int8)
    query = np.array([-1, -1, -1, -1, -1, 0, 0, -1, 1, 2], np.int16)
    marks = Marks(answer, query, fact)
    first, unknown, second = marks.ids.index(0), marks.ids.index(1), marks.ids.index(2)
    assert [h for h in range(11) if marks.strict(first, h)] == [3, 4]
    assert [h for h in range(11) if marks.strict(second, h)] == [7, 8]
    assert not any(marks.strict(unknown, h) for h in range(11))
    assert not any(marks.strict(i, None) for i in (first, unknown, second))
    assert not any(Marks(answer, query).strict(i, 4) for i in range(4))


@pytest.fixture(scope="module")
def script(oracle_model):
    """Twelve facts of two tokens stated early; each is asked for twice, and the whole cache is right nearly always."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, VOCAB, 160)
    answer, query, fact = np.zeros(160, np.int8), np.full(160, -1, np.int16), np.full(160, -1, np.int16)
    for number in range(12):
        fact[4 + 4 * number : 6 + 4 * number] = number
    for name, number in enumerate([*range(6), *range(3, 9), *range(12)]):
        at = 60 + 4 * name
        answer[at : at + 2], query[at : at + 2], fact[at : at + 2] = 1 + name % 2, name, number
    for at in np.flatnonzero(answer):
        tokens[at] = masked_logits(oracle_model, tokens, [])[at - 1].argmax()
        if at in (85, 114):
            tokens[at] = (tokens[at] + 1) % VOCAB
    return tokens, answer, query, fact


def counts(oracle_model, script, stages, lost_at, start, stop):
    """Strict hits, strict total and wrong answers that end in rows [start, stop), from masked forward passes."""
    tokens, answer, query, fact = script
    whole, degraded = masked_logits(oracle_model, tokens, []), masked_logits(oracle_model, tokens, stages)
    hits = total = wrong = 0
    for name in np.unique(query[query >= 0]):
        at = np.flatnonzero(query == name)
        if start <= at[-1] - 1 < stop:
            right = all(degraded[i - 1].argmax() == tokens[i] for i in at)
            strict = lost_at is not None and is_strict(name, answer, query, fact, lost_at)
            total, hits = total + strict, hits + (strict and right)
            wrong += not right and all(whole[i - 1].argmax() == tokens[i] for i in at)
    return [hits, total, wrong]


def got(drift):
    return [int(drift.strict_hits[0]), int(drift.strict_total[0]), int(drift.wrong[0])]


@pytest.mark.parametrize("stride", [95, 5, 1])
def test_counts_of_a_pruned_session_equal_brute_force(exact, oracle_model, script, stride):
    session = exact.open(exact.reference(*script), 63)
    exact.migrate([session], [LOSSY])
    stages = [(63, session.positions.copy())]
    total = sum((exact.advance([session], [stride]) for _ in range(95 // stride)), exact.measure([session], 0))
    expected = counts(oracle_model, script, stages, 63, 63, 158)
    assert got(total) == expected
    assert expected[0] < expected[1] < 23 and expected[2] > 0


def test_a_second_lossy_handover_begins_anew_and_a_lossless_one_does_not(model, oracle_model, script):
    exact = KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, cache_dtype=torch.float32)
    tests = []
    for plan, lost_at in ((LOSSY, 90), (TransferPlan(bits=32), 63), (TransferPlan(bits=32, prefix_tokens=20), 63)):
        session = exact.open(exact.reference(*script), 63)
        exact.migrate([session], [LOSSY])
        first = session.positions.copy()
        exact.advance([session], [27])
        exact.migrate([session], [plan])
        assert session.lost_at == lost_at
        stages = [(63, first), (90, session.positions.copy())]
        expected = counts(oracle_model, script, stages, lost_at, 90, 158)
        assert got(exact.measure([session], 68)) == expected
        tests.append(expected[1])
    assert tests[0] > tests[1] == tests[2]


def test_whole_sessions_have_no_strict_questions_and_no_wrong_answers(exact, script):
    session = exact.open(exact.reference(*script), 63)
    assert got(exact.advance([session], [40])) == [0, 0, 0]
    exact.migrate([session], [LOSSY])
    assert session.lost_at == 103
    exact.repair([session])
    assert session.lost_at is None and got(exact.measure([session], 55)) == [0, 0, 0]


def test_a_rest_brings_facts_back_but_the_questions_stay_strict(exact, oracle_model, script):
    session = exact.open(exact.reference(*script), 63)
    exact.migrate([session], [TransferPlan(keep=0.3, bits=32, rest=True)])
    stages = [(63, session.positions.copy()), (68, np.arange(68))]
    exact.advance([session], [5])
    exact.backfill([session])
    assert session.lost_at == 63
    assert got(exact.measure([session], 90)) == counts(oracle_model, script, stages, 63, 68, 158)
    twin = exact.open(exact.reference(*script), 63)
    exact.migrate([twin], [TransferPlan(keep=0.3, bits=32, rest=True)])
    exact.backfill([twin])
    assert twin.whole and twin.lost_at is None


def test_the_instant_moves_with_forks_tickets_and_appended_tokens(exact, model, script):
    other = KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, cache_dtype=torch.float32)
    session = exact.open(exact.reference(*script), 63)
    exact.migrate([session], [LOSSY])
    exact.advance([session], [9])
    assert exact.fork(session).lost_at == 63
    lossless = other.restore(exact.encode(session, TransferPlan(bits=32)), session.reference)
    assert lossless.lost_at == 72, "a payload does not say what its source had lost before"
    payload = exact.encode(session, TransferPlan(bits=32))
    assert other.commit(other.stage(payload, exact.fork(session))).lost_at == 63
    assert other.commit(other.stage(exact.encode(session, LOSSY), exact.fork(session))).lost_at == 72
    tokens, answer, _, fact = (x[99:102] for x in script)
    asked = exact.append(session, tokens, answer, [-1, 0, 0], fact)
    assert asked.strict_total[0] == 1
    again = exact.append(session, tokens, answer, [-1, 0, 0], fact)
    assert again.strict_total[0] == 0, "the answer has been fed in since"


def test_a_measurement_after_another_handover_is_another_one(model, script):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    session = backend.open(backend.reference(*script), 63)
    backend.migrate([session], [TransferPlan(keep=0.7)])
    first = got(backend.measure([session], 60))
    session.lost_at = 30
    assert got(backend.measure([session], 60)) != first and backend.memo_hits == 0


def test_facts_need_one_mark_per_token(backend, tokens):
    with pytest.raises(ConfigError, match="fact has shape"):
        backend.reference(tokens, fact=[1, 2])
