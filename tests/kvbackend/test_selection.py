"""Which tokens survive: selection by hand, scorers against eager attention, and the paper's function."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.errors import ConfigError, PayloadError
from kvroam.kvbackend import SCORERS, KVBackend, TransferPlan, extract_top_k_kv_cache
from kvroam.kvbackend.handover.selection import select_rows
from kvroam.kvbackend.scorers.view import View

from .conftest import VOCAB
from .plain import PLAIN


def test_top_scores_with_guarded_ends():
    scores = np.array([0, 0, 9, 1, 8, 2, 7, 3, 0, 0], float)
    chosen = select_rows(scores, np.arange(10), 0, 10, keep=0.5, sinks=1, recent=1)
    assert chosen.tolist() == [0, 2, 4, 6, 9]


def test_ties_go_to_earlier_tokens():
    assert select_rows(np.zeros(10), np.arange(10), 0, 10, 0.3, 0, 0).tolist() == [0, 1, 2]


def test_tight_budget_spends_on_sinks_then_on_the_newest():
    assert select_rows(np.arange(10.0), np.arange(10), 0, 10, 0.3, 2, 4).tolist() == [0, 1, 9]


def test_range_is_respected():
    positions = np.array([0, 1, 5, 6, 7, 12, 13, 20])
    scores = np.array([9, 9, 1, 5, 3, 2, 4, 0], float)
    chosen = select_rows(scores, positions, start=5, stop=13, keep=0.25, sinks=4, recent=0)
    assert positions[chosen].tolist() == [6, 7, 13, 20]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_selection_properties(data):
    size = data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    positions = np.sort(rng.choice(80, size, replace=False))
    start, stop = sorted(data.draw(st.lists(st.integers(0, 80), min_size=2, max_size=2)))
    keep = data.draw(st.floats(0.01, 1.0))
    sinks, recent = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 10))
    scores = rng.random(size)
    chosen = select_rows(scores, positions, start, stop, keep, sinks, recent)
    inside = positions[(positions >= start) & (positions < stop)]
    kept = positions[chosen]
    assert (np.diff(kept) > 0).all()
    assert set(kept[kept >= stop]) == set(positions[positions >= stop]) and (kept >= start).all()
    budget = min(max(1, round(keep * (stop - start))), len(inside))
    assert (kept < stop).sum() == budget
    guarded = [p for p in inside if p < sinks or p >= stop - recent]
    if len(guarded) <= budget:
        assert set(guarded) <= set(kept)
        free = [scores[positions == p][0] for p in inside if p not in guarded]
        won = [scores[positions == p][0] for p in kept if p < stop and p not in guarded]
        assert sorted(won) == sorted(free)[len(free) - len(won) :]


def eager_attention(model, tokens):
    """Attention float64 [L, H, S, S] of transformers' eager implementation."""
    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(tokens)[None], output_attentions=True)
    return torch.stack(out.attentions)[:, 0].double().numpy()


def view(backend, session, stop, **settings):
    return View(session, stop, backend.llm.scaling, **settings)


def test_window_scores_equal_eager_attention_at_any_position(exact, oracle_model, tokens):
    session = exact.open(tokens, 200)
    weights = eager_attention(oracle_model, tokens).mean((0, 1))
    for stop in (200, 120, 20):
        first = max(0, stop - 32)
        raw = SCORERS["window-raw"]().score(view(exact, session, stop))
        assert raw == pytest.approx(weights[first:stop, :stop].sum(0), abs=1e-5)
        pooled = SCORERS["window"]().score(view(exact, session, stop))
        by_hand = [raw[max(0, i - 2) : i + 3].max() for i in range(stop)]
        assert pooled == pytest.approx(np.array(by_hand), abs=1e-12)


def test_attention_sum_is_divided_by_the_queries_that_could_see_the_token(exact, oracle_model, tokens):
    session = exact.open(tokens, 200)
    total = eager_attention(oracle_model, tokens[:200]).mean((0, 1)).sum(0)
    expected = total / np.maximum(np.arange(200, 0, -1), 32)
    assert SCORERS["attention-sum"]().score(view(exact, session, 200)) == pytest.approx(expected, abs=1e-5)


