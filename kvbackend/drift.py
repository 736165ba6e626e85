"""How far a degraded cache's predictions are from the whole cache's, and which answers they still get right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

HOT, COLD = 1, 2


@dataclass
class Drift:
    """Sums over the tokens of one call, one entry per session."""

    tokens: np.ndarray  # int64 [n], tokens fed
    kl: np.ndarray  # float64 [n], KL(full || degraded) [nats], at least 0
    js: np.ndarray  # float64 [n], Jensen-Shannon divergence [nats], at most ln 2 per token
    matches: np.ndarray  # int64 [n], tokens at which both predict the same next token
    delta_nll: np.ndarray  # float64 [n], extra negative log-likelihood of the script's next tokens [nats]
    hot_hits: np.ndarray  # int64 [n], answers about hot facts that are right in all their tokens
    hot_total: np.ndarray  # int64 [n], answers about hot facts that ended
    cold_hits: np.ndarray  # int64 [n], the same for cold facts
    cold_total: np.ndarray  # int64 [n]
    strict_hits: np.ndarray  # int64 [n], those of both kinds that only what survived the last lossy handover can answer
    strict_total: np.ndarray  # int64 [n], see `Marks.strict`
    wrong: np.ndarray  # int64 [n], answers of both kinds that the whole cache gets right and this cache gets wrong

    @classmethod
    def zeros(cls, sessions: int) -> "Drift":
        """No drift for `sessions` sessions."""
        real = ("kl", "js", "delta_nll")
        kinds = {field.name: np.float64 if field.name in real else np.int64 for field in fields(cls)}
        return cls(**{name: np.zeros(sessions, kind) for name, kind in kinds.items()})

    def __add__(self, other: "Drift") -> "Drift":
        """Sums over the tokens of both calls, session by session."""
        return Drift(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __len__(self) -> int:
        return len(self.tokens)


class Marks:
    """Where a script asks for facts: which rows judge an answer token, and where each answer ends.

    Row i feeds token i and judges token i + 1. Lists, not arrays: a call looks at one or two entries.

    Args:
        answer: int [S], 0 no answer, 1 token of an answer about a hot fact, 2 about a cold one; or None.
        query: int [S], id of the answer that a token belongs to; None numbers the runs of equal `answer`.
        fact: int [S], id of the fact whose value a token states or answers, -1 for none; None where that is not known.
    """

    def __init__(
        self, answer: np.ndarray | None, query: np.ndarray | None, fact: np.ndarray | None = None
    ) -> None:
        self.answer, self.query, self.fact = answer, query, fact
        self.rows: list[int] = []
        self.ids: list[int] = []
        self.kinds: list[int] = []
        self.ends: list[bool] = []
        self._tested: dict[int, tuple[int, int]] = {}  # answer: its fact was told before, it is judged from row ... on
        if answer is None:
            return
        if query is None:
            query = runs(answer)
        marked = np.flatnonzero(answer)
        marked = marked[marked > 0]  # no row judges the first token
        self.rows = (marked - 1).tolist()
        self.ids = query[marked].tolist()
        self.kinds = answer[marked].tolist()
        last = {name: i for i, name in enumerate(self.ids)}
        self.ends = [last[name] == i for i, name in enumerate(self.ids)]
        if fact is not None:
            for name in last:
                first = marked[self.ids.index(name)]
                told = np.flatnonzero(fact[:first] == fact[first])
                if fact[first] >= 0 and len(told):
                    self._tested[name] = int(told[-1]) + 1, int(first) - 1

    def strict(self, i: int, lost_at: int | None) -> bool:
        """Whether the answer of entry i of `rows` tests what survived a lossy handover.

        It does if its fact was told before the handover, and never since: neither stated nor answered, since right
        answers are fed back; and if the answer is judged after the handover in all its tokens.

        Args:
            lost_at: tokens that had been read at the handover; None where there was none.
        """
        told, judged = self._tested.get(self.ids[i], (1, 0))
        return lost_at is not None and told <= lost_at <= judged


def runs(answer: np.ndarray) -> np.ndarray:
    """Number the runs of equal marks [S]: int16 [S]."""
    return np.cumsum(np.diff(answer, prepend=0) != 0).astype(np.int16)


def ended(marks: Marks, first: int, correct: Sequence[bool], failed: set[int]) -> Iterator[tuple[int, bool]]:
    """The answers that end within consecutive marked rows: index into `marks.rows` of the last one, whether right.

    Args:
        first: index into `marks.rows` of the first row judged.
        correct: whether each of these rows predicts its answer token.
        failed: ids of answers with a wrong token so far; updated.
    """
    for i, right in enumerate(correct, first):
        name = marks.ids[i]
        if not right:
            failed.add(name)
        if marks.ends[i]:
            yield i, name not in failed
            failed.discard(name)


def count_recall(marks: Marks, first: int, correct: Sequence[bool], failed: set[int]) -> tuple[int, int, int, int]:
    """Count what `ended` finds.

    Returns:
        hot hits, hot total, cold hits, cold total.
    """
    hits, totals = [0, 0, 0], [0, 0, 0]
    for i, right in ended(marks, first, correct, failed):
        totals[marks.kinds[i]] += 1
        hits[marks.kinds[i]] += right
    return hits[HOT], totals[HOT], hits[COLD], totals[COLD]
