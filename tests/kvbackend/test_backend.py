"""Sessions, handovers and drift against an uncached forward pass under a mask."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from kvroam.errors import ConfigError, ModelError, PayloadError
from kvroam.kvbackend import KVBackend, KVSettings, TransferPlan

from .conftest import VOCAB, make_model
from .masked_forward import js, kl, masked_logits, nll
from .plain import PLAIN


@pytest.mark.parametrize("keep", [0.6, 0.1])
def test_drift_equals_masked_full_forward(exact, oracle_model, tokens, keep):
    session = exact.open(exact.reference(tokens), 180)
    exact.migrate([session], [TransferPlan(keep=keep, bits=32)])
    kept = session.positions.copy()
    drift = exact.advance([session], [25])
    full = masked_logits(oracle_model, tokens, [])[180:205]
    degraded = masked_logits(oracle_model, tokens, [(180, kept)])[180:205]
    targets = tokens[181:206]
    assert len(kept) == round(keep * 180)
    assert kl(full, degraded).sum() > 0.05
    assert drift.kl[0] / 25 == pytest.approx(kl(full, degraded).mean(), abs=1e-5)
    assert drift.js[0] / 25 == pytest.approx(js(full, degraded).mean(), abs=1e-5)
    assert drift.delta_nll[0] / 25 == pytest.approx((nll(degraded, targets) - nll(full, targets)).mean(), abs=1e-5)
    assert drift.matches[0] == (full.argmax(-1) == degraded.argmax(-1)).sum()
    assert drift.tokens[0] == 25


def test_logits_on_a_pruned_cache_equal_masked_full_forward(exact, oracle_model, tokens):
    session = exact.open(tokens, 200)
    exact.migrate([session], [TransferPlan(keep=0.3, bits=32)])
    expected = masked_logits(oracle_model, tokens, [(200, session.positions)])[200:220]
    with torch.inference_mode():
        block = exact.llm.extend([session.kv], [200], [tokens[200:220]])
        logits = exact.llm.logits(block.hidden[0]).numpy()
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def test_second_migration_compounds_on_the_degraded_cache(exact, oracle_model, tokens):
    session = exact.open(tokens, 150)
    exact.migrate([session], [TransferPlan(keep=0.4, bits=32)])
    first = session.positions.copy()
    exact.advance([session], [30])
    exact.migrate([session], [TransferPlan(keep=0.2, bits=32)])
    second = session.positions.copy()
    assert set(second) <= set(first) | set(range(150, 180))
    assert len(second) == round(0.2 * 180)
    drift = exact.advance([session], [20])
    full = masked_logits(oracle_model, tokens, [])[180:200]
    degraded = masked_logits(oracle_model, tokens, [(150, first), (180, second)])[180:200]
    assert drift.kl[0] / 20 == pytest.approx(kl(full, degraded).mean(), abs=1e-5)


def test_split_keeps_the_prefix_whole_and_the_tokens_after_the_snapshot(exact, oracle_model, tokens):
    session = exact.open(tokens, 200)
    plan = TransferPlan(keep=0.25, bits=32, prefix_tokens=60, snapshot_tokens=190)
    migration = exact.migrate([session], [plan])[0]
    kept = session.positions
    assert set(range(60)) <= set(kept) and set(range(190, 200)) <= set(kept)
    assert ((kept >= 60) & (kept < 190)).sum() == round(0.25 * 130)
    assert migration.sent_tokens == len(kept) - 60 and migration.total_tokens == 200
    drift = exact.advance([session], [10])
    full = masked_logits(oracle_model, tokens, [])[200:210]
    degraded = masked_logits(oracle_model, tokens, [(200, kept)])[200:210]
    assert drift.kl[0] / 10 == pytest.approx(kl(full, degraded).mean(), abs=1e-5)


def test_ragged_batch_equals_one_by_one(exact):
    rng = np.random.default_rng(3)
    scripts = [rng.integers(0, VOCAB, n) for n in (90, 250, 400)]
    lengths, counts = (60, 200, 330), [3, 1, 7]
    plans = [TransferPlan(keep=0.5, bits=32), TransferPlan(keep=0.2, bits=8), TransferPlan(keep=0.9, bits=4)]
    together = [exact.open(s, n) for s, n in zip(scripts, lengths, strict=True)]
    alone = [exact.fork(s) for s in together]
    exact.migrate(together, plans)
    batch = exact.advance(together, counts)
    for i, session in enumerate(alone):
        exact.migrate([session], [plans[i]])
        single = exact.advance([session], [counts[i]])
        assert batch.kl[i] == pytest.approx(single.kl[0], abs=1e-5)
        assert batch.delta_nll[i] == pytest.approx(single.delta_nll[0], abs=1e-4)
        assert batch.matches[i] == single.matches[0]
        assert np.array_equal(together[i].positions, session.positions)
        assert torch.allclose(together[i].kv, session.kv, atol=1e-5)


def test_micro_batches_do_not_change_the_result(model):
    rng = np.random.default_rng(4)
    results = []
    for batch_tokens in (200, 100000):
        backend = KVBackend(
            copy.deepcopy(model), settings=replace(PLAIN, batch_tokens=batch_tokens), cache_dtype=torch.float32
        )
        rng = np.random.default_rng(4)
        sessions = [backend.open(rng.integers(0, VOCAB, n + 20), n) for n in (40, 150, 90, 120)]
        backend.migrate(sessions, [TransferPlan(keep=0.5)] * 4)
        results.append(backend.advance(sessions, [4, 0, 2, 5]))
    assert results[0].kl == pytest.approx(results[1].kl, abs=1e-5)
    assert list(results[0].tokens) == [4, 0, 2, 5]


def test_whole_and_degraded_sessions_share_a_call(exact, tokens):
    sessions = [exact.open(tokens, n) for n in (200, 150, 100, 50)]
    alone = exact.fork(sessions[1])
    exact.migrate([sessions[1], sessions[3], alone], [TransferPlan(keep=0.3)] * 3)
    drift = exact.advance(sessions, [7, 9, 0, 0])
    expected = exact.advance([alone], [9])
    assert drift.kl == pytest.approx([0.0, expected.kl[0], 0.0, 0.0], abs=1e-5)
    assert drift.tokens.tolist() == [7, 9, 0, 0] and drift.matches[0] == 7
    assert [session.length for session in sessions] == [207, 159, 100, 50]


def test_tokens_one_by_one_equal_all_at_once(exact, tokens):
    sessions = [exact.open(tokens, 150) for _ in range(2)]
    exact.migrate(sessions, [TransferPlan(keep=0.3)] * 2)
    at_once = exact.advance(sessions[:1], [12])
    stepwise = [exact.advance(sessions[1:], [1]) for _ in range(12)]
    assert sum(d.kl[0] for d in stepwise) == pytest.approx(at_once.kl[0], abs=1e-4)
    assert torch.allclose(sessions[0].kv, sessions[1].kv, atol=1e-5)


def test_caches_grow_beyond_their_spare_room(exact, oracle_model, tokens):
    session = exact.open(tokens, 60)
    exact.migrate([session], [TransferPlan(keep=0.5, bits=32)])
    kept = session.positions.copy()
    drift = sum((exact.advance([session], [20]) for _ in range(9)), start=exact.measure([session], 0))
    degraded = masked_logits(oracle_model, tokens, [(60, kept)])[60:240]
    assert drift.kl[0] / 180 == pytest.approx(
        kl(masked_logits(oracle_model, tokens, [])[60:240], degraded).mean(), abs=1e-5
    )
    assert np.array_equal(session.positions, np.concatenate([kept, np.arange(60, 240)]))


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_equal_masked_full_forward(exact, oracle_model, seed):
    """Several handovers with token prefixes and snapshots, reading in between, other sessions in the same calls."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCAB, 220)
    session, other = exact.open(tokens, 100), exact.open(rng.integers(0, VOCAB, 250), int(rng.integers(20, 80)))
    full = masked_logits(oracle_model, tokens, [])
    stages = []
    for _ in range(4):
        prefix, snapshot = int(rng.integers(0, 60)), session.length - int(rng.integers(0, 12))
        plan = TransferPlan(float(rng.uniform(0.1, 1.0)), 32, prefix_tokens=prefix, snapshot_tokens=snapshot)
        exact.migrate([other, session], [TransferPlan(keep=0.5, bits=4), plan])
        stages.append((session.length, session.positions.copy()))
        start, count = session.length, int(rng.integers(1, 25))
        drift = exact.advance([other, session], [int(rng.integers(0, 9)), count])
        # A rebuilt prefix sees everything again, so the oracle's rows below 100 are the full ones by construction.
        degraded = masked_logits(oracle_model, tokens, stages)
        expected = kl(full[start : start + count], degraded[start : start + count])
        assert drift.kl[1] / count == pytest.approx(expected.mean(), abs=1e-5)


