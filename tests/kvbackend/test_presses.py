"""Objects with kvpress' `score` method as scorers: what they are shown, what becomes of their answers."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, KVSettings, TransferPlan
from kvroam.kvbackend.scorers.press import PressScorer
from kvroam.kvbackend.scorers.view import View

from .conftest import VOCAB
from .plain import PLAIN
from .test_selection import eager_attention


class NormPress:
    """The key-norm press in one line."""

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        return -keys.norm(dim=-1)


class LastQueriesPress:
    """Attention of the last eight queries, projected anew from the hidden states, as SnapKV and TOVA do."""

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        cos, sin = (x[:, -8:, None] for x in kwargs["position_embeddings"])
        queries = module.q_proj(hidden_states[:, -8:]).unflatten(-1, (-1, module.head_dim))
        first, second = queries.chunk(2, dim=-1)
        queries = (queries * cos + torch.cat([-second, first], dim=-1) * sin).transpose(1, 2)
        groups, size = queries.shape[1] // keys.shape[1], keys.shape[2]
        scores = queries @ keys.repeat_interleave(groups, 1).transpose(2, 3) * module.scaling
        later = torch.arange(size)[None] > torch.arange(size - 8, size)[:, None]
        weights = scores.masked_fill(later, float("-inf")).softmax(-1).sum(2)
        return weights.unflatten(1, (-1, groups)).mean(2)


class Spy:
    """Remembers what it is shown."""

    def __init__(self):
        self.seen = []

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        self.seen.append((module, hidden_states, keys, values, attentions, kwargs, hasattr(module, "rotary_emb")))
        return torch.zeros(keys.shape[:3])


class AttentionSpy(Spy):
    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        assert attentions is not None, "set attn_implementation to eager"
        return super().score(module, hidden_states, keys, values, attentions, kwargs)


def build(model, scorer, **settings) -> KVBackend:
    return KVBackend(copy.deepcopy(model), "tok", settings=replace(PLAIN, scorer=scorer, **settings),
                     cache_dtype=torch.float32)  # fmt: skip


def scores(backend, session):
    view = View(session, session.length, backend.llm.scaling, backend.settings.scope)
    return PressScorer(backend.settings.scorer, backend.llm).score(view)


@pytest.mark.parametrize("scope", ["sequence", "head"])
def test_a_norm_press_equals_the_key_norm_scorer_also_on_pruned_caches(model, tokens, scope):
    ours, theirs = build(model, "key-norm", scope=scope), build(model, NormPress(), scope=scope)
    sessions = [backend.open(tokens, 150) for backend in (ours, theirs)]
    for keep, prefix in ((0.5, 0), (0.4, 30), (0.2, 0)):
        for backend, session in zip((ours, theirs), sessions, strict=True):
            backend.migrate([session], [TransferPlan(keep=keep, bits=32, prefix_tokens=prefix)])
            backend.advance([session], [20])
        assert np.array_equal(sessions[0].positions, sessions[1].positions)
    assert sessions[0].positions.ndim == (1 if scope == "sequence" else 3)


def test_a_press_that_projects_queries_equals_eager_attention(model, oracle_model, tokens):
    weights = eager_attention(oracle_model, tokens[:120])[:, :, 112:].sum(2)
    backend = build(model, LastQueriesPress(), scope="head")
    expected = weights.reshape(2, 2, 2, 120).mean(2)
    assert scores(backend, backend.open(tokens, 120)) == pytest.approx(expected, abs=1e-5)
    backend = build(model, LastQueriesPress())
    assert scores(backend, backend.open(tokens, 120)) == pytest.approx(weights.mean((0, 1)), abs=1e-5)


def test_a_press_is_shown_what_attention_sees(model, oracle_model, tokens):
    inputs, handles = {}, []
    for layer in oracle_model.model.layers:
        attend = layer.self_attn

        def note(module, arguments, keywords):
            inputs[module.layer_idx] = keywords

        handles.append(attend.register_forward_pre_hook(note, with_kwargs=True))
    with torch.no_grad():
        cache = oracle_model(torch.from_numpy(tokens[:90])[None], use_cache=True).past_key_values
    for handle in handles:
        handle.remove()
    spy = Spy()
    backend = build(model, spy)
    scores(backend, backend.open(tokens, 90))
    assert [entry[0].layer_idx for entry in spy.seen] == [0, 1]
    for module, hidden, keys, values, attentions, kwargs, has_rotary in spy.seen:
        theirs = inputs[module.layer_idx]
        assert torch.allclose(hidden, theirs["hidden_states"], atol=1e-5)
        assert torch.equal(hidden, kwargs["hidden_states"])
        assert torch.allclose(keys, cache.layers[module.layer_idx].keys, atol=1e-5)
        assert torch.allclose(values, cache.layers[module.layer_idx].values, atol=1e-5)
        for ours, expected in zip(kwargs["position_embeddings"], theirs["position_embeddings"], strict=True):
            assert torch.allclose(ours, expected, atol=1e-6)
        assert attentions is None and has_rotary


def test_presses_that_ask_for_attentions_get_them(model, oracle_model, tokens):
    spy = AttentionSpy()
    backend = build(model, spy)
    scores(backend, backend.open(tokens, 90))
    shown = torch.cat([entry[4] for entry in spy.seen]).numpy()
    assert shown == pytest.approx(eager_attention(oracle_model, tokens[:90]), abs=1e-5)


@pytest.mark.parametrize("scope", ["sequence", "head"])
def test_after_a_handover_a_press_sees_the_tokens_that_are_left(model, tokens, scope):
    spy = Spy()
    backend = build(model, spy, scope=scope)
    session = backend.open(tokens, 120)
    backend.migrate([session], [TransferPlan(keep=0.25, bits=32)])
    spy.seen.clear()
    scores(backend, session)
    degraded, whole = list(spy.seen), backend.open(tokens, 120)
    spy.seen.clear()
    scores(backend, whole)
    hidden_states = [entry[1] for entry in spy.seen]
    positions = session.positions
    for number, (module, hidden, keys, _, _, kwargs, _) in enumerate(degraded):
        layer, head = module.layer_idx, number % 2
        where = positions if scope == "sequence" else positions[:, layer, head]
        assert hidden.shape[1] == keys.shape[2] == 30 == kwargs["position_embeddings"][0].shape[1]
        assert torch.equal(keys[0, head], whole.kv[where, layer, 0, head])
        assert torch.allclose(hidden, hidden_states[layer][:, where], atol=1e-5)
        assert kwargs["cache_position"].tolist() == where.tolist()
    assert len(degraded) == (2 if scope == "sequence" else 4)


def test_the_model_is_left_as_it_was(model, tokens):
    backend = build(model, Spy())
    scores(backend, backend.open(tokens, 50))
    for module in backend.llm.attention_modules:
        assert not module._forward_hooks and not hasattr(module, "rotary_emb")


class Answers:
    def __init__(self, answer):
        self.answer = answer

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        return self.answer(keys)


def fail(keys):
    raise AssertionError("needs more than 64 tokens\nsecond line")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda keys: keys, "returned"),
        (lambda keys: keys.norm(dim=-1).tolist(), "list"),
        (lambda keys: keys.norm(dim=-1) * float("nan"), "finite"),
        (fail, "needs more than 64 tokens"),
    ],
)
def test_a_press_that_fails_is_one_clear_error(model, tokens, answer, words):
    backend = build(model, Answers(answer))
    session = backend.open(tokens, 100)
    with pytest.raises(ConfigError, match=words) as caught:
        backend.migrate([session], [TransferPlan(keep=0.5)])
    assert "Answers" in str(caught.value) and "\n" not in str(caught.value)
    assert session.whole and not any(m._forward_hooks for m in backend.llm.attention_modules)


def test_an_object_without_score_is_refused():
    with pytest.raises(ConfigError, match="no method score"):
        KVSettings(scorer=object())


@pytest.mark.parametrize("name", ["KnormPress", "SnapKVPress", "StreamingLLMPress", "ObservedAttentionPress"])
def test_kvpress_keeps_the_same_keys(model, name):
    kvpress = pytest.importorskip("kvpress", reason="kvpress is not installed; it is no dependency of kvroam")
    from transformers import DynamicCache

    press = getattr(kvpress, name)(compression_ratio=0.5)
    tokens = np.random.default_rng(1).integers(0, VOCAB, 200)
    network = copy.deepcopy(model)
    network.set_attn_implementation("eager" if name == "ObservedAttentionPress" else "sdpa")
    cache = DynamicCache()
    with torch.no_grad(), press(network):
        network.model(input_ids=torch.from_numpy(tokens)[None], past_key_values=cache, use_cache=True,
                      cache_position=torch.arange(200))  # fmt: skip
    backend = build(model, press, scope="head", sinks=0, recent=0)
    session = backend.open(tokens)
    backend.migrate([session], [TransferPlan(keep=0.5, bits=32)])
    for layer in range(2):
        theirs = cache.layers[layer].keys[0]
        for head in range(2):
            ours = session.kv[:, layer, 0, head]
            order = [x[:, 0].argsort() for x in (ours, theirs[head])]
            assert torch.allclose(ours[order[0]], theirs[head][order[1]], atol=1e-5)
