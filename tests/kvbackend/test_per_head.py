"""Tokens chosen per layer and KV head, against an uncached forward pass with a mask of its own for every head."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError
from kvroam.kvbackend import SCORERS, KVBackend, KVSettings, TransferPlan
from kvroam.kvbackend.handover.selection import select_slots
from kvroam.kvbackend.scorers.view import View

from .conftest import VOCAB
from .masked_forward import kl, masked_logits, per_head_logits
from .plain import PLAIN
from .test_selection import eager_attention

LAYERS, KV_HEADS = 2, 2


def lists_of(session) -> np.ndarray:
    """Positions [n, L, Hkv] of a session."""
    where = session.positions
    return where if where.ndim == 3 else np.broadcast_to(where[:, None, None], (len(where), LAYERS, KV_HEADS))


@pytest.fixture(scope="module")
def perhead(model):
    return KVBackend(copy.deepcopy(model), "tok", settings=replace(PLAIN, scope="head"), cache_dtype=torch.float32)


def test_the_oracle_with_equal_lists_is_the_usual_one(oracle_model, tokens):
    kept = np.arange(0, 150, 3)
    lists = np.broadcast_to(kept[:, None, None], (50, LAYERS, KV_HEADS))
    expected = masked_logits(oracle_model, tokens, [(150, kept)])
    assert per_head_logits(oracle_model, tokens, [(150, lists)]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("keep", [0.5, 0.1])
def test_drift_equals_the_per_head_oracle(perhead, oracle_model, tokens, keep):
    session = perhead.open(tokens, 180)
    perhead.migrate([session], [TransferPlan(keep=keep, bits=32)])
    lists = session.positions.copy()
    assert lists.shape == (round(keep * 180), LAYERS, KV_HEADS)
    assert any(not np.array_equal(lists[:, 0, 0], lists[:, i, j]) for i, j in np.ndindex(LAYERS, KV_HEADS))
    full = masked_logits(oracle_model, tokens, [])[180:205]
    degraded = per_head_logits(oracle_model, tokens, [(180, lists)])[180:205]
    with torch.inference_mode():
        hidden = perhead.llm.extend([session.kv], [180], [tokens[180:205]]).hidden[0]
        logits = perhead.llm.logits(hidden).numpy()
    drift = perhead.advance([session], [25])
    assert np.abs(logits - degraded).max() <= 1e-5 * np.abs(degraded).max()
    assert kl(full, degraded).sum() > 0.05
    assert drift.kl[0] / 25 == pytest.approx(kl(full, degraded).mean(), abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_ragged_histories_equal_the_per_head_oracle(perhead, oracle_model, seed):
    """Rebuilt prefixes and old snapshots leave heads with lists of different lengths."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCAB, 220)
    session, other = perhead.open(tokens, 100), perhead.open(rng.integers(0, VOCAB, 250), 70)
    full = masked_logits(oracle_model, tokens, [])
    stages, ragged = [], False
    for turn in range(4):
        prefix = 0 if turn == 0 else int(rng.integers(10, 60))
        keep, snapshot = float(rng.uniform(0.2, 0.8)), session.length - int(rng.integers(12))
        plan = TransferPlan(1.0 if turn == 1 else keep, 32, prefix_tokens=prefix, snapshot_tokens=snapshot)
        perhead.migrate([other, session], [TransferPlan(keep=0.5, bits=4), plan])
        ragged |= session.empty is not None
        stages.append((session.length, lists_of(session).copy()))
        start, count = session.length, int(rng.integers(1, 25))
        drift = perhead.advance([other, session], [int(rng.integers(0, 9)), count])
        degraded = per_head_logits(oracle_model, tokens, stages)
        expected = kl(full[start : start + count], degraded[start : start + count])
        assert drift.kl[1] / count == pytest.approx(expected.mean(), abs=1e-5)
    assert ragged