def test_lossless_handover_is_bitwise_equal_through_bytes(backend, tokens):
    session = backend.open(tokens, 200)
    restored = backend.restore(backend.encode(session, TransferPlan()), session.reference)
    assert restored.whole and torch.equal(restored.kv, session.kv)
    migration = backend.migrate([session], [TransferPlan()])[0]
    assert migration.whole and session.whole and migration.kept_tokens == 200


def test_lossy_wire_is_noticed_even_when_every_token_is_kept(exact, backend, tokens):
    for owner, plan in ((exact, TransferPlan()), (backend, TransferPlan(bits=8)), (backend, TransferPlan(bits=4))):
        session = owner.open(tokens, 100)
        migration = owner.migrate([session], [plan])[0]
        assert not migration.whole and not session.whole and migration.kept_tokens == 100


def test_restored_session_drifts_like_the_migrated_one(backend, tokens):
    session = backend.open(tokens, 120)
    plan = TransferPlan(keep=0.3, bits=8, prefix_tokens=20)
    other = backend.restore(backend.encode(session, plan), session.reference)
    backend.migrate([session], [plan])
    drift = backend.advance([session, other], [10, 10])
    assert drift.kl[0] > 0.01
    assert drift.kl[1] == pytest.approx(drift.kl[0], abs=1e-5)