def test_raw_attention_sum_is_the_papers_saliency_and_keeps_what_its_function_keeps(exact, oracle_model, tokens):
    """I(t): attention on t summed over heads and queries, averaged over layers; k = a fifth of the tokens."""
    weights = eager_attention(oracle_model, tokens[:200])
    session = exact.open(tokens, 200)
    raw = SCORERS["attention-sum-raw"]().score(view(exact, session, 200))
    assert raw == pytest.approx(weights.sum((1, 2)).mean(0), abs=1e-4)
    cache = torch.zeros(2, 2, 1, 4, 200, 1)
    _, kept = extract_top_k_kv_cache(cache, torch.from_numpy(weights)[:, None])
    assert select_rows(raw, session.positions, 0, 200, 0.2, 0, 0).tolist() == kept[0].tolist()


@pytest.mark.parametrize("scope", ["sequence", "head"])
def test_blocks_of_weights_do_not_change_the_sum(exact, tokens, monkeypatch, scope):
    session = exact.open(tokens, 200)
    at_once = SCORERS["attention-sum"]().score(view(exact, session, 200, scope=scope))
    monkeypatch.setattr("kvroam.kvbackend.scorers.view._WEIGHTS_AT_ONCE", 7 * 2 * 4 * 200)
    assert SCORERS["attention-sum"]().score(view(exact, session, 200, scope=scope)) == pytest.approx(at_once, abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["window", "attention-sum", "key-norm"])
def test_keys_that_are_not_finite_are_reported_and_not_ranked(exact, tokens, name, bad):
    session = exact.open(tokens, 100)
    exact.migrate([session], [TransferPlan(keep=0.9, bits=32)])
    with torch.inference_mode():
        session.kv[17, 1, 0, 0, 3] = bad
    with pytest.raises(PayloadError, match="NaN or infinity"):
        SCORERS[name]().score(view(exact, session, 100))


def test_queries_that_see_nothing_any_more_count_nothing(model, tokens):
    """Without sinks, the queries of old tokens have lost every key that they could see."""
    newest = replace(PLAIN, scorer="streaming", sinks=0, recent=0)
    backend = KVBackend(copy.deepcopy(model), settings=newest, cache_dtype=torch.float32)
    session = backend.open(tokens, 100)
    backend.migrate([session], [TransferPlan(keep=0.1, bits=32)])
    assert session.positions.tolist() == list(range(90, 100))
    scores = SCORERS["attention-sum-raw"]().score(view(backend, session, 100))
    # Each of the ten newest queries pays one unit, shared by what is left; times four heads.
    assert scores.sum() == pytest.approx(4 * 10, abs=1e-4)
    assert (scores > 0).all()
    with torch.inference_mode():
        session.kv[:, 1, 0, 0, 3] = float("nan")
    with pytest.raises(PayloadError, match="NaN or infinity"):
        SCORERS["attention-sum-raw"]().score(view(backend, session, 100))


def test_degraded_queries_come_from_the_degraded_forward(exact, oracle_model, tokens):
    """After pruning and 40 tokens, the window's attention is that of a masked full forward pass."""
    session = exact.open(tokens, 120)
    exact.migrate([session], [TransferPlan(keep=0.4, bits=32)])
    kept = session.positions.copy()
    exact.advance([session], [40])
    visible = np.tri(160, dtype=bool)
    visible[120:, np.setdiff1d(np.arange(120), kept)] = False
    mask = torch.zeros(1, 1, 160, 160).masked_fill(torch.from_numpy(~visible), torch.finfo(torch.float32).min)
    with torch.no_grad():
        out = oracle_model(torch.from_numpy(tokens[:160])[None], attention_mask=mask, output_attentions=True)
    weights = torch.stack(out.attentions)[:, 0, :, 128:160].double().numpy()
    expected = weights.mean((0, 1)).sum(0)[session.positions]
    assert SCORERS["window-raw"]().score(view(exact, session, 160)) == pytest.approx(expected, abs=1e-5)
    exact.migrate([session], [TransferPlan(keep=0.3, bits=32)])
    left = weights[..., session.positions]
    expected = (left / left.sum(-1, keepdims=True)).mean((0, 1)).sum(0)
    assert SCORERS["window-raw"]().score(view(exact, session, 160)) == pytest.approx(expected, abs=1e-5)


