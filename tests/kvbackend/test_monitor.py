"""Saliency kept from token to token equals saliency computed at the handover."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError
from kvroam.kvbackend import SCORERS, KVBackend, TransferPlan
from kvroam.kvbackend.scorers.view import View

from .conftest import VOCAB
from .plain import PLAIN
from .test_selection import eager_attention


def build(model, **settings) -> KVBackend:
    return KVBackend(copy.deepcopy(model), "tok", settings=replace(PLAIN, **settings), cache_dtype=torch.float32)


def scores(backend, session, name="window"):
    return SCORERS[name]().score(View(session, session.length, backend.llm.scaling, backend.settings.scope))


@pytest.mark.parametrize("scope", ["sequence", "head"])
@pytest.mark.parametrize("seed", range(4))
def test_kept_scores_equal_recomputed_ones_throughout_random_histories(model, scope, seed):
    backend = build(model, scope=scope)
    rng = np.random.default_rng(seed)
    reference = backend.reference(rng.integers(0, VOCAB, 400))
    watched, plain = backend.open(reference, 20), backend.open(reference, 20)
    backend.watch(watched)
    for _ in range(12):
        if rng.random() < 0.3:
            plan = TransferPlan(float(rng.uniform(0.3, 1.0)), 32, prefix_tokens=int(rng.integers(0, 12)))
            backend.migrate([watched], [plan])
            backend.migrate([plain], [plan])
        count = int(rng.integers(0, 45))
        backend.advance([watched], [count])
        backend.advance([plain], [count])
        for name in ("window", "window-raw"):
            assert scores(backend, watched, name) == pytest.approx(scores(backend, plain, name), abs=1e-5)
        assert np.array_equal(watched.positions, plain.positions)
    assert not watched.whole


def test_kept_scores_equal_eager_attention(model, oracle_model, tokens):
    backend = build(model)
    session = backend.open(tokens, 100)
    backend.watch(session)
    for _ in range(30):
        backend.advance([session], [3])
    expected = eager_attention(oracle_model, tokens[:190]).mean((0, 1))[158:190].sum(0)
    assert scores(backend, session, "window-raw") == pytest.approx(expected, abs=1e-5)


def test_a_handover_needs_neither_forward_pass_nor_products_of_queries_and_keys(model, tokens, monkeypatch):
    backend = build(model)
    session, plain = backend.open(tokens, 150), backend.open(tokens, 150)
    backend.watch(session)

    def refuse(*args, **kwargs):
        raise AssertionError("computed at the handover")

    with monkeypatch.context() as patched:
        patched.setattr(View, "_weights", refuse)
        patched.setattr(backend.llm, "_run", refuse)
        payload = backend.encode(session, TransferPlan(keep=0.3))
        with pytest.raises(AssertionError, match="computed at the handover"):
            backend.encode(plain, TransferPlan(keep=0.3))
    assert payload == backend.encode(plain, TransferPlan(keep=0.3))


def test_an_older_snapshot_is_computed_anew(model, tokens):
    backend = build(model)
    session, plain = backend.open(tokens, 150), backend.open(tokens, 150)
    backend.watch(session)
    plan = TransferPlan(keep=0.3, snapshot_tokens=120)
    assert backend.encode(session, plan) == backend.encode(plain, plan)


@pytest.mark.parametrize("name", ["attention-sum", "attention-sum-raw", "key-norm"])
def test_other_scorers_are_not_disturbed(model, tokens, name):
    backend = build(model, scorer=name)
    session, plain = backend.open(tokens, 150), backend.open(tokens, 150)
    backend.watch(session)
    assert backend.encode(session, TransferPlan(keep=0.3)) == backend.encode(plain, TransferPlan(keep=0.3))


def test_free_appends_and_forks_stay_watched(model, tokens):
    backend = build(model)
    session, plain = backend.open(tokens, 150), backend.open(tokens, 150)
    backend.watch(session)
    twin = backend.fork(session)
    assert twin.monitor is not None and twin.monitor is not session.monitor
    new = np.random.default_rng(5).integers(0, VOCAB, 40)
    for each in (session, plain):
        backend.append(each, new)
    assert scores(backend, session) == pytest.approx(scores(backend, plain), abs=1e-5)
    assert twin.length == 150 and scores(backend, twin).shape == (150,)


def test_memory_of_monitors_is_counted_and_given_back(model, tokens):
    backend = build(model)
    session = backend.open(tokens, 150)
    before = backend.memory_used
    backend.watch(session)
    assert backend.memory_used - before == session.monitor.nbytes > 0
    backend.advance([session], [150])
    assert backend.memory_used - before == session.monitor.nbytes
    backend.close(session)
    assert backend.memory_used == before
    with pytest.raises(ConfigError, match="closed"):
        backend.watch(session)
