"""Sessions that read on together: which of them share a forward pass, and that it makes no difference."""

import pytest
import torch

from kvroam.kvbackend import TransferPlan
from kvroam.kvbackend.sessions.stepping import _PASS_TOKENS, _alike


def test_sessions_that_read_about_as_many_tokens_go_through_the_model_together():
    steps = [1, 25, 1, 0, 3, 24, 1, 10, 200] + [1] * 60
    order = [i for i, step in enumerate(steps) if step]
    groups = _alike(steps, order)
    assert sorted(i for group in groups for i in group) == order
    assert [sorted({steps[i] for i in group}) for group in groups] == [[200], [1, 3, 10, 24, 25], [1]]
    for group in groups:
        read = [steps[i] for i in group]
        assert len(read) * max(read) - sum(read) <= _PASS_TOKENS
    assert _alike(steps, []) == []


@torch.inference_mode()
def test_company_changes_a_session_by_rounding_only(backend, tokens):
    def opened():
        sessions = [backend.open(tokens[:200], 60) for _ in range(40)]
        backend.migrate(sessions, [TransferPlan(keep=0.2 + 0.02 * i) for i in range(40)])
        return sessions

    steps = [[1, 5, 40, 0][i % 4] for i in range(40)]
    together, alone = backend.advance(opened(), steps), opened()
    for i, (session, step) in enumerate(zip(alone, steps, strict=True)):
        one = backend.advance([session], [step])
        assert together.kl[i] == pytest.approx(one.kl[0], abs=1e-3) and together.matches[i] == one.matches[0]