def test_drift_grows_as_less_is_kept(backend):
    rng = np.random.default_rng(5)
    references = backend.references([rng.integers(0, VOCAB, 200) for _ in range(12)])
    means = []
    for keep in (1.0, 0.5, 0.1):
        sessions = [backend.open(r, 160) for r in references]
        backend.migrate(sessions, [TransferPlan(keep=keep)] * 12)
        means.append(backend.measure(sessions, 40).kl.mean())
    assert means[0] == 0.0
    assert 0.1 < means[1] < means[2]


def test_fewer_bits_drift_more(backend):
    rng = np.random.default_rng(6)
    references = backend.references([rng.integers(0, VOCAB, 200) for _ in range(8)])
    means = []
    for bits in (8, 4):
        sessions = [backend.open(r, 160) for r in references]
        backend.migrate(sessions, [TransferPlan(bits=bits)] * 8)
        means.append(backend.measure(sessions, 40).kl.mean())
    assert 0.0 < means[0] < 0.2 * means[1]


def test_prefix_covering_the_session_heals_it(backend, tokens):
    session = backend.open(tokens, 150)
    backend.migrate([session], [TransferPlan(keep=0.2)])
    backend.advance([session], [10])
    assert not session.whole
    migration = backend.migrate([session], [TransferPlan(keep=0.5, prefix_tokens=10_000)])[0]
    assert migration.whole and migration.sent_tokens == 0
    drift = backend.advance([session], [10])
    assert drift.kl[0] == 0.0 and drift.matches[0] == 10
    assert torch.equal(session.kv, session.reference.kv[:170])


def test_full_keep_does_not_heal_what_is_gone(backend, tokens):
    session = backend.open(tokens, 150)
    backend.migrate([session], [TransferPlan(keep=0.2)])
    backend.migrate([session], [TransferPlan(keep=1.0)])
    assert not session.whole and len(session.positions) == 30


