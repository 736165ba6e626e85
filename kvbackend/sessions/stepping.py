"""Sessions read on: whole ones for free, degraded ones through their real caches in one ragged forward pass."""

from bisect import bisect_left

import numpy as np
import torch

from ..drift import COLD, HOT, Drift, ended
from ..model.divergence import divergences
from ..model.forward import LanguageModel
from .reference import Reference, retold
from .rows import array_of
from .session import Session

_LOGITS_AT_ONCE = 1 << 22  # numbers in one block of logits
_PASS_TOKENS = 64  # [tokens] whose forward pass takes as long as what every pass costs beside its tokens


def feed_freely(llm: LanguageModel, batch_tokens: int, sessions: list[Session], steps: list[int]) -> Drift:
    """As `feed`, and sessions move, but at the tokens of answers they read what their own cache predicts.

    A session whose prediction is not what its text says next goes on with a text of its own, and so does the whole
    cache that it is compared with. A pass ends at each answer token, since the next one reads it.
    """
    total, left = Drift.zeros(len(sessions)), list(steps)
    while any(left):
        now = [min(n, _to_next_answer(session)) for session, n in zip(sessions, left, strict=True)]
        newest: dict[int, torch.Tensor] = {}
        total += feed(llm, batch_tokens, sessions, now, True, newest)
        left = [n - done for n, done in zip(left, now, strict=True)]
        asked = [i for i in newest if now[i] and _answers_next(sessions[i])]
        if asked:
            own = llm.logits(torch.stack([newest[i] for i in asked])).argmax(-1).tolist()
            _go_on_with(llm, batch_tokens, [sessions[i] for i in asked], own)
    return total


def _to_next_answer(session: Session) -> int:
    """Tokens up to the row that predicts the next token of an answer, this row included; at least 1."""
    rows = session.reference.marks.rows
    at = bisect_left(rows, session.length)
    return rows[at] - session.length + 1 if at < len(rows) else len(session.reference)


def _answers_next(session: Session) -> bool:
    """Whether the next token is one of an answer."""
    rows = session.reference.marks.rows
    at = bisect_left(rows, session.length - 1)
    return at < len(rows) and rows[at] == session.length - 1


def _go_on_with(llm: LanguageModel, batch_tokens: int, sessions: list[Session], tokens: list[int]) -> None:
    """Give each session `tokens[i]` to read next."""
    other = [(s, token) for s, token in zip(sessions, tokens, strict=True) if s.reference.tokens[s.length] != token]
    size = max(1, batch_tokens // max((len(s.reference) for s, _ in other), default=1))
    for first in range(0, len(other), size):
        some = other[first : first + size]
        old = [session.reference for session, _ in some]
        texts = retold(llm, old, [session.length for session, _ in some], [token for _, token in some])
        for (session, _), text in zip(some, texts, strict=True):
            session.rebase(text)


def feed(
    llm: LanguageModel,
    batch_tokens: int,
    sessions: list[Session],
    steps: list[int],
    move: bool,
    newest: dict[int, torch.Tensor] | None = None,
) -> Drift:
    """Feed each session its next tokens and compare with the whole cache.

    Args:
        batch_tokens: bound on padded cache rows in one forward pass.
        steps: tokens per session, none beyond its script.
        move: whether sessions keep what they read; otherwise they stay where they are.
        newest: filled with the final hidden state [d] of the last token that each session has read, by its index.
    """
    drift = Drift.zeros(len(sessions))
    degraded = []
    for i, (session, step) in enumerate(zip(sessions, steps, strict=True)):
        if session.whole:
            drift.tokens[i] = drift.matches[i] = step
            if session.reference.marks.rows:
                _recall(drift, i, session, step, None, move)
            session.length += step if move else 0
            if newest is not None and step:
                newest[i] = session.reference.hidden[session.length - 1]
        elif step:
            degraded.append(i)
    for group in _alike(steps, degraded):
        group.sort(key=lambda i: sessions[i].stored)
        while group:
            chunk, group = _micro_batch(batch_tokens, sessions, steps, group)
            _feed_degraded(llm, drift, chunk, [sessions[i] for i in chunk], [steps[i] for i in chunk], move, newest)
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
    llm: LanguageModel,
    drift: Drift,
    where: list[int],
    sessions: list[Session],
    steps: list[int],
    move: bool,
    newest: dict[int, torch.Tensor] | None,
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
        if newest is not None:
            newest[i] = block.hidden[j, step - 1]
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
    """The script's next token of each row, int64 [stop - start]; -1 after the last."""
    following = reference.says[start + 1 : stop + 1].astype(np.int64)
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
    for entry, hit in ended(marks, lo, right, failed):
        kind = marks.kinds[entry]
        drift.hot_total[i] += kind == HOT
        drift.hot_hits[i] += hit and kind == HOT
        drift.cold_total[i] += kind == COLD
        drift.cold_hits[i] += hit and kind == COLD
        strict = marks.strict(entry, session.lost_at)
        drift.strict_total[i] += strict
        drift.strict_hits[i] += hit and strict
        drift.wrong[i] += session.reference.answered[entry] and not hit
