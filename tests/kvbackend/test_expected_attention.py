"""Expected attention against draws from the normal distribution, and its statistics against the model's own queries."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.scorers.expected_attention import ExpectedAttention, mean_rotation, unrotated
from kvroam.kvbackend.scorers.view import View

from .conftest import make_model


def view_of(backend, session, scope="head"):
    return View(session, session.length, backend.llm.scaling, scope, backend.llm)


def rotation(position: int, dim: int, theta: float = 1e4) -> np.ndarray:
    """Llama's rotation of one position as a matrix, from its definition."""
    half = dim // 2
    angle = position * theta ** (-np.arange(half) / half)
    matrix = np.zeros((dim, dim))
    for i, a in enumerate(angle):
        matrix[i, i] = matrix[half + i, half + i] = np.cos(a)
        matrix[i, half + i], matrix[half + i, i] = -np.sin(a), np.sin(a)
    return matrix


def test_queries_are_turned_back_and_their_distribution_forth(exact, tokens):
    session = exact.open(tokens, 90)
    mean, covariance = ExpectedAttention(history=40, horizon=7).statistics(view_of(exact, session))
    queries = session.queries(50, 90).double().numpy()  # [40, L, H, D]
    still = np.stack([q @ rotation(50 + i, 32) for i, q in enumerate(queries)])  # q R is R^T q
    turn = np.mean([rotation(p, 32) for p in range(90, 97)], axis=0)
    for layer, head in np.ndindex(2, 4):
        drawn = still[:, layer, head] @ turn.T
        assert mean[layer, head].numpy() == pytest.approx(drawn.mean(0), abs=1e-4)
        assert covariance[layer, head].numpy() == pytest.approx(np.cov(drawn.T, bias=True), abs=1e-3)


def test_weights_are_the_mean_of_many_draws(exact, tokens):
    session, rng = exact.open(tokens, 60), np.random.default_rng(5)
    scorer, scaling = ExpectedAttention(history=60, horizon=30), 0.4 * exact.llm.scaling
    view = View(session, 60, scaling, "head", exact.llm)  # flatter than the model's, or few draws would decide
    mean, covariance = (x.double().numpy() for x in scorer.statistics(view))
    found = scorer.score(view)
    for layer, kv_head in np.ndindex(2, 2):
        keys = view.keys[:, layer, kv_head].double().numpy()
        expected = np.zeros(60)
        for head in (2 * kv_head, 2 * kv_head + 1):
            draws = rng.multivariate_normal(mean[layer, head], covariance[layer, head], 100_000, tol=1e-3)
            drawn = np.exp(draws @ keys.T * scaling).mean(0)
            expected += drawn / drawn.sum() / 2
        assert found[layer, kv_head] == pytest.approx(expected, rel=0.03)


def test_values_weigh_where_they_are_asked_to(exact, tokens):
    session = exact.open(tokens, 80)
    plain, weighed = (ExpectedAttention(by_value=x).score(view_of(exact, session)) for x in (False, True))
    norms = session.kv[:, :, 1].norm(dim=-1).permute(1, 2, 0).double().numpy()
    assert weighed == pytest.approx(plain * norms, rel=1e-5)
    one_list = ExpectedAttention().score(view_of(exact, session, "sequence"))
    assert one_list == pytest.approx(plain.mean((0, 1)), rel=1e-5)


@pytest.mark.parametrize("scope", ["sequence", "head"])
def test_a_pruned_session_is_ranked_by_what_it_holds(exact, tokens, scope):
    session, settings = exact.open(tokens, 120), exact.settings
    try:
        exact.settings = replace(settings, scorer="expected-attention", scope=scope)
        exact.migrate([session], [TransferPlan(keep=0.5)])
        exact.advance([session], [20])
        scores = ExpectedAttention().score(view_of(exact, session))
        assert scores.shape == (2, 2, 80) and scores.sum(-1) == pytest.approx(np.ones((2, 2)), abs=1e-5)
        exact.migrate([session], [TransferPlan(keep=0.2)])
        assert session.stored == 28
    finally:
        exact.settings = settings


def test_rotations_that_are_scaled_or_partial_are_undone():
    rng = torch.Generator().manual_seed(3)
    queries, speeds = torch.randn(5, 2, 12, generator=rng), torch.tensor([1.0, 0.1, 0.01, 0.0])
    angle = torch.arange(5.0)[:, None] * speeds
    cos, sin = 1.5 * angle.cos(), 1.5 * angle.sin()
    turned = torch.stack([q @ mean_rotation(cos[i : i + 1], sin[i : i + 1], 12).T for i, q in enumerate(queries)])
    assert unrotated(turned, cos, sin).numpy() == pytest.approx(queries.numpy(), abs=1e-5)
    assert torch.equal(turned[..., 8:], queries[..., 8:])


def test_a_model_that_rotates_otherwise_is_refused(tokens):
    backend = KVBackend(copy.deepcopy(make_model()), settings=None)
    table = backend.llm.base.rotary_emb.forward
    session = backend.open(tokens, 100)
    backend.llm.base.rotary_emb.forward = lambda x, where: tuple(half.flip(-1) for half in table(x, where))
    with pytest.raises(ConfigError, match="turns queries back as Llama"):
        ExpectedAttention().score(view_of(backend, session))


@pytest.mark.parametrize("wrong", [dict(history=0), dict(horizon=0)])
def test_unusable_parameters_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = 0"):
        ExpectedAttention(**wrong)
