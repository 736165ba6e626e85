"""Budgets in tokens and in bytes: what is sent, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan

from .conftest import VOCAB, make_model
from .plain import PLAIN


@pytest.mark.parametrize("budget", [1, 7, 64, 179, 180, 10_000])
def test_a_token_budget_is_what_is_sent(backend, tokens, budget):
    session = backend.open(tokens, 180)
    migration = backend.migrate([session], [TransferPlan(budget_tokens=budget)])[0]
    assert migration.sent_tokens == migration.kept_tokens == min(budget, 180)
    assert migration.whole == (budget >= 180)


def test_a_token_budget_chooses_what_the_same_fraction_does(backend, tokens):
    for budget in range(1, 120, 7):
        first, second = (backend.open(tokens, 120) for _ in range(2))
        backend.migrate([first, second], [TransferPlan(budget_tokens=budget), TransferPlan(keep=budget / 120)])
        assert np.array_equal(first.positions, second.positions)


def test_a_token_budget_counts_the_tokens_after_the_snapshot_and_not_the_prefix(backend, tokens):
    session = backend.open(tokens, 200)
    plan = TransferPlan(budget_tokens=50, prefix_tokens=60, snapshot_tokens=180)
    migration = backend.migrate([session], [plan])[0]
    assert migration.sent_tokens == 50 and migration.kept_tokens == 110
    assert set(range(60)) | set(range(180, 200)) <= set(session.positions.tolist())


def test_a_degraded_cache_sends_no_more_than_it_has(backend, tokens):
    session = backend.open(tokens, 200)
    backend.migrate([session], [TransferPlan(budget_tokens=80)])
    backend.advance([session], [10])
    assert backend.migrate([session], [TransferPlan(budget_tokens=85)])[0].sent_tokens == 85
    assert backend.migrate([session], [TransferPlan(budget_tokens=500)])[0].sent_tokens == 85


def test_a_prefix_that_covers_the_session_needs_no_budget(backend, tokens):
    session = backend.open(tokens, 100)
    for plan in (TransferPlan(budget_tokens=1, prefix_tokens=100), TransferPlan(budget_bytes=2000, prefix_tokens=100)):
        assert backend.migrate([session], [plan])[0].whole


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2])
@pytest.mark.parametrize("scope", ["sequence", "head"])
def test_a_byte_budget_bounds_the_payload_and_is_used(model, tokens, bits, scope):
    backend = KVBackend(make_model(), settings=replace(PLAIN, scope=scope))
    session = backend.open(tokens, 250)
    for budget in (6_000, 15_001, 40_000):
        payload = backend.encode(session, TransferPlan(budget_bytes=budget, bits=bits))
        restored = backend.restore(payload, session.reference)
        sent = len(restored.kv)
        assert len(payload) <= budget
        if sent < 250:
            # Quantisation scales come in groups of 32 keys.
            larger = backend.encode(session, TransferPlan(budget_tokens=min(250, sent + 32), bits=bits))
            assert len(larger) > budget


def test_a_large_byte_budget_sends_everything(backend, tokens):
    session = backend.open(tokens, 100)
    assert backend.migrate([session], [TransferPlan(budget_bytes=10**9)])[0].whole


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (dict(budget_tokens=20, snapshot_tokens=160), ["budget_tokens = 20", "20 tokens", "give 21"]),
        (dict(budget_bytes=300), ["budget_bytes = 300", "raise it"]),
        (dict(budget_bytes=9000, snapshot_tokens=100), ["budget_bytes = 9000", "81 tokens"]),
    ],
)
def test_budgets_that_hold_too_little_are_refused_and_change_nothing(backend, tokens, plan, words):
    sessions = [backend.open(tokens, 180) for _ in range(2)]
    with pytest.raises(ConfigError) as caught:
        backend.migrate(sessions, [TransferPlan(keep=0.5), TransferPlan(**plan)])
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert all(session.whole for session in sessions)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(keep=0.5, budget_tokens=10), "keep = 0.5 and budget_tokens = 10"),
        (dict(keep=0.5, budget_bytes=10), "keep = 0.5 and budget_bytes = 10"),
        (dict(budget_tokens=5, budget_bytes=10), "budget_tokens = 5 and budget_bytes = 10"),
        (dict(budget_tokens=0), "budget_tokens = 0"),
        (dict(budget_bytes=-1), "budget_bytes = -1"),
    ],
)
def test_contradictory_budgets_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        TransferPlan(**arguments)


def test_choices_repeat_exactly(backend):
    tokens = np.random.default_rng(2).integers(0, VOCAB, 150)
    session = backend.open(tokens, 140)
    plan = TransferPlan(budget_bytes=12_345, bits=8)
    assert backend.encode(session, plan) == backend.encode(session, plan)