def test_ragged_heads_in_a_batch_equal_one_by_one(perhead, exact):
    rng = np.random.default_rng(12)
    scripts, lengths, counts = [rng.integers(0, VOCAB, n) for n in (90, 250, 200)], (60, 200, 150), [3, 9, 5]
    together = [perhead.open(s, n) for s, n in zip(scripts, lengths, strict=True)]
    perhead.migrate(together, [TransferPlan(keep=k, bits=32) for k in (0.5, 0.2, 0.9)])
    perhead.migrate(together[1:2], [TransferPlan(keep=0.3, bits=32, prefix_tokens=40)])
    assert together[1].empty is not None and together[0].empty is None
    alone = [perhead.fork(s) for s in together]
    batch = perhead.advance(together, counts)
    for i, session in enumerate(alone):
        assert batch.kl[i] == pytest.approx(perhead.advance([session], [counts[i]]).kl[0], abs=1e-5)
        assert torch.allclose(together[i].kv, session.kv, atol=1e-5)


def test_each_head_keeps_the_tokens_that_its_own_queries_attend_to(perhead, oracle_model, tokens):
    session = perhead.open(tokens, 150)
    perhead.migrate([session], [TransferPlan(keep=0.4, bits=32)])
    weights = eager_attention(oracle_model, tokens[:150])[:, :, 118:].sum(2).reshape(LAYERS, KV_HEADS, -1, 150).mean(2)
    for layer, head in np.ndindex(LAYERS, KV_HEADS):
        raw = weights[layer, head]
        pooled = np.array([raw[max(0, i - 2) : i + 3].max() for i in range(150)])
        guarded = {*range(4), *range(142, 150)}
        free = [i for i in np.argsort(-pooled, kind="stable") if i not in guarded][: 60 - 12]
        assert session.positions[:, layer, head].tolist() == sorted(guarded | set(free))


@pytest.mark.parametrize("name", [name for name in SCORERS if name not in ("window", "reconstruction")])
def test_every_scorer_ranks_heads_on_their_own(perhead, oracle_model, tokens, name):
    session = perhead.open(tokens, 80)
    views = [View(session, 80, perhead.llm.scaling, scope, perhead.llm) for scope in ("head", "sequence")]
    scores, shared = map(SCORERS[name]().score, views)
    assert scores.shape == (LAYERS, KV_HEADS, 80) and shared.shape == (80,)
    if name == "random":
        assert len(np.unique(scores)) == scores.size
    elif name == "attention-sum-raw":
        assert scores.sum(1).mean(0) == pytest.approx(shared, abs=1e-4)
    else:
        assert scores.mean((0, 1)) == pytest.approx(shared, abs=1e-5)


def test_slots_by_hand():
    positions = np.array([[0, 0], [2, 3], [5, 7], [8, 9], [9, -1]])[:, None]
    scores = np.array([[[5, 1, 9, 2, 3], [1, 9, 8, 7, 99]]], float)
    slots = select_slots(scores, positions, start=1, stop=10, keep=4 / 9, sinks=0, recent=0)
    assert slots[:, 0].T.tolist() == [[1, 2, 3, 4], [1, 2, 3, -1]]
    slots = select_slots(scores, positions, start=1, stop=8, keep=1 / 7, sinks=0, recent=0)
    assert slots[:, 0].T.tolist() == [[2, 3, 4], [1, 3, -1]]


def test_slots_of_lists_with_gaps_by_hand():
    """After a ragged handover new tokens follow the empty slots."""
    positions = np.array([[2, 3], [5, -1], [-1, -1], [8, 8], [9, 9]])[:, None]
    scores = np.array([[[1, 5, 99, 3, 2], [1, 99, 99, 7, 4]]], float)
    slots = select_slots(scores, positions, start=0, stop=9, keep=2 / 9, sinks=0, recent=0)
    assert slots[:, 0].T.tolist() == [[1, 3, 4], [0, 3, 4]]


def ragged_session(backend, tokens):
    """A session of 190 tokens with empty slots before its newest rows."""
    session = backend.open(tokens, 150)
    backend.migrate([session], [TransferPlan(keep=0.4, bits=32)])
    backend.migrate([session], [TransferPlan(bits=32, prefix_tokens=40)])
    backend.advance([session], [40])
    assert session.empty is not None and not session.empty[-1].any()
    return session