def test_whole_session_runs_no_forward_pass(backend, tokens, monkeypatch):
    session = backend.open(tokens, 100)

    def refuse(*args, **kwargs):
        raise AssertionError("forward pass on a whole session")

    for name in ("prefill", "extend"):
        monkeypatch.setattr(backend.llm, name, refuse)
    backend.migrate([session], [TransferPlan()])
    drift = backend.advance([session], [50])
    assert (drift.kl[0], drift.js[0], drift.delta_nll[0], drift.matches[0]) == (0.0, 0.0, 0.0, 50)
    backend.migrate([session], [TransferPlan(keep=0.5)])
    with pytest.raises(AssertionError, match="forward pass"):
        backend.advance([session], [1])


def test_handover_itself_runs_no_forward_pass(backend, tokens, monkeypatch):
    session = backend.open(tokens, 100)
    backend.migrate([session], [TransferPlan(keep=0.5)])
    backend.advance([session], [10])
    monkeypatch.setattr(backend.llm.base, "forward", lambda *a, **k: pytest.fail("forward pass in migrate"))
    assert backend.migrate([session], [TransferPlan(keep=0.3)])[0].kept_tokens == 33


def test_measure_leaves_the_session_where_it_is(backend, tokens):
    session = backend.open(tokens, 280)
    backend.migrate([session], [TransferPlan(keep=0.3)])
    before = session.kv.clone()
    drift = backend.measure([session], 50)
    assert drift.tokens[0] == 20
    assert session.length == 280 and torch.equal(session.kv, before)
    assert backend.advance([session], [20]).kl[0] == pytest.approx(drift.kl[0], abs=1e-6)


def test_fork_is_independent(backend, tokens):
    session = backend.open(tokens, 150)
    backend.migrate([session], [TransferPlan(keep=0.3)])
    twin = backend.fork(session)
    drift = backend.advance([session], [8])
    assert twin.length == 150 and len(twin.positions) == 45
    assert backend.advance([twin], [8]).kl[0] == pytest.approx(drift.kl[0], abs=1e-6)


def test_append_continues_beyond_the_script_on_a_private_reference(exact, oracle_model, tokens):
    new = np.random.default_rng(11).integers(0, VOCAB, 20)
    reference = exact.reference(tokens[:150])
    session, other = exact.open(reference), exact.open(reference)
    exact.migrate([session], [TransferPlan(keep=0.4, bits=32)])
    kept = session.positions.copy()
    drift = exact.append(session, new)
    script = np.concatenate([tokens[:150], new])
    full, degraded = masked_logits(oracle_model, script, []), masked_logits(oracle_model, script, [(150, kept)])
    assert drift.kl[0] / 20 == pytest.approx(kl(full[150:], degraded[150:]).mean(), abs=1e-5)
    assert session.length == 170 and other.length == len(other.reference) == 150
    assert torch.allclose(session.reference.kv, exact.reference(script).kv, atol=1e-5)


def test_append_to_a_whole_session_keeps_it_whole(backend, tokens):
    session = backend.open(tokens[:100])
    drift = backend.append(session, tokens[100:110])
    assert session.whole and session.length == 110 and drift.kl[0] == 0.0 and drift.tokens[0] == 10


def test_reference_is_prefilled_once(model, tokens, monkeypatch):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    calls = []
    prefill = backend.llm.prefill
    monkeypatch.setattr(backend.llm, "prefill", lambda scripts: calls.append(len(scripts)) or prefill(scripts))
    first = backend.reference(tokens)
    again = backend.references([tokens.copy(), tokens[:50], tokens])
    assert again[0] is again[2] is first and len(again[1]) == 50
    assert sum(calls) == 2


def test_scripts_can_be_objects_tuples_or_tokens(backend, tokens):
    answer, query = np.zeros(300, np.int8), np.full(300, -1, np.int16)
    answer[200], query[200] = 2, 0
    script = SimpleNamespace(tokens=tokens, answer=answer, query=query)
    from_object, from_tuple, plain = backend.references([script, (tokens, answer, query), tokens.tolist()])
    assert from_object is from_tuple and from_object.marks.rows == [199]
    assert plain is not from_object and plain.marks.rows == []


