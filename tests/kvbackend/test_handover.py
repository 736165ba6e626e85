"""Handovers in two phases, memory that runs out, broken caches, and measurements that are remembered."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError, PayloadError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.codecs import payload as wire
from kvroam.kvbackend.scorers import Scorer
from kvroam.kvbackend.sessions import Rows, memo

from .conftest import VOCAB
from .plain import PLAIN

PRUNED = TransferPlan(keep=0.3)


@pytest.fixture
def target(model):
    """Another machine with the same model."""
    return KVBackend(copy.deepcopy(model), "tok", settings=PLAIN)


def marked(tokens):
    """The script with an answer of three tokens around position 120."""
    answer = np.zeros(len(tokens), np.int8)
    answer[119:122] = 2
    return tokens, answer


def state(session):
    return session.length, session.whole, session.closed, session.kv.clone(), session.positions.copy()


def assert_same(before, after):
    assert before[:3] == after[:3]
    assert torch.equal(before[3], after[3]) and np.array_equal(before[4], after[4])


def test_source_goes_on_until_the_commit_and_is_closed_by_it(backend, target, tokens):
    source = backend.open(tokens, 120)
    expected = backend.fork(source)
    backend.migrate([expected], [PRUNED])
    before = state(source)
    ticket = target.stage(backend.encode(source, PRUNED), source)
    assert ticket.state == "staged"
    assert_same(before, state(source))
    assert backend.measure([source], 5).kl[0] == 0.0
    session = target.commit(ticket)
    assert ticket.state == "committed" and source.closed and not session.closed
    assert session.length == 120 and torch.equal(session.kv, expected.kv)
    assert target.advance([session], [9]).kl[0] == pytest.approx(backend.advance([expected], [9]).kl[0], abs=1e-5)


def test_a_commit_gives_the_memory_of_the_source_back(backend, target, tokens):
    backend.reference(tokens)
    before = backend.memory_used
    source = pruned(backend, tokens)
    assert backend.memory_used > before
    session = target.commit(target.stage(backend.encode(source, TransferPlan()), source))
    assert backend.memory_used == before and not session.closed


@pytest.mark.parametrize("plan", [PRUNED, TransferPlan(bits=8), TransferPlan(bits=4, prefix_tokens=60)])
def test_a_payload_that_does_not_fit_is_refused_before_its_layers_are_decoded(model, tokens, monkeypatch, plan):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    session = backend.open(tokens, 250)
    payload = backend.encode(session, plan)
    backend._ledger.limit = backend.memory_used
    monkeypatch.setattr(wire, "feed_layers", lambda *_: pytest.fail("the layers were decoded"))
    for call in (lambda: backend.restore(payload, session.reference), lambda: backend.migrate([session], [plan])):
        with pytest.raises(ConfigError, match="memory_bytes"):
            call()
    assert session.whole


def test_abort_leaves_the_source_and_gives_the_memory_back(backend, target, tokens):
    source = backend.open(tokens, 120)
    reference = target.reference(tokens)
    before, used = state(source), target.memory_used
    ticket = target.stage(backend.encode(source, PRUNED), reference)
    assert target.memory_used > used
    target.abort(ticket)
    assert ticket.state == "aborted" and target.memory_used == used
    assert_same(before, state(source))


@pytest.mark.parametrize("first", ["commit", "abort"])
@pytest.mark.parametrize("second", ["commit", "abort"])
def test_a_ticket_is_settled_once(backend, target, tokens, first, second):
    source = backend.open(tokens, 120)
    ticket = target.stage(backend.encode(source, PRUNED), source)
    getattr(target, first)(ticket)
    with pytest.raises(ConfigError, match="has been"):
        getattr(target, second)(ticket)
    assert source.closed == (first == "commit")


def test_a_source_that_read_on_keeps_its_session(backend, target, tokens):
    source = backend.open(tokens, 120)
    ticket = target.stage(backend.encode(source, PRUNED), source)
    backend.advance([source], [1])
    with pytest.raises(ConfigError, match="has read 121"):
        target.commit(ticket)
    assert ticket.state == "staged" and not source.closed
    target.abort(ticket)
    again = target.stage(backend.encode(source, PRUNED), source)
    assert target.commit(again).length == 121


def test_a_closed_source_can_neither_stage_nor_commit(backend, target, tokens):
    source = backend.open(tokens, 120)
    payload = backend.encode(source, PRUNED)
    ticket = target.stage(payload, source)
    backend.close(source)
    for call in (lambda: target.commit(ticket), lambda: target.stage(payload, source)):
        with pytest.raises(ConfigError, match="closed"):
            call()
    target.abort(ticket)


def test_answers_in_progress_move_with_the_session(backend, target, tokens):
    source = backend.open(backend.reference(*marked(tokens)), 110)
    backend.migrate([source], [TransferPlan(keep=0.05, bits=2)])
    backend.advance([source], [10])
    assert source.failed, "random answers are wrong"
    failed = set(source.failed)
    session = target.commit(target.stage(backend.encode(source, TransferPlan()), source))
    assert session.failed == failed
    assert target.advance([session], [5]).cold_total[0] == 1


def test_target_without_memory_refuses_and_the_source_stays(backend, model, tokens):
    source = backend.open(tokens, 250)
    before, payload = state(source), backend.encode(source, TransferPlan(keep=0.9))
    nbytes = source.reference.nbytes
    small = KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, memory_bytes=nbytes + 20_000)
    with pytest.raises(ConfigError, match="memory_bytes"):
        small.stage(payload, source)
    assert_same(before, state(source))
    assert small.memory_used == 0


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
def test_machine_without_memory_is_one_clear_error_and_the_sessions_stay(backend, tokens, monkeypatch, error):
    source = backend.open(tokens, 120)
    before, payload = state(source), backend.encode(source, PRUNED)

    def fail(*args):
        raise error

    monkeypatch.setattr(wire, "feed_layers", fail)
    for call in (lambda: backend.stage(payload, source), lambda: backend.migrate([source], [PRUNED])):
        with pytest.raises(ConfigError, match="no memory for a payload"):
            call()
        assert_same(before, state(source))


def test_a_second_lossy_handover_without_memory_leaves_the_first_cache(model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    session = backend.open(tokens, 250)
    backend.migrate([session], [TransferPlan(keep=0.2)])
    backend._ledger.limit = backend.memory_used  # nothing more may be taken
    with pytest.raises(ConfigError, match="memory_bytes"):
        backend.fork(session)
    backend.migrate([session], [TransferPlan(keep=0.1)])
    assert len(session.positions) == 25
    before = state(session)
    with pytest.raises(ConfigError, match="memory_bytes"):
        backend.migrate([session], [TransferPlan(keep=0.5, prefix_tokens=240)])
    assert_same(before, state(session))


def test_staging_into_a_session_of_another_script_is_refused(backend, target, tokens):
    source = backend.open(tokens, 120)
    payload = backend.encode(source, PRUNED)
    with pytest.raises(PayloadError, match="script"):
        target.stage(payload, target.reference(tokens[::-1].copy()))
    with pytest.raises(PayloadError, match="checksum"):
        payload[-20] ^= 1
        target.stage(payload, source)
    assert not source.closed


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2])
def test_broken_caches_are_reported_not_passed_on(model, tokens, bad, bits):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    session = backend.open(tokens, 50)
    with torch.inference_mode():
        session.reference.kv[40, 1, 0, 0, 3] = bad
    with pytest.raises(PayloadError, match="NaN"):
        backend.migrate([session], [TransferPlan(bits=bits)])
    assert session.whole and session.length == 50


@pytest.mark.parametrize(("dtype", "other"), [(torch.float16, "bfloat16"), (torch.bfloat16, "float16")])
def test_half_precision_is_lossless_as_served_and_can_be_chosen(model, tokens, dtype, other):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN, cache_dtype=dtype)
    session = backend.open(tokens, 120)
    same = str(dtype).removeprefix("torch.")
    assert backend.encode(session, TransferPlan()) == backend.encode(session, TransferPlan(half=same))
    payload = backend.encode(session, TransferPlan(half=other))
    back = backend.restore(payload, session.reference)
    assert torch.equal(back.kv, session.kv.to(getattr(torch, other)).to(dtype))
    assert back.whole == torch.equal(back.kv, session.kv)
    assert b'"dtype":"float16"' in backend.encode(session, TransferPlan(bits=8))
    with pytest.raises(ConfigError, match="16-bit format"):
        TransferPlan(half="fp16")


def pruned(backend, tokens, plan=PRUNED, length=120):
    session = backend.open(tokens, length)
    backend.migrate([session], [plan])
    return session


def test_exact_repeats_are_measured_once(model, tokens, monkeypatch):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    plain = KVBackend(copy.deepcopy(model), settings=PLAIN, memo=False)
    passes = []
    for owner in (backend, plain):
        extend = owner.llm.extend
        counted = lambda *args, owner=owner, extend=extend: passes.append(owner) or extend(*args)  # noqa: E731
        monkeypatch.setattr(owner.llm, "extend", counted)
    results = []
    for owner in (backend, plain):
        sessions = [pruned(owner, tokens) for _ in range(2)]
        results.append([owner.measure([session], 12) for session in (*sessions, sessions[0])])
    assert [passes.count(owner) for owner in (backend, plain)] == [1, 3]
    assert (backend.memo_hits, plain.memo_hits) == (2, 0)
    for drifts in results:
        for drift in drifts:
            assert {k: v.tolist() for k, v in vars(drift).items()} == {
                k: v.tolist() for k, v in vars(results[1][0]).items()
            }


def test_whatever_a_measurement_depends_on_makes_it_another(model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    other = np.random.default_rng(1).integers(0, VOCAB, 300)
    other[:130] = tokens[:130]
    for script in ((tokens,), (other,), marked(tokens)):
        backend.measure([pruned(backend, backend.reference(*script))], 12)
    backend.measure([pruned(backend, tokens)], 11)
    backend.measure([pruned(backend, tokens, length=121)], 12)
    backend.measure([pruned(backend, tokens, TransferPlan(keep=0.29))], 12)
    backend.measure([pruned(backend, tokens, TransferPlan(keep=0.3, bits=8))], 12)
    failing = pruned(backend, backend.reference(*marked(tokens)))
    failing.failed.add(1)
    backend.measure([failing], 12)
    assert backend.memo_hits == 0
    backend.measure([pruned(backend, tokens), backend.open(tokens, 120), pruned(backend, other)], 12)
    assert backend.memo_hits == 2


@dataclass(frozen=True)
class Oldest(Scorer):
    """The first tokens, so that a cache does not change when the session reads on and is handed over again."""

    def score(self, view):
        return -view.positions.astype(float)


def test_equal_caches_at_different_positions_are_measured_apart(model, tokens):
    """The same rows of the same script, one session a token further than the other: other tokens are read next."""
    settings = replace(PLAIN, scorer=Oldest(), sinks=0, recent=0)
    backend, plain = (KVBackend(copy.deepcopy(model), settings=settings, memo=memo) for memo in (True, False))
    found = []
    for owner in (backend, plain):
        sessions = [pruned(owner, tokens, TransferPlan(budget_tokens=40), length) for length in (120, 121, 150)]
        assert len({session.positions.tobytes() for session in sessions}) == 1
        assert all(torch.equal(session.kv, sessions[0].kv) for session in sessions)
        found.append([owner.measure([session], 12).kl[0] for session in sessions])
    assert backend.memo_hits == 0
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert min(abs(found[0][0] - found[0][1]), abs(found[0][1] - found[0][2])) > 1e-3


def test_a_slot_that_a_head_does_not_hold_is_another_measurement_than_one_that_holds_zeros(model, tokens):
    """Only the positions tell an empty slot, which is masked, from a key of zeros, which takes its share."""
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    found = []
    for position in (-1, 118):
        session = backend.open(tokens, 120)
        kv, lists = session.kv[:60].clone(), np.broadcast_to(np.arange(60)[:, None, None], (60, 2, 2)).copy()
        kv[59, :, :, 0], lists[59, :, 0] = 0.0, position
        session.degrade(Rows(kv, lists, 120, session.reference.queries[:0]))
        found.append(backend.measure([session], 12).kl[0])
    assert backend.memo_hits == 0 and abs(found[0] - found[1]) > 1e-3


def test_the_oldest_measurements_are_forgotten_when_there_are_too_many(model, tokens, monkeypatch):
    monkeypatch.setattr(memo, "_ENTRIES", 2)
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    sessions = [pruned(backend, tokens, TransferPlan(keep=keep)) for keep in (0.2, 0.4, 0.6)]
    hits = []
    for session in (*sessions, sessions[2], sessions[1], sessions[0]):
        backend.measure([session], 5)
        hits.append(backend.memo_hits)
    assert hits == [0, 0, 0, 1, 2, 2]


def test_a_mixed_call_puts_remembered_and_new_results_where_they_belong(model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    plain = KVBackend(copy.deepcopy(model), settings=PLAIN, memo=False)
    keeps = (0.2, 1.0, 0.4, 0.6)
    backend.measure([pruned(backend, tokens, TransferPlan(keep=0.4))], 10)
    drifts = [
        owner.measure([pruned(owner, tokens, TransferPlan(keep=keep)) for keep in keeps], 10)
        for owner in (backend, plain)
    ]
    assert backend.memo_hits == 1
    assert drifts[0].kl == pytest.approx(drifts[1].kl, abs=1e-5)
    assert drifts[0].matches.tolist() == drifts[1].matches.tolist() and drifts[0].kl[1] == 0.0
