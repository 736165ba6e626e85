"""The divergences themselves, against closed forms and scipy."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from kvroam.kvbackend.drift import Drift
from kvroam.kvbackend.model.divergence import divergences


def test_divergences_equal_scipy():
    rng = np.random.default_rng(0)
    full, degraded = rng.normal(0, 3, (2, 50, 300))
    targets = rng.integers(0, 300, 50)
    rows = divergences(torch.tensor(full).float(), torch.tensor(degraded).float(), torch.tensor(targets)).numpy()
    p, q = softmax(full, -1), softmax(degraded, -1)
    at = np.arange(50)
    assert rows[0] == pytest.approx(rel_entr(p, q).sum(-1), abs=1e-5)
    assert rows[1] == pytest.approx(jensenshannon(p, q, axis=-1) ** 2, abs=1e-5)
    assert rows[2].tolist() == (p.argmax(-1) == q.argmax(-1)).tolist()
    assert rows[3] == pytest.approx(np.log(p[at, targets]) - np.log(q[at, targets]), abs=1e-4)
    assert rows[4].tolist() == (q.argmax(-1) == targets).tolist()


def test_two_certain_and_different_predictions():
    """KL is the gap of the logits, JS is ln 2."""
    full, degraded = torch.tensor([[0.0, -60.0]]), torch.tensor([[-60.0, 0.0]])
    rows = divergences(full, degraded, torch.tensor([1]))[:, 0].tolist()
    assert rows == pytest.approx([60.0, np.log(2.0), 0.0, -60.0, 1.0], rel=1e-6)


def test_equal_predictions_have_no_divergence_and_no_target_no_nll():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    rows = divergences(logits, logits.clone(), torch.full((4,), -1))
    assert rows.numpy() == pytest.approx(np.tile([[0], [0], [1], [0], [0]], 4), abs=1e-6)


def test_forbidden_tokens_do_not_make_nan():
    full = torch.tensor([[0.0, 1.0, float("-inf")]])
    rows = divergences(full, torch.tensor([[1.0, 0.0, float("-inf")]]), torch.tensor([0]))
    p = softmax([0.0, 1.0])
    assert rows[0, 0].item() == pytest.approx(p[1] - p[0], abs=1e-6)
    assert bool(rows.isfinite().all())


def test_drifts_add_up():
    one = Drift.zeros(2)
    one.kl[:], one.tokens[:] = [0.5, 1.5], [1, 2]
    total = one + one
    assert total.kl.tolist() == [1.0, 3.0] and total.tokens.tolist() == [2, 4] and len(total) == 2
    assert total.tokens.dtype == np.int64 and total.kl.dtype == np.float64
