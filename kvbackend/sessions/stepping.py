"""Sessions read on: whole ones for free, degraded ones through their real caches in one ragged forward pass."""

from bisect import bisect_left

import numpy as np
import torch

from ..drift import Drift, count_recall
from ..model.divergence import divergences
from ..model.forward import LanguageModel
from .reference import Reference
from .rows import array_of
from .session import Session

_LOGITS_AT_ONCE = 1 << 22  # numbers in one block of logits
_PASS_TOKENS = 64  # [tokens] whose forward pass takes as long as what every pass costs beside its tokens


def feed(llm: LanguageModel, batch_tokens: int, sessions: list[Session], steps: list[int], move: bool) -> Drift:
    """Feed each session its next tokens and compare with the whole cache.

    Args:
        batch_tokens: bound on padded cache rows in one forward pass.
        steps: tokens per session, none beyond its script.
        move: whether sessions keep what they read; otherwise they stay where they are.
    """
    drift = Drift.zeros(len(sessions))
    degraded = []
    for i, (session, step) in enumerate(zip(sessions, steps, strict=True)):
        if session.whole:
            drift.tokens[i] = drift.matches[i] = step
            if session.reference.marks.rows:
                _recall(drift, i, session, step, None, move)
            session.length += step if move else 0
        elif step:
            degraded.append(i)
    for group in _alike(steps, degraded):
        group.sort(key=lambda i: sessions[i].stored)
        while group:
            chunk, group = _micro_batch(batch_tokens, sessions, steps, group)
            _feed_degraded(llm, drift, chunk, [sessions[i] for i in chunk], [steps[i] for i in chunk], move)
    return drift


def _alike(steps: list[int], order: list[int]) -> list[list[int]]:
    """Groups of sessions that read about as many tokens: most read one, and a few that have waited read dozens.

    Padding in one forward pass costs as much as its tokens do, another pass as much as `_PASS_TOKENS`.
    """
    groups: list[list[int]] = []
    longest = padding = 0
    for i in sorted(order, key=lambda i: -steps[i]):
        padding += longest - steps[i]
        if not groups or padding > _PASS_TOKENS:
            groups.append([])
            longest, padding = steps[i], 0
        groups[-1].append(i)
    return groups


def _micro_batch(
    batch_tokens: int, sessions: list[Session], steps: list[int], order: list[int]
) -> tuple[list[int], list[int]]:
    """Split off the longest caches that fit one forward pass together; at least one session."""
    widest, longest, count = sessions[order[-1]].stored, 0, 0
    for i in reversed(order):
        longest = max(longest, steps[i])
        if count and (count + 1) * (widest + longest) > batch_tokens:
            break
        count += 1
    return order[-count:], order[:-count]


def _feed_degraded(
    llm: LanguageModel, drift: Drift, where: list[int], sessions: list[Session], steps: list[int], move: bool
) -> None:
    """One ragged forward pass: fill the entries `where` of `drift`, and grow the caches if `move`."""
    spans = [(s.reference, s.length, s.length + n) for s, n in zip(sessions, steps, strict=True)]
    tokens = [r.tokens[a:b] for r, a, b in spans]
    block = llm.extend([s.kv for s in sessions], [s.length for s in sessions], tokens, [s.empty for s in sessions])
    batch, longest = block.hidden.shape[:2]
    read = np.flatnonzero(np.arange(longest) < np.asarray(steps)[:, None])
    degraded = block.hidden.flatten(0, 1)
    if len(read) < batch * longest:
        degraded = degraded.index_select(0, torch.from_numpy(read).to(degraded.device))
    full = torch.cat([r.hidden[a:b] for r, a, b in spans])
    targets = np.concatenate([_targets(r, a, b) for r, a, b in spans])
    rows = _compare(llm, full, degraded, torch.from_numpy(targets).to(full.device))
    ends = np.cumsum(steps)
    starts = ends - np.asarray(steps)
    sums = np.add.reduceat(rows, starts, axis=1)
    drift.tokens[where] = steps
    drift.kl[where], drift.js[where], drift.delta_nll[where] = sums[0], sums[1], sums[3]
    drift.matches[where] = sums[2].astype(np.int64)
    if move:
        kv = array_of(block.kv.to(sessions[0].kv.dtype, memory_format=torch.contiguous_format))
        queries = array_of(block.queries)
    for j, (i, session, step) in enumerate(zip(where, sessions, steps, strict=True)):
        if session.reference.marks.rows:
            _recall(drift, i, session, step, rows[4, starts[j] : ends[j]] > 0, move)
        if move:
            session.grow(kv[j, :step], queries[j, :step])


def _compare(llm: LanguageModel, full: torch.Tensor, degraded: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """`divergences` of hidden states [n, d], in blocks that bound the logits' memory: float64 [5, n]."""
    size = max(1, _LOGITS_AT_ONCE // llm.vocab)
    parts = [
        divergences(llm.logits(full[i : i + size]), llm.logits(degraded[i : i + size]), targets[i : i + size])
        for i in range(0, len(full), size)
    ]
    return torch.cat(parts, dim=1).double().cpu().numpy()


def _targets(reference: Reference, start: int, stop: int) -> np.ndarray:
    """The next token of each row, int64 [stop - start]; -1 after the last."""
    following = reference.tokens[start + 1 : stop + 1].astype(np.int64)
    return following if len(following) == stop - start else np.append(following, -1)


def _recall(drift: Drift, i: int, session: Session, step: int, correct: np.ndarray | None, move: bool) -> None:
    """Count the answers that end within the next `step` rows; `correct` None means that the whole cache answers."""
    marks = session.reference.marks
    lo, hi = bisect_left(marks.rows, session.length), bisect_left(marks.rows, session.length + step)
    if lo == hi:
        return
    failed = session.failed if move else set(session.failed)
    if correct is None:
        right = session.reference.correct[lo:hi]
    else:
        right = [bool(correct[row - session.length]) for row in marks.rows[lo:hi]]
    counts = count_recall(marks, lo, right, failed)
    drift.hot_hits[i], drift.hot_total[i], drift.cold_hits[i], drift.cold_total[i] = counts
