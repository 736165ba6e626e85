"""Sessions that read their own answers, against a replay token by token under masks, without any cache."""

import copy

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan

from .conftest import VOCAB
from .masked_forward import kl, masked_logits
from .plain import PLAIN

START, STOP = 60, 110
LOSSY = TransferPlan(keep=0.5, bits=32)


@pytest.fixture(scope="module")
def script(oracle_model):
    """Eight answers of two tokens that the whole cache gets right, except one."""
    tokens = np.random.default_rng(5).integers(0, VOCAB, 130)
    answer, query = np.zeros(130, np.int8), np.full(130, -1, np.int16)
    for name, at in enumerate(range(64, 112, 6)):
        answer[at : at + 2], query[at : at + 2] = 1 + name % 2, name
    for at in np.flatnonzero(answer):
        tokens[at] = masked_logits(oracle_model, tokens, [])[at - 1].argmax()
        if at == 82:
            tokens[at] = (tokens[at] + 1) % VOCAB
    return tokens, answer, query


def replay(model, tokens, answer, stages, start, stop):
    """Tokens that come to be read: rows [start, stop) are fed one after another, answers as the masks predict them."""
    read = tokens.copy()
    for row in range(start, stop):
        if answer[row + 1]:
            read[row + 1] = masked_logits(model, read, stages)[row].argmax()
    return read


@pytest.mark.parametrize("stride", [50, 7, 1])
def test_drift_and_answers_equal_a_replay(model, oracle_model, script, stride):
    tokens, answer, query = script
    exact = KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, cache_dtype=torch.float32)
    session = exact.open(exact.reference(*script), START)
    exact.migrate([session], [LOSSY])
    stages = [(START, session.positions.copy())]
    counts = [stride] * (50 // stride) + [50 % stride] * (50 % stride > 0)
    drift = sum((exact.advance([session], [n], own_answers=True) for n in counts), exact.measure([session], 0))
    read = replay(oracle_model, tokens, answer, stages, START, STOP)
    assert np.array_equal(session.reference.tokens, read) and (read != tokens).sum() > 3
    whole, degraded = masked_logits(oracle_model, read, []), masked_logits(oracle_model, read, stages)
    assert drift.kl[0] == pytest.approx(kl(whole, degraded)[START:STOP].sum(), abs=2e-4)
    right = {n: all(degraded[p - 1].argmax() == tokens[p] for p in np.flatnonzero(query == n)) for n in range(8)}
    assert drift.hot_hits[0] + drift.cold_hits[0] == sum(right.values())
    assert drift.hot_total[0] + drift.cold_total[0] == 8
    never = masked_logits(oracle_model, tokens, [])
    known = {n: all(never[p - 1].argmax() == tokens[p] for p in np.flatnonzero(query == n)) for n in range(8)}
    assert drift.wrong[0] == sum(known[n] and not right[n] for n in range(8)) > 0
    exact.repair([session])
    assert torch.allclose(session.kv, exact.reference(read).kv[:STOP], atol=1e-4), "its own text is rebuilt"


def test_right_answers_change_nothing(exact, script):
    """A cache that answers as the script does reads the script, and needs no text of its own."""
    session, twin = (exact.open(exact.reference(*script), 66) for _ in range(2))
    for one in (session, twin):
        exact.migrate([one], [TransferPlan(bits=8)])
    free, forced = exact.advance([session], [14], own_answers=True), exact.advance([twin], [14])
    assert session.reference is twin.reference
    assert free.kl[0] == pytest.approx(forced.kl[0], abs=1e-5) and free.hot_hits[0] == forced.hot_hits[0]


def test_a_whole_session_reads_its_own_mistake_and_has_no_drift(exact, oracle_model, script):
    tokens, answer, _ = script
    session = exact.open(exact.reference(*script), START)
    drift = exact.advance([session], [STOP - START], own_answers=True)
    assert session.whole and drift.kl[0] == 0.0
    read = replay(oracle_model, tokens, answer, [], START, STOP)
    assert np.array_equal(session.reference.tokens, read) and read[82] != tokens[82]
    whole = masked_logits(oracle_model, read, [])
    hits = [whole[p - 1].argmax() == tokens[p] for p in np.flatnonzero(answer) if p <= STOP]
    assert drift.hot_hits[0] + drift.cold_hits[0] <= sum(hits) // 2 < 8


def test_what_the_model_answers_itself_is_found_once_for_all_sessions(model, oracle_model, script):
    tokens, answer, _ = script
    exact = KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, cache_dtype=torch.float32)
    reference = exact.reference(*script)
    plain = exact.reference(tokens)
    used = exact.memory_used
    own, same = exact.self_answered([reference, plain])
    assert same is plain and own is exact.self_answered([reference])[0]
    assert exact.memory_used == used + own.nbytes
    assert np.array_equal(own.tokens, replay(oracle_model, tokens, answer, [], 1, 129))
    session = exact.open(own, START)
    before = session.reference
    drift = exact.advance([session], [STOP - START], own_answers=True)
    assert session.reference is before and drift.wrong[0] == 0
    assert drift.hot_total[0] + drift.cold_total[0] - drift.hot_hits[0] - drift.cold_hits[0] >= 1


def test_a_text_of_its_own_travels_with_a_session(model, script):
    exact = KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, cache_dtype=torch.float32)
    reference = exact.reference(*script)
    session = exact.open(reference, START)
    exact.migrate([session], [LOSSY])
    exact.advance([session], [30], own_answers=True)
    exact.migrate([session], [TransferPlan(keep=0.5, bits=32, prefix_tokens=70, rest=True)])
    assert session.reference is not reference
    again = exact.reopen(reference, exact.save(session, reference))
    alone = exact.reopen(session.reference, exact.save(session))
    for one in (session, again, alone):
        exact.backfill([one])
    assert torch.equal(session.kv, again.kv) and torch.equal(session.kv, alone.kv)
    drifts = [exact.advance([one], [12], own_answers=True) for one in (session, again, alone)]
    assert drifts[0].kl[0] == drifts[1].kl[0] == drifts[2].kl[0]
    assert np.array_equal(session.reference.tokens, again.reference.tokens)
    exact.append(session, script[0][:5])
    with pytest.raises(ConfigError, match="append"):
        exact.save(session, reference)


def test_several_sessions_at_once_read_as_each_alone(model, script):
    exact = KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, cache_dtype=torch.float32)
    reference = exact.reference(*script)
    plans = [LOSSY, TransferPlan(bits=4), TransferPlan(keep=0.2, bits=32)]

    def sessions():
        made = [exact.open(reference, START) for _ in plans]
        exact.migrate(made, plans)
        return [*made, exact.open(reference, START)]

    together, alone = sessions(), sessions()
    drift = exact.advance(together, [50, 33, 50, 41], own_answers=True)
    for i, (session, count) in enumerate(zip(alone, [50, 33, 50, 41], strict=True)):
        one = exact.advance([session], [count], own_answers=True)
        assert one.kl[0] == pytest.approx(drift.kl[i], abs=1e-4) and one.wrong[0] == drift.wrong[i]
        assert np.array_equal(session.reference.tokens, together[i].reference.tokens)