def test_pooling_respects_positions_of_a_pruned_cache(exact, tokens):
    session = exact.open(tokens, 150)
    exact.migrate([session], [TransferPlan(keep=0.3, bits=32)])
    raw = SCORERS["window-raw"]().score(view(exact, session, 150))
    pooled = SCORERS["window"]().score(view(exact, session, 150))
    by_hand = [raw[np.abs(session.positions - p) <= 2].max() for p in session.positions]
    assert pooled == pytest.approx(np.array(by_hand), abs=1e-12)


def test_simple_scorers(exact, tokens):
    session = exact.open(tokens, 50)
    keys = session.reference.kv[:50, :, 0].double().numpy()
    assert SCORERS["key-norm"]().score(view(exact, session, 50)) == pytest.approx(
        -np.sqrt((keys**2).sum(-1)).mean((1, 2)), abs=1e-4
    )
    assert SCORERS["streaming"]().score(view(exact, session, 50)).argmax() == 49
    first, again = (SCORERS["random"]().score(view(exact, session, 50)) for _ in range(2))
    other = SCORERS["random"](seed=1).score(view(exact, session, 50))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("name", list(SCORERS))
def test_every_scorer_drives_a_handover(model, tokens, name):
    backend = KVBackend(copy.deepcopy(model), settings=replace(PLAIN, scorer=name))
    session = backend.open(tokens, 150)
    for length in (150, 160):
        migration = backend.migrate([session], [TransferPlan(keep=0.2)])[0]
        assert migration.kept_tokens == round(0.2 * length)
        assert {0, 1, 2, 3} <= set(session.positions) and set(range(length - 8, length)) <= set(session.positions)
        backend.advance([session], [10])


def test_extract_top_k_by_hand():
    cache = torch.arange(2 * 2 * 1 * 2 * 5 * 3, dtype=torch.float32).reshape(2, 2, 1, 2, 5, 3)
    weights = torch.zeros(2, 1, 2, 2, 5)
    weights[0, 0, 0, 0, 3] = 0.9
    weights[1, 0, 1, 1, 1] = 0.8
    weights[0, 0, 1, 0, 4] = 0.1
    pruned, kept = extract_top_k_kv_cache(cache, weights, compression_ratio=0.4)
    assert kept.tolist() == [[1, 3]]
    assert torch.equal(pruned, cache[:, :, :, :, [1, 3]])


def test_extract_top_k_default_keeps_a_fifth_of_a_real_cache(oracle_model):
    tokens = np.random.default_rng(1).integers(0, VOCAB, 60)
    with torch.no_grad():
        out = oracle_model(torch.from_numpy(tokens)[None].repeat(2, 1), output_attentions=True, use_cache=True)
    cache = torch.stack([torch.stack([x.keys, x.values]) for x in out.past_key_values.layers])
    attention = torch.stack(out.attentions)
    pruned, kept = extract_top_k_kv_cache(cache, attention)
    saliency = attention.sum((2, 3)).mean(0)
    assert pruned.shape == (2, 2, 2, 2, 12, 32)
    assert kept[0].tolist() == sorted(saliency[0].topk(12).indices.tolist())
    assert torch.equal(pruned[1, 0, 1, 1], cache[1, 0, 1, 1][kept[1]])


def test_extract_top_k_counts_like_the_paper_without_losing_one_to_binary_fractions():
    cache, weights = torch.zeros(1, 2, 1, 1, 100, 4), torch.rand(1, 1, 1, 100)
    assert extract_top_k_kv_cache(cache, weights, 0.29)[1].shape == (1, 29)
    assert extract_top_k_kv_cache(cache, weights, 0.001)[1].shape == (1, 1)


def test_extract_top_k_refuses_wrong_shapes_and_ratios():
    cache, weights = torch.zeros(1, 2, 1, 1, 10, 4), torch.rand(1, 1, 1, 10)
    for call in (
        (cache, weights, 0.0), (cache, weights, 1.2), (cache[0], weights), (cache, weights[..., :9]),
        (cache[..., :0, :], weights[..., :0]), (cache, weights * float("nan")),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            extract_top_k_kv_cache(*call)
