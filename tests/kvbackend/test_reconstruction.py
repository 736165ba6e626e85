"""The reconstruction scorer against the attention weights of an uncached pass over context and repetition."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.embedded.scripts import script_bank
from kvroam.kvbackend.scorers import reconstruction
from kvroam.kvbackend.scorers.reconstruction import Reconstruction
from kvroam.kvbackend.scorers.view import View
from kvroam.kvbackend.sweep.measure import sweep

from .conftest import VOCAB


def weights(model, tokens: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Attention weights float [L, H, T, T] of an uncached pass; visible bool [L, H, T, T]."""
    handles = []
    for layer, seen in zip(model.model.layers, visible, strict=True):
        mask = torch.zeros(1, *seen.shape).masked_fill(torch.from_numpy(~seen), torch.finfo(torch.float32).min)

        def use(module, arguments, keywords, mask=mask):
            return arguments, {**keywords, "attention_mask": mask}

        handles.append(layer.self_attn.register_forward_pre_hook(use, with_kwargs=True))
    try:
        with torch.no_grad():
            out = model(input_ids=torch.from_numpy(tokens)[None], use_cache=False, output_attentions=True)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(out.attentions)[:, 0].numpy()


def repeated(model, tokens, start, stop, chunk, lead, losses=()) -> np.ndarray:
    """The largest weight [L, Hkv, stop] on each token while its chunk is repeated behind the first `stop` tokens.

    Args:
        losses: (n, kept) in order: from token n on, of those before only kept [L, Hkv, n] are seen.
    """
    config = model.config
    layers, heads, kv_heads = config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads
    out = np.zeros((layers, kv_heads, stop))
    for a in range(start, stop, chunk):
        b = min(a + chunk, stop)
        said = tokens[max(0, a - lead) : b]
        size = stop + len(said)
        visible = np.tri(size, dtype=bool)[None, None].repeat(layers, 0).repeat(heads, 1)
        for n, kept in losses:
            visible[:, :, n:, :n] = np.repeat(kept, heads // kv_heads, 1)[:, :, None]
        found = weights(model, np.concatenate([tokens[:stop], said]), visible)[:, :, stop:, a:b]
        out[..., a:b] = found.max(2).reshape(layers, kv_heads, -1, b - a).max(2)
    return out


def scored(backend, session, scorer) -> np.ndarray:
    with torch.inference_mode():
        return scorer.attention(View(session, session.length, backend.llm.scaling, "head", backend.llm)).numpy()


@pytest.mark.parametrize(("length", "chunk", "lead", "step"), [(150, 64, 8, 8), (150, 150, 0, 1), (61, 16, 20, 4)])
def test_scores_are_those_of_an_uncached_pass(exact, oracle_model, tokens, length, chunk, lead, step):
    boundary, last = length // chunk * chunk, length // step * step
    expected = np.ones((2, 2, length))
    expected[..., :boundary] = repeated(oracle_model, tokens, 0, boundary, chunk, lead)
    expected[..., boundary:last] = repeated(oracle_model, tokens, boundary, last, chunk, lead)[..., boundary:]
    session = exact.open(tokens, length)
    assert scored(exact, session, Reconstruction(chunk, lead, step)) == pytest.approx(expected, abs=2e-5)


def test_a_context_of_the_models_full_length_is_not_cut(exact, oracle_model):
    tokens = np.random.default_rng(2).integers(0, VOCAB, exact.max_tokens)
    found = scored(exact, exact.open(tokens), Reconstruction(chunk=256))
    assert found == pytest.approx(repeated(oracle_model, tokens, 0, 1024, 256, 8), abs=2e-5)


@pytest.mark.parametrize("scope", ["sequence", "head"])
def test_a_pruned_session_repeats_what_it_read_since(exact, oracle_model, tokens, scope):
    session, settings = exact.open(tokens, 120), exact.settings
    try:
        exact.settings = replace(settings, scorer="key-norm", scope=scope)
        exact.migrate([session], [TransferPlan(keep=0.4, bits=32)])
        first = np.zeros((2, 2, 120), bool)
        lists = np.broadcast_to(session.positions.reshape(-1, *([1, 1] if scope == "sequence" else [2, 2])), (48, 2, 2))
        np.put_along_axis(first, lists.transpose(1, 2, 0), True, -1)
        exact.advance([session], [60])
        exact.migrate([session], [TransferPlan(keep=0.3, bits=32)])
        positions = session.positions
        lists = np.broadcast_to(positions.reshape(-1, *([1, 1] if scope == "sequence" else [2, 2])), (54, 2, 2))
        second = np.zeros((2, 2, 180), bool)
        np.put_along_axis(second, lists.transpose(1, 2, 0), True, -1)
    finally:
        exact.settings = settings
    exact.advance([session], [45])
    scorer = Reconstruction(chunk=35, lead=4, step=5)
    found = scored(exact, session, scorer)
    before = scored(exact, exact.open(tokens, 120), scorer)
    since = repeated(oracle_model, tokens, 120, 225, 35, 4, [(120, first), (180, second)])
    where = np.broadcast_to(session.positions.reshape(99, *([1, 1] if scope == "sequence" else [2, 2])), (99, 2, 2))
    where = where.transpose(1, 2, 0)
    expected = np.where(where < 120, np.take_along_axis(before, where.clip(0, 119), -1),
                        np.take_along_axis(since, where, -1))  # fmt: skip
    assert found == pytest.approx(expected, abs=2e-5)
    moved = exact.migrate([session], [TransferPlan(keep=0.2)])  # and it can be ranked once more
    assert moved[0].kept_tokens == 45


def test_one_list_takes_the_mean_and_neighbours_share(exact, tokens):
    session, scorer = exact.open(tokens, 130), Reconstruction(pool=3, share=0.5)
    heads = scored(exact, session, scorer)
    view = View(session, 130, exact.llm.scaling, "sequence", exact.llm)
    mean = heads.mean((0, 1))
    padded = np.pad(mean, 1)
    expected = np.maximum(mean, 0.5 * np.maximum(padded[:-2], padded[2:]))
    assert scorer.score(view) == pytest.approx(expected, abs=1e-6)
    per_head = scorer.score(View(session, 130, exact.llm.scaling, "head", exact.llm))
    assert per_head.shape == (2, 2, 130) and (per_head >= heads).all()


def test_tokens_to_come_do_not_count(exact, tokens):
    other = tokens.copy()
    other[100:] = other[100:][::-1]
    one, two = (scored(exact, exact.open(ids, 100), Reconstruction()) for ids in (tokens, other))
    assert np.array_equal(one, two)


def test_sessions_of_a_script_share_what_was_repeated(exact, tokens, monkeypatch):
    calls = []
    extend = exact.llm.extend
    monkeypatch.setattr(exact.llm, "extend", lambda *given: calls.append(1) or extend(*given))
    scorer, other = Reconstruction(lead=3), tokens[::-1].copy()
    first = scored(exact, exact.open(other, 200), scorer)
    assert calls
    calls.clear()
    assert np.array_equal(scored(exact, exact.open(other, 200), scorer), first)
    assert np.array_equal(scored(exact, exact.open(other, 201), scorer)[..., :200], first)
    assert not calls


def test_what_is_remembered_has_a_bound(exact, tokens):
    reference = exact.reference(tokens[:250])
    for length in range(1, 250):
        scored(exact, exact.open(reference, length), Reconstruction(chunk=8, step=1))
    known = reconstruction._REPEATED[reference]
    assert sum(scores.nbytes for scores in known.values()) <= reference.nbytes // 4


def test_the_cost_is_a_second_prefill_with_leads():
    assert Reconstruction().prefill_per_token == pytest.approx(72 / 64)
    assert Reconstruction(chunk=128, lead=0).prefill_per_token == 1.0


@pytest.mark.parametrize("wrong", [dict(chunk=0), dict(lead=-1), dict(step=0), dict(step=7), dict(pool=2),
                                   dict(share=1.5), dict(share=-0.1)])  # fmt: skip
def test_unusable_parameters_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = "):
        Reconstruction(**wrong)


def test_a_view_without_a_model_is_refused(exact, tokens):
    with pytest.raises(ConfigError, match="the view has none"):
        Reconstruction().score(View(exact.open(tokens, 50), 50, exact.llm.scaling))


@pytest.mark.parametrize(("situation", "least"), [("pending", 0.9), ("answered", 0.9), ("adverse", 0.8)])
def test_a_quarter_of_the_cache_answers_what_the_window_has_forgotten(situation, least):
    backend = KVBackend.load(device="cpu")
    references = backend.references(script_bank(8, 640, 11, situation))
    scorers = ["window", "reconstruction", "reconstruction@head"]
    window, new, head = sweep(backend, references, 448, 160, scorers, [0.25])
    assert new.recall_cold >= least > 0.4 > window.recall_cold
    assert head.recall_cold >= least
    assert max(new.kl, head.kl) < 0.5 * window.kl
