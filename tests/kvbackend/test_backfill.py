"""A cache that arrives in two parts, and one that is rebuilt in place, against plain forward passes under masks."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError, PayloadError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.codecs import payload as wire
from kvroam.kvbackend.codecs.header import Expected

from .masked_forward import kl, masked_logits, per_head_logits
from .plain import PLAIN

PART = TransferPlan(keep=0.4, rest=True)
EXACT = replace(PART, bits=32)


@pytest.fixture
def target(model):
    """Another machine with the same model."""
    return KVBackend(copy.deepcopy(model), "tok", settings=PLAIN)


def moved(backend, tokens, plan=PART, length=120):
    session = backend.open(tokens, length)
    backend.migrate([session], [plan])
    return session


def state(session):
    kept = session.kv.clone(), session.positions.copy(), session.queries(0, session.length).clone()
    rest = None if session.rest is None else session.rest.released
    return (session.length, session.whole, session.part, rest), kept


def assert_same(before, after):
    assert before[0] == after[0]
    assert torch.equal(before[1][0], after[1][0]) and np.array_equal(before[1][1], after[1][1])
    assert torch.equal(before[1][2], after[1][2])


def unpacked(backend, payload):
    shape = backend.llm.geometry
    expected = Expected(backend.llm.fingerprint, "tok", shape.layers, shape.kv_heads, shape.head_dim)
    return wire.unpack(payload, expected, backend.llm.cache_dtype)


@pytest.mark.parametrize("settings", [PLAIN, replace(PLAIN, scope="head")], ids=["sequence", "head"])
@pytest.mark.parametrize("scar", [0, 1, 30])
def test_drift_before_during_and_after_is_that_of_masked_forward_passes(model, oracle_model, tokens, settings, scar):
    """No cache in the oracle: which tokens each row may see is written down, and the script is run as a whole."""
    exact = KVBackend(copy.deepcopy(model), "tok", settings=settings, cache_dtype=torch.float32)
    session, arrived = exact.open(tokens, 120), 120 + scar
    before = exact.measure([session], 20).kl[0]
    exact.migrate([session], [EXACT])
    kept, masked = session.positions.copy(), masked_logits if session.positions.ndim == 1 else per_head_logits
    everything = np.arange(arrived) if kept.ndim == 1 else np.tile(np.arange(arrived)[:, None, None], (1, 2, 2))
    during = exact.advance([session], [scar]).kl[0]
    result = exact.backfill([session])[0]
    after = exact.advance([session], [60]).kl[0]
    logits = masked(oracle_model, tokens, [(120, kept), (arrived, everything)])
    drift = kl(masked_logits(oracle_model, tokens, []), logits)
    assert before == 0.0
    assert during == pytest.approx(drift[120:arrived].sum(), abs=1e-4)
    assert after == pytest.approx(drift[arrived : arrived + 60].sum(), abs=1e-4)
    partial = kl(masked_logits(oracle_model, tokens, []), masked(oracle_model, tokens, [(120, kept)]))
    assert partial[arrived : arrived + 60].sum() > 3 * after, "the rest is worth having"
    assert (after > 1e-3) == (scar > 1) or scar == 1
    assert (result.whole, result.scar_tokens, result.kept_tokens) == (scar == 0, scar, arrived)
    assert session.whole == (scar == 0) and np.array_equal(session.positions, np.arange(arrived + 60))


def test_what_a_degraded_source_kept_is_all_that_can_follow(exact, oracle_model, tokens):
    """Pruned at 80, moved in two parts at 120, the rest merged at 140: the tokens lost at 80 stay lost."""
    session = moved(exact, tokens, TransferPlan(keep=0.6, bits=32), 80)
    first = session.positions.copy()
    exact.advance([session], [40])
    exact.migrate([session], [EXACT])
    second = session.positions.copy()
    exact.advance([session], [20])
    result = exact.backfill([session])[0]
    held = np.concatenate([first, np.arange(80, 140)])
    assert np.array_equal(session.positions, held) and not result.whole
    got = exact.advance([session], [50]).kl[0]
    logits = masked_logits(oracle_model, tokens, [(80, first), (120, second), (140, held)])
    want = kl(masked_logits(oracle_model, tokens, []), logits)
    assert got == pytest.approx(want[140:190].sum(), abs=1e-4)
    still = moved(exact, tokens, TransferPlan(keep=0.6, bits=32), 80)
    exact.advance([still], [40])
    unmoved = state(still)[1]
    exact.migrate([still], [EXACT])
    exact.backfill([still])
    assert not still.whole and torch.equal(still.kv, unmoved[0]), "as if it had not moved"


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2])
@pytest.mark.parametrize("prefix", [0, 30])
def test_merged_rows_are_those_of_the_two_payloads_and_the_scar(backend, tokens, bits, prefix):
    plan = TransferPlan(keep=0.4, bits=bits, prefix_tokens=prefix, snapshot_tokens=100, rest=True)
    session = backend.open(tokens, 120)
    twin = backend.fork(session)
    blob, rest = backend.encode_parts(twin, plan)
    backend.migrate([session], [plan])
    backend.advance([session], [9])
    scar = session.kv[-9:].clone()
    result = backend.backfill([session])[0]
    (one, at, first), (two, missing, second) = unpacked(backend, blob), unpacked(backend, rest.encode())
    assert two.completes == wire.name_of(blob) and not two.rest and one.rest and not one.completes
    assert sorted([*at, *missing]) == list(range(prefix, 120)) and missing.max() < 100
    for where, rows in ((at, first), (missing, second), (np.arange(120, 129), scar)):
        assert torch.equal(session.kv[torch.from_numpy(where.astype(np.int64))], rows)
    assert torch.equal(session.kv[:prefix], session.reference.kv[:prefix])
    assert (result.payload_bytes, result.sent_tokens) == (len(rest.encode()), len(missing))
    assert np.array_equal(session.positions, np.arange(129)) and session.rows.own == 9


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_a_session_is_whole_when_nothing_was_read_in_between_and_nothing_lost_on_the_wire(backend, tokens, bits):
    session = moved(backend, tokens, replace(PART, bits=bits))
    assert not session.whole
    assert backend.backfill([session])[0].whole == session.whole == (bits >= 16)
    if session.whole:
        assert backend.measure([session], 30).kl[0] == 0.0


def test_the_two_parts_cost_about_what_one_payload_costs(backend, tokens):
    session = backend.open(tokens, 200)
    at_once = len(backend.encode(session, TransferPlan()))
    first, rest = backend.encode_parts(session, PART)
    assert at_once < len(first) + len(rest.encode()) < at_once + 1000


def test_the_rest_arrives_at_another_machine_as_a_second_payload(backend, target, tokens):
    source = backend.open(tokens, 120)
    first, rest = backend.encode_parts(source, PART)
    there = target.commit(target.stage(first, source))
    assert source.closed and not rest.released and not there.whole
    assert rest.tokens == 120 - 48
    with pytest.raises(ConfigError, match="encode it there"):
        target.backfill([there])
    target.advance([there], [5])
    expected = moved(backend, tokens)
    backend.advance([expected], [5])
    backend.backfill([expected])
    result = target.complete(there, rest.encode())
    assert result.scar_tokens == 5 and not there.whole
    assert torch.allclose(there.kv, expected.kv, atol=1e-2) and np.array_equal(there.positions, expected.positions)
    used = backend.memory_used
    rest.release()
    rest.release()
    assert backend.memory_used <= used and rest.released
    with pytest.raises(ConfigError, match="gone"):
        rest.encode()


def refusals(backend, tokens):
    """Pairs (session, payload that does not fit it), with what the error says."""
    alone = backend.encode(backend.open(tokens, 120), TransferPlan(keep=0.4))
    yield "completes no other", moved(backend, tokens), alone
    yield "not the first of this script", moved(backend, tokens), moved(backend, tokens[::-1].copy()).rest.encode()
    yield "121 tokens", moved(backend, tokens), moved(backend, tokens, length=121).rest.encode()
    yield "prefix", moved(backend, tokens), moved(backend, tokens, replace(PART, prefix_tokens=9)).rest.encode()
    yield "completes payload", moved(backend, tokens), moved(backend, tokens, replace(PART, bits=8)).rest.encode()
    yield "completes payload", moved(backend, tokens), moved(backend, tokens, replace(PART, keep=0.5)).rest.encode()
    session = moved(backend, tokens)
    damaged = session.rest.encode()
    damaged[-30] ^= 1
    yield "checksum", session, damaged
    yield "header implies", session, session.rest.encode()[:-2000]
    for what, positions in forged(session):
        header = replace(session.rest.unsent.header, count=len(positions))
        yield what, session, wire.pack(header, positions, session.reference.kv[: len(positions)])


def forged(session):
    missing, there = session.rest.unsent.positions, session.part.positions
    yield "the first part has brought", np.sort(np.append(missing, there[3]))
    yield "the first part has brought", np.sort(np.append(missing[1:], there[3]))
    yield "not those that are missing", missing[1:]


@pytest.mark.parametrize("number", range(11))
def test_a_rest_that_does_not_fit_is_refused_and_nothing_is_lost(backend, tokens, number):
    what, session, payload = list(refusals(backend, tokens))[number]
    backend.advance([session], [4])
    before = state(session)
    with pytest.raises(PayloadError, match=what) as caught:
        backend.complete(session, payload)
    assert "\n" not in str(caught.value)
    assert_same(before, state(session))
    assert backend.backfill([session])[0].kept_tokens == 124, "the right rest still fits"


def test_the_list_of_misfits_is_complete(backend, tokens):
    assert len(list(refusals(backend, tokens))) == 11


def test_a_rest_without_a_first_part_or_after_the_rest_is_refused(backend, target, tokens):
    whole, pruned = backend.open(tokens, 120), moved(backend, tokens, TransferPlan(keep=0.4))
    done, dropped = moved(backend, tokens), moved(backend, tokens)
    all_sent = moved(backend, tokens, TransferPlan(rest=True))
    rest = done.rest.encode()
    backend.backfill([done])
    backend.drop_rest([dropped])
    reasons = {whole: "no first part", pruned: "no first part", all_sent: "no first part", done: "merged already",
               dropped: "dropped already"}
    for session, why in reasons.items():
        before = state(session)
        waiting = moved(backend, tokens)
        for call in (lambda: backend.backfill([waiting, session]), lambda: backend.complete(session, rest),  # noqa: B023
                     lambda: backend.drop_rest([waiting, session])):  # noqa: B023
            with pytest.raises(ConfigError, match=why) as caught:
                call()
            assert "\n" not in str(caught.value)
        assert_same(before, state(session))
        assert not waiting.rest.released and backend.backfill([waiting])[0].whole, "no session of the call has changed"
    for call in (lambda: target.restore(rest, target.reference(tokens)), lambda: target.stage(rest, whole)):
        with pytest.raises(PayloadError, match="completes payload"):
            call()


def test_a_session_that_waits_for_its_rest_moves_only_when_that_is_settled(backend, tokens):
    session = moved(backend, tokens)
    before = state(session)
    for call in (lambda: backend.migrate([session], [TransferPlan()]), lambda: backend.encode(session, TransferPlan()),
                 lambda: backend.encode_parts(session, PART)):
        with pytest.raises(ConfigError, match="drop_rest"):
            call()
        assert_same(before, state(session))
    with pytest.raises(ConfigError, match="encode_parts"):
        backend.encode(backend.open(tokens, 120), PART)
    backend.drop_rest([session])
    assert backend.migrate([session], [replace(PART, keep=0.2)])[0].sent_tokens == 24
    assert backend.backfill([session])[0].kept_tokens == 48, "what was dropped stays lost"
    assert backend.migrate([session], [TransferPlan(keep=0.1)])[0].sent_tokens == 12


def test_memory_of_a_rest_is_counted_and_given_back(model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    reference = backend.reference(tokens)
    start = backend.memory_used
    session = moved(backend, reference, TransferPlan(keep=0.5))
    degraded = backend.memory_used
    backend.migrate([session], [TransferPlan(keep=0.2, rest=True)])
    row = session.kv[0].numel() * 2
    assert backend.memory_used - degraded == row * (session.rest.tokens - (60 - 24)), "a degraded source keeps a copy"
    for settle in (backend.drop_rest, backend.backfill, lambda s: backend.close(s[0]), lambda s: backend.repair(s)):
        twin = backend.fork(session)
        used = backend.memory_used
        settle([twin])
        assert backend.memory_used < used + row * (settle == backend.backfill)
        if not twin.closed:
            backend.close(twin)
    backend.close(session)
    assert backend.memory_used == start


def test_without_memory_no_session_changes(model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    sessions = [moved(backend, tokens, length=250) for _ in range(2)]
    for session in sessions:
        backend.advance([session], [3])
    before = [state(session) for session in sessions]
    backend._ledger.limit = backend.memory_used + sessions[0].rows.nbytes
    with pytest.raises(ConfigError, match="memory_bytes"):
        backend.backfill(sessions)
    for old, session in zip(before, sessions, strict=True):
        assert_same(old, state(session))
    backend.backfill(sessions[:1])


def test_a_broken_cache_at_the_source_is_reported_and_the_rest_stays(model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    session = moved(backend, tokens)
    lost = int(session.rest.unsent.positions[5])
    good = float(session.reference.kv[lost, 1, 0, 0, 3])
    with torch.inference_mode():
        session.reference.kv[lost, 1, 0, 0, 3] = float("nan")
    before = state(session)
    with pytest.raises(PayloadError, match="NaN"):
        backend.backfill([session])
    assert_same(before, state(session))
    with torch.inference_mode():
        session.reference.kv[lost, 1, 0, 0, 3] = good
    assert backend.backfill([session])[0].whole


def test_a_fork_has_a_rest_of_its_own(backend, tokens):
    session = moved(backend, tokens)
    twin = backend.fork(session)
    backend.drop_rest([session])
    assert not session.whole and backend.backfill([twin])[0].whole


def test_a_session_that_was_continued_freely_still_takes_its_rest(backend, tokens):
    session = moved(backend, tokens)
    backend.append(session, tokens[:7])
    result = backend.backfill([session])[0]
    assert (result.scar_tokens, result.kept_tokens, result.whole) == (7, 127, False)


def test_a_budget_in_bytes_leaves_a_rest_too(backend, tokens):
    session = moved(backend, tokens, TransferPlan(budget_bytes=30_000, rest=True))
    assert session.stored + session.rest.tokens == 120
    assert backend.backfill([session])[0].whole


def test_repair_makes_a_cache_the_reference_again(backend, tokens):
    sessions = [moved(backend, tokens, plan) for plan in (TransferPlan(keep=0.3), TransferPlan(bits=4), PART)]
    backend.advance(sessions, [5, 0, 9])
    assert backend.repair(sessions) == [125, 120, 129]
    for session in sessions:
        assert session.whole and torch.equal(session.kv, session.reference.kv[: session.length])
        assert session.part is None and session.rest is None
    assert backend.measure(sessions, 30).kl.tolist() == [0.0, 0.0, 0.0]
    assert backend.advance(sessions, [5, 5, 5]).kl.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="no first part"):
        backend.backfill(sessions[2:])


def test_a_repair_of_a_whole_cache_is_refused_and_no_session_changes(backend, tokens):
    session, whole = moved(backend, tokens), backend.open(tokens, 120)
    before = state(session)
    with pytest.raises(ConfigError, match="session 1 of 2 has a whole cache"):
        backend.repair([session, whole])
    assert_same(before, state(session))


def test_monitors_follow_backfill_and_repair(backend, tokens):
    for settle in (backend.backfill, backend.repair):
        session = backend.open(tokens, 120)
        backend.watch(session)
        backend.migrate([session], [PART])
        backend.advance([session], [6])
        twin = backend.fork(session)
        twin.monitor = None
        for one in (session, twin):
            settle([one])
        backend.advance([session], [3])
        backend.advance([twin], [3])
        plan = TransferPlan(keep=0.3)
        assert backend.encode(session, plan) == backend.encode(twin, plan)
