"""Counting answers: a query is a hit when all of its tokens are the top-1 prediction, and counts where it ends."""

import copy

import numpy as np
import pytest
import torch

from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.drift import Marks, count_recall

from .conftest import VOCAB
from .masked_forward import masked_logits
from .plain import PLAIN


def test_hand_made_case():
    #               0  1  2  3  4  5  6  7  8  9
    answer = np.array([0, 0, 1, 1, 0, 2, 2, 0, 1, 0], np.int8)
    query = np.array([-1, -1, 0, 0, -1, 1, 1, -1, 2, -1], np.int16)
    marks = Marks(answer, query)
    assert marks.rows == [1, 2, 4, 5, 7]
    failed: set[int] = set()
    assert count_recall(marks, 0, [True, True, True, False, True], failed) == (2, 2, 0, 1)
    assert failed == set()


def test_an_answer_counts_in_the_call_that_judges_its_last_token():
    marks = Marks(np.array([0, 1, 1, 1], np.int8), np.array([-1, 0, 0, 0], np.int16))
    failed: set[int] = set()
    assert count_recall(marks, 0, [False], failed) == (0, 0, 0, 0)
    assert failed == {0}
    assert count_recall(marks, 1, [True, True], failed) == (0, 1, 0, 0)


def test_interleaved_answers_are_kept_apart():
    marks = Marks(np.array([0, 1, 2, 1, 2], np.int8), np.array([-1, 0, 1, 0, 1], np.int16))
    assert count_recall(marks, 0, [False, True, True, True], set()) == (0, 1, 1, 1)


def test_without_query_ids_each_run_of_marks_is_an_answer():
    marks = Marks(np.array([0, 1, 1, 0, 1, 2, 2], np.int8), None)
    assert count_recall(marks, 0, [True] * 5, set()) == (2, 2, 1, 1)


def test_first_token_of_a_script_is_not_judged():
    assert Marks(np.array([1, 0, 1], np.int8), None).rows == [1]


@pytest.fixture(scope="module")
def script(oracle_model):
    """A script whose marked tokens are what the whole model predicts, except one; and what pruning changes is known."""
    tokens = np.random.default_rng(21).integers(0, VOCAB, 120)
    answer, query = np.zeros(120, np.int8), np.full(120, -1, np.int16)
    for name, at in enumerate(range(60, 116, 4)):
        answer[at : at + 2], query[at : at + 2] = 1 + name % 2, name
    for at in np.flatnonzero(answer):
        tokens[at] = masked_logits(oracle_model, tokens, [])[at - 1].argmax()
    tokens[64] = (tokens[64] + 1) % VOCAB  # the second answer, a cold one, is wrong even for the whole cache
    tokens[65] = masked_logits(oracle_model, tokens, [])[64].argmax()
    for at in np.flatnonzero(answer):
        if at > 65:
            tokens[at] = masked_logits(oracle_model, tokens, [])[at - 1].argmax()
    return tokens, answer, query


def brute_force(logits, tokens, answer, query, start, stop):
    """Hot hits, hot total, cold hits, cold total over the answers that lie in rows [start, stop)."""
    counts = [0, 0, 0, 0]
    for name in np.unique(query[query >= 0]):
        at = np.flatnonzero(query == name)
        if start <= at[0] - 1 and at[-1] - 1 < stop:
            kind = 0 if answer[at[0]] == 1 else 2
            counts[kind] += all(logits[i - 1].argmax() == tokens[i] for i in at)
            counts[kind + 1] += 1
    return counts


def test_recall_of_a_whole_session_comes_from_the_reference(exact, oracle_model, script):
    tokens, answer, query = script
    session = exact.open(exact.reference(tokens, answer, query), 50)
    drift = exact.advance([session], [69])
    expected = brute_force(masked_logits(oracle_model, tokens, []), tokens, answer, query, 50, 119)
    assert [drift.hot_hits[0], drift.hot_total[0], drift.cold_hits[0], drift.cold_total[0]] == expected
    assert expected == [7, 7, 6, 7]


@pytest.mark.parametrize("stride", [69, 3, 1])
def test_recall_of_a_pruned_session_equals_brute_force(exact, oracle_model, script, stride):
    tokens, answer, query = script
    session = exact.open(exact.reference(tokens, answer, query), 50)
    exact.migrate([session], [TransferPlan(keep=0.9, bits=32)])
    logits = masked_logits(oracle_model, tokens, [(50, session.positions)])
    total = sum((exact.advance([session], [stride]) for _ in range(69 // stride)), exact.measure([session], 0))
    expected = brute_force(logits, tokens, answer, query, 50, 119)
    assert [total.hot_hits[0], total.hot_total[0], total.cold_hits[0], total.cold_total[0]] == expected
    assert 0 < expected[0] + expected[2] < 13


def test_measure_does_not_spoil_an_answer_in_progress(exact, script):
    tokens, answer, query = script
    session = exact.open(exact.reference(tokens, answer, query), 63)
    exact.measure([session], 1)
    assert session.failed == set()
    exact.advance([session], [1])
    assert session.failed == {1}
    assert exact.fork(session).failed == {1}
    drift = exact.advance([session], [1])
    assert (drift.cold_hits[0], drift.cold_total[0]) == (0, 1)


def test_marks_of_appended_tokens_are_counted(model, oracle_model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN, cache_dtype=torch.float32)
    marks = np.zeros(100, np.int8)
    marks[98:] = 1
    session = backend.open(backend.reference(tokens[:100], marks), 100)
    best = int(masked_logits(oracle_model, tokens[:100], [])[99].argmax())
    session = backend.open(backend.reference(tokens[:100], marks), 99)
    drift = backend.append(session, [int(tokens[99]), best, 5], answer=[0, 2, 0])
    assert (drift.cold_hits[0], drift.cold_total[0], drift.hot_total[0]) == (1, 1, 0)


def test_an_answer_cut_short_does_not_spoil_the_appended_one(exact, oracle_model, tokens):
    answer, query = np.zeros(100, np.int8), np.full(100, -1, np.int16)
    answer[97:], query[97:] = 1, 0
    session = exact.open(exact.reference(tokens[:100], answer, query), 96)
    exact.advance([session], [2])
    assert session.failed == {0}
    best = int(masked_logits(oracle_model, tokens[:99], [])[98].argmax())
    drift = exact.append(session, [int(tokens[98]), best], answer=[0, 1], query=[-1, 0])
    assert (drift.hot_hits[0], drift.hot_total[0]) == (1, 1)


def test_scripts_that_differ_only_in_what_belongs_to_which_answer_are_not_taken_for_one_another(backend, tokens):
    """Four marked tokens are one answer, two, or four: neither the reference nor the counts may be shared."""
    answer = np.zeros(100, np.int8)
    answer[60:64] = 1
    totals, references = [], []
    for names in ([0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]):
        query = np.full(100, -1, np.int16)
        query[60:64] = names
        references.append(backend.reference(tokens[:100], answer, query))
        totals.append(int(backend.measure([backend.open(references[-1], 50)], 40).hot_total[0]))
    assert totals == [1, 2, 4] and len({reference.key for reference in references}) == 3