def attention_by_hand(session, layer, head, first):
    """Weights float64 [queries, rows] that queries first.. pay to the rows that this KV head holds, and these rows."""
    held = np.flatnonzero(session.positions[:, layer, head] >= 0)
    keys = session.kv[held, layer, 0, head].double().numpy()
    queries = session.queries(first, session.length)[:, layer, 2 * head : 2 * head + 2].double().numpy()
    scores = np.einsum("qgd,kd->gqk", queries, keys) / np.sqrt(32)
    later = session.positions[held, layer, head] > np.arange(first, session.length)[:, None]
    weights = np.exp(np.where(later, -np.inf, scores))
    return (weights / np.maximum(weights.sum(-1, keepdims=True), 1e-300)).mean(0), held


@pytest.mark.parametrize(("name", "first"), [("window-raw", 158), ("attention-sum-raw", 0)])
def test_empty_slots_attract_no_attention(perhead, tokens, name, first):
    session = ragged_session(perhead, tokens)
    scores = SCORERS[name]().score(View(session, 190, perhead.llm.scaling, perhead.settings.scope))
    for layer, head in np.ndindex(LAYERS, KV_HEADS):
        weights, held = attention_by_hand(session, layer, head, first)
        heads = 2 if name == "attention-sum-raw" else 1
        assert scores[layer, head, held] == pytest.approx(weights.sum(0) * heads, abs=1e-4)


def test_keeping_everything_stays_whole_and_a_prefix_heals(perhead, tokens):
    session = perhead.open(tokens, 120)
    assert perhead.migrate([session], [TransferPlan(bits=32)])[0].whole
    perhead.migrate([session], [TransferPlan(keep=0.3, bits=32)])
    perhead.advance([session], [5])
    assert not perhead.migrate([session], [TransferPlan(bits=32)])[0].whole
    assert perhead.migrate([session], [TransferPlan(prefix_tokens=125)])[0].whole
    assert session.positions.tolist() == list(range(125))


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_payloads_carry_the_lists_and_their_bytes_are_counted(perhead, tokens, bits):
    session, other = perhead.open(tokens, 200), perhead.open(tokens, 200)
    payloads = [perhead.encode(session, TransferPlan(budget_tokens=n, bits=bits)) for n in (64, 128)]
    assert (len(payloads[1]) - len(payloads[0])) / 64 == pytest.approx(perhead.bytes_per_token(bits), rel=0.02)
    restored = perhead.restore(payloads[0], session.reference)
    perhead.migrate([other], [TransferPlan(budget_tokens=64, bits=bits)])
    assert np.array_equal(restored.positions, other.positions) and torch.equal(restored.kv, other.kv)
    drifts = perhead.advance([restored, other], [20, 20])
    assert drifts.kl[0] == pytest.approx(drifts.kl[1], abs=1e-6) and drifts.kl[0] > 0.01


def test_a_backend_that_shares_lists_goes_on_with_the_lists_it_receives(perhead, exact, oracle_model, tokens):
    payload = perhead.encode(perhead.open(tokens, 150), TransferPlan(keep=0.4, bits=32))
    session = exact.restore(payload, exact.reference(tokens))
    first = session.positions.copy()
    exact.advance([session], [20])
    exact.migrate([session], [TransferPlan(keep=0.3, bits=32)])
    drift = exact.advance([session], [20])
    stages = [(150, first), (170, session.positions[:51])]
    degraded = per_head_logits(oracle_model, tokens, stages)[170:190]
    full = masked_logits(oracle_model, tokens, [])[170:190]
    assert drift.kl[0] / 20 == pytest.approx(kl(full, degraded).mean(), abs=1e-5)


def test_unknown_scope_is_named():
    with pytest.raises(ConfigError, match="'layer'"):
        KVSettings(scope="layer")
