"""Compiled loops against torch and numpy in double precision, and the lean forward pass against the model's own."""

import numpy as np
import pytest
import torch

from kvroam.kvbackend import threads
from kvroam.kvbackend.codecs.checksum import copy_finite, words_of
from kvroam.kvbackend.model import kernels
from kvroam.kvbackend.model.divergence import divergences
from kvroam.kvbackend.model.forward import LanguageModel
from kvroam.kvbackend.model.lean import linear

from .conftest import make_model
from .masked_forward import js, kl, nll


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(threads, "_LEAST", 1)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def logits(rows=40, vocab=777, seed=0):
    rng = np.random.default_rng(seed)
    full = rng.normal(0.0, 6.0, (rows, vocab)).astype(np.float32)
    targets = np.where(np.arange(rows) % 5 < 4, rng.integers(0, vocab, rows), -1)
    return full, full + rng.normal(0.0, 1.5, full.shape).astype(np.float32), targets


def test_divergences_are_those_of_double_precision():
    full, degraded, targets = logits()
    got = divergences(*map(torch.from_numpy, (full, degraded, targets))).double().numpy()
    wide = full.astype(np.float64), degraded.astype(np.float64)
    assert np.allclose(got[0], kl(*wide), rtol=1e-4, atol=1e-6)
    assert np.allclose(got[1], js(*wide), rtol=1e-4, atol=1e-6)
    assert np.array_equal(got[2], full.argmax(1) == degraded.argmax(1))
    known = targets >= 0
    assert known.any() and not known.all()
    expected = np.where(known, nll(wide[1], targets) - nll(wide[0], targets), 0.0)
    assert np.allclose(got[3], expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(got[4], degraded.argmax(1) == targets)


def test_divergences_of_masked_vocabulary_equal_rows_and_nan():
    full, degraded, targets = (torch.from_numpy(x) for x in logits(rows=4))
    full[:, 5] = degraded[:, 5] = -torch.inf
    degraded[2] = full[2]
    degraded[3, 7] = torch.nan
    targets[:] = 0
    got = divergences(full, degraded, targets)
    keep = [i for i in range(full.shape[1]) if i != 5]
    without = divergences(full[:, keep].contiguous(), degraded[:, keep].contiguous(), targets)
    assert torch.allclose(got[:, :3], without[:, :3], rtol=1e-4, atol=1e-6) and bool(got[:, :3].isfinite().all())
    assert got[0, 2] == got[1, 2] == got[3, 2] == 0.0
    assert bool(got[:, 3].isnan().all())


def test_threads_do_not_change_numbers(two_threads):
    full, degraded, targets = (torch.from_numpy(x) for x in logits())
    two = divergences(full, degraded, targets)
    torch.set_num_threads(1)
    assert torch.equal(two, divergences(full, degraded, targets))


def test_softmax_sees_what_is_stored_and_what_came_before():
    rng = np.random.default_rng(1)
    batch, heads, groups, steps, width, first = 3, 2, 2, 4, 6, 3
    columns = width + first + steps
    scores = rng.normal(0.0, 9.0, (batch, heads, groups, steps, columns)).astype(np.float32)
    lengths, empty = np.array([0, 4, 6]), rng.random((batch, heads, width)) < 0.3
    visible = np.zeros(scores.shape, bool)
    for b in range(batch):
        for t in range(steps):
            visible[b, :, :, t, : lengths[b]] = ~empty[b, :, None, : lengths[b]]
            visible[b, :, :, t, width : width + first + t + 1] = True
    weights = np.where(visible, np.exp(0.5 * scores.astype(np.float64)), 0.0)
    weights /= weights.sum(-1, keepdims=True)
    kernels.masked_softmax(scores, lengths, width, first, np.float32(0.5), empty, 0, batch * heads)
    assert np.allclose(scores, weights, atol=1e-6) and not scores[~visible].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("chosen", [None, [0, 3, 11, 39]])
def test_copies_and_finds_infinity_only_in_what_it_copies(dtype, chosen):
    kind = getattr(torch, dtype)
    numbers = torch.randn(40, 3, 2, 8, generator=torch.Generator().manual_seed(0)).to(kind)
    whole = torch.int32 if kind == torch.float32 else torch.int16
    layer, index = numbers[:, 1], None if chosen is None else np.array(chosen)
    out = torch.empty_like(layer if chosen is None else layer[: len(chosen)], memory_format=torch.contiguous_format)
    for bad, finite in ((None, True), (3, False), (4, chosen is not None)):
        spoiled = numbers.clone()
        if bad is not None:
            spoiled[bad, 1, 1, 5] = float("inf")
        source, into = (words_of(x.view(whole).numpy()) for x in (spoiled[:, 1], out))
        assert copy_finite(source, dtype, into, index) == finite
        assert torch.equal(out, spoiled[:, 1] if index is None else spoiled[index, 1])
    with pytest.raises(IndexError):
        copy_finite(source, dtype, into[:1], np.array([40]))


def test_linear_is_that_of_torch_at_every_size():
    generator = torch.Generator().manual_seed(0)
    for rows, width, out in ((1, 128, 64), (100, 128, 320), (300, 320, 2048), (40, 1024, 1024)):
        layer = torch.nn.Linear(width, out)
        x = torch.randn(rows, width, generator=generator)
        with torch.inference_mode():
            assert torch.allclose(linear(x, layer), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-4)


def test_lean_pass_is_that_of_the_modules(model):
    lean, own = (LanguageModel(make_model(), torch.float32) for _ in range(2))
    assert lean._lean is not None
    own._lean = None
    rng = np.random.default_rng(0)
    scripts = [rng.integers(0, 2048, n) for n in (150, 70)]
    whole, expected = lean.prefill(scripts), own.prefill(scripts)
    caches = [expected.kv[0, :90:2], expected.kv[1, :30]]
    missing = [rng.random((45, 2, 2)) < 0.2, None]
    words = [script[60:70] for script in scripts]
    pairs = [(whole, expected, (150, 70))]
    pairs.append((*(x.extend(caches, [90, 30], words, missing) for x in (lean, own)), (10, 10)))
    for a, b, sizes in pairs:
        for i, size in enumerate(sizes):
            for name in ("kv", "queries", "hidden"):
                assert torch.allclose(getattr(a, name)[i, :size], getattr(b, name)[i, :size], atol=2e-4), name


def test_modules_run_where_somebody_listens(model):
    llm, heard = LanguageModel(make_model()), []
    handle = llm.attention_modules[0].register_forward_hook(lambda *_: heard.append(1))
    llm.prefill([np.arange(5)])
    assert not heard
    llm.prefill([np.arange(5)], hooks=True)
    handle.remove()
    assert heard == [1]