def test_batched_prefill_equals_single(exact):
    rng = np.random.default_rng(8)
    scripts = [rng.integers(0, VOCAB, n) for n in (70, 33, 120)]
    for script, reference in zip(scripts, exact.references(scripts), strict=True):
        (single,) = exact.llm.prefill([script]).kv
        assert torch.allclose(reference.kv, single, atol=1e-5)
        assert len(reference) == len(script)


class RoundingCache(DynamicCache):
    """Transformers' own cache, with chosen parts rounded to half precision as they are written."""

    def __init__(self, keys: bool, values: bool) -> None:
        super().__init__()
        self.rounded = keys, values

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        states = (key_states, value_states)
        states = [x.half().float() if yes else x for x, yes in zip(states, self.rounded, strict=True)]
        return super().update(*states, layer_idx, *args, **kwargs)


def test_attention_sees_the_rounded_keys_and_values(backend, oracle_model, tokens):
    hidden = backend.reference(tokens).hidden
    distance = {}
    for keys in (False, True):
        for values in (False, True):
            with torch.no_grad():
                out = oracle_model.model(torch.from_numpy(tokens)[None], past_key_values=RoundingCache(keys, values))
            distance[keys, values] = float((out.last_hidden_state[0] - hidden).abs().mean())
    # Not zero: noise of 1e-7 moves a few numbers to the neighbouring half.
    assert distance[True, True] < 0.2 * min(distance[k] for k in distance if k != (True, True))


def test_serving_cache_is_rounded_to_its_precision(backend, exact, tokens):
    served, precise = backend.reference(tokens), exact.reference(tokens)
    assert served.kv.dtype == torch.float16
    assert torch.allclose(served.kv[:, 0].float(), precise.kv[:, 0].half().float(), atol=2e-3)
    assert not torch.equal(served.hidden, precise.hidden)


def test_memory_bound_forgets_unused_references_and_refuses_too_many_sessions(model):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN, memory_bytes=1 << 20)
    rng = np.random.default_rng(9)
    for _ in range(6):
        backend.close(backend.open(rng.integers(0, VOCAB, 200)))
    assert backend.memory_used <= 1 << 20
    held = []
    with pytest.raises(ConfigError, match="memory_bytes"):
        for _ in range(6):
            held.append(backend.open(rng.integers(0, VOCAB, 200)))
    assert 1 <= len(held) < 6


def test_least_recently_used_reference_is_forgotten_first(model):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN, memory_bytes=1 << 20)
    rng = np.random.default_rng(10)
    first, second, third = (rng.integers(0, VOCAB, 200) for _ in range(3))
    kept, lost = backend.reference(first), backend.reference(second)
    assert 2 * kept.nbytes <= 1 << 20 < 3 * kept.nbytes
    backend.reference(first)
    backend.reference(third)
    assert backend.reference(first) is kept
    assert backend.reference(second) is not lost


def test_one_bad_plan_leaves_all_sessions_unchanged(backend, tokens):
    sessions = [backend.open(tokens, 100) for _ in range(2)]
    with pytest.raises(ConfigError, match="snapshot_tokens"):
        backend.migrate(sessions, [TransferPlan(keep=0.5), TransferPlan(snapshot_tokens=101)])
    assert sessions[0].whole


def test_closing_gives_memory_back(model, tokens):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    reference = backend.reference(tokens)
    idle = backend.memory_used
    sessions = [backend.open(reference, 150) for _ in range(3)]
    backend.migrate(sessions, [TransferPlan(keep=0.5)] * 3)
    assert backend.memory_used > idle
    backend.close(sessions[0])
    del sessions
    assert backend.memory_used == idle


def test_closed_session_is_refused_in_one_line_and_no_other_session_changes(backend, tokens):
    closed, other = backend.open(tokens), backend.open(tokens, 100)
    backend.close(closed)
    both = [other, closed]
    calls = [lambda: backend.migrate(both, [TransferPlan(keep=0.5)] * 2), lambda: backend.repair(both),
             lambda: backend.advance(both, [1, 0]), lambda: backend.measure(both, 1), lambda: backend.backfill(both),
             lambda: backend.drop_rest(both), lambda: backend.encode(closed, TransferPlan()),
             lambda: backend.complete(closed, b""), lambda: backend.fork(closed), lambda: backend.save(closed)]
    for call in calls:
        with pytest.raises(ConfigError, match="is closed; open or fork another") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert other.whole and other.length == 100 and not other.closed and other.rest is None


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_keep_outside_its_range_is_named(keep):
    with pytest.raises(ConfigError, match=str(keep)):
        TransferPlan(keep=keep)


@pytest.mark.parametrize(
    "call",
    [
        lambda b, s: b.advance([s], [999]),
        lambda b, s: b.advance([s], [-1]),
        lambda b, s: b.advance([s, s], [1, 1]),
        lambda b, s: b.advance([s], [1, 1]),
        lambda b, s: b.migrate([s], []),
        lambda b, s: b.migrate([s], [TransferPlan(snapshot_tokens=999)]),
        lambda b, s: b.open([1, 2, 3], 4),
        lambda b, s: b.open([]),
        lambda b, s: b.open([1, VOCAB]),
        lambda b, s: b.open(np.zeros(1025, int)),
        lambda b, s: b.open([0.5, 1.0]),
        lambda b, s: b.open([[1, 2]]),
        lambda b, s: b.references([(1, 2, 3)]),
        lambda b, s: b.measure([s], -1),
        lambda b, s: b.reference([1, 2, 3], answer=[0, 1]),
        lambda b, s: b.reference([1, 2, 3], answer=[0, 1, 3]),
        lambda b, s: b.reference([1, 2, 3], answer=[0, 1, 1], query=[-1, 0, -1]),
        lambda b, s: b.append(s, np.zeros(1000, int)),
        lambda b, s: b.bytes_per_token(3),
        lambda b, s: TransferPlan(prefix_tokens=-1),
        lambda b, s: KVSettings(scorer="windw"),
        lambda b, s: KVSettings(pool=4),
    ],
)
def test_unusable_calls_are_refused_in_one_line(backend, tokens, call):
    session = backend.open(tokens, 100)
    with pytest.raises(ConfigError) as caught:
        call(backend, session)
    assert "\n" not in str(caught.value)
    assert session.length == 100


def test_payload_of_another_script_is_refused(backend, tokens):
    blob = backend.encode(backend.open(tokens, 100), TransferPlan())
    with pytest.raises(PayloadError, match="script"):
        backend.restore(blob, backend.reference(tokens[::-1].copy()))
    with pytest.raises(PayloadError, match="script"):
        backend.restore(blob, backend.reference(tokens[:80]))


def test_payload_of_another_model_or_tokenizer_is_refused(backend, model, tokens):
    other = KVBackend(make_model(seed=1), "tok", settings=PLAIN)
    retokenised = KVBackend(copy.deepcopy(model), "other", settings=PLAIN)
    blob = backend.encode(backend.open(tokens, 50), TransferPlan(keep=0.5))
    with pytest.raises(PayloadError, match="model"):
        other.restore(blob, other.reference(tokens))
    with pytest.raises(PayloadError, match="tokenizer"):
        retokenised.restore(blob, retokenised.reference(tokens))


@pytest.mark.parametrize("cache_dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_hand_over_without_loss(model, tokens, cache_dtype):
    backend = KVBackend(copy.deepcopy(model).bfloat16(), settings=PLAIN, cache_dtype=cache_dtype)
    session = backend.open(tokens, 100)
    assert backend.migrate([session], [TransferPlan()])[0].whole
    backend.migrate([session], [TransferPlan(keep=0.3)])
    drift = backend.advance([session], [10])
    assert 0.0 < drift.kl[0] < np.inf


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_absent_device_is_one_clear_error(device, tmp_path):
    with pytest.raises(ConfigError, match=device) as caught:
        KVBackend.load(str(tmp_path), device=device)
    assert "\n" not in str(caught.value)


def test_missing_model_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        KVBackend.load(str(tmp_path))
    assert "\n" not in str(caught.value)
