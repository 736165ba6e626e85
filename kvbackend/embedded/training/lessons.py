"""Training rows with language: running text, and agent sessions that state facts and are asked about them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..keys import Key, KeyBook, Value
from ..tokenizer import BOS
from .drills import Row


@dataclass(frozen=True)
class SessionMix:
    """How training sessions are composed.

    Attributes:
        facts: Fewest and most facts per session.
        text_weight: Loss weight of a text token.
        answer_weight: Loss weight of a value token of an answer.
        free: Share of keys made of arbitrary words.
        shared: Share of keys that repeat a word of an earlier key.
    """

    facts: tuple[int, int] = (4, 18)
    text_weight: float = 1.0
    answer_weight: float = 2.0
    free: float = 0.25
    shared: float = 0.3


def key_words(texts: list[str], count: int = 6000) -> tuple[str, ...]:
    """Words of 3 to 9 lower-case letters that occur in the texts, commonest first."""
    seen: dict[str, int] = {}
    for text in texts:
        for word in re.findall(r"(?<![A-Za-z])[a-z]{3,9}(?![A-Za-z])", text):
            seen[word] = seen.get(word, 0) + 1
    return tuple(sorted(seen, key=lambda word: (-seen[word], word))[:count])


def text_row(rng: np.random.Generator, stream: np.ndarray, length: int) -> Row:
    """A stretch of L tokens of the corpus after `<bos>`, every token to be predicted."""
    start = int(rng.integers(len(stream) - length))
    tokens = np.concatenate([[BOS], stream[start : start + length]]).astype(np.int64)
    weight = np.ones(length + 1, np.float32)
    weight[0] = 0.0
    return tokens, weight


class SessionWriter:
    """Writes one training session, token by token with loss weights."""

    def __init__(
        self, rng: np.random.Generator, book: KeyBook, stream: np.ndarray, length: int, mix: SessionMix
    ) -> None:
        self.rng, self.book, self.stream, self.mix = rng, book, stream, mix
        self.limit = length + 1
        self.tokens: list[int] = [BOS]
        self.weight: list[float] = [0.0]
        count = int(rng.integers(mix.facts[0], mix.facts[1] + 1))
        keys = book.draw(rng, count, free=mix.free, shared=mix.shared)
        self.facts: list[tuple[Key, Value]] = [(key, book.value(rng)) for key in keys]
        self.stated = 0
        self.cursor = int(rng.integers(len(stream)))

    def text(self, count: int) -> None:
        """Append up to `count` tokens of running text, mostly the continuation of the previous piece."""
        if self.rng.random() < 0.4:
            self.cursor = int(self.rng.integers(len(self.stream)))
        piece = self.stream[self.cursor : self.cursor + count].tolist()
        self.cursor = (self.cursor + count) % len(self.stream)
        self.tokens += piece
        # What follows a fact or an answer is not predictable, so the first token of a piece teaches nothing.
        self.weight += [0.0] + [self.mix.text_weight] * (len(piece) - 1) if piece else []

    def state(self, count: int) -> None:
        """Append statements of the next `count` facts."""
        for key, value in self.facts[self.stated : self.stated + count]:
            words = self.book.fact(key, value)
            self.tokens += words
            self.weight += [0.0] * len(words)
        self.stated = min(self.stated + count, len(self.facts))

    def ask(self, which: int) -> None:
        """Append a question and its answer."""
        key, value = self.facts[which]
        question = self.book.question(key)
        self.tokens += [*question, *value, self.book.newline]
        self.weight += [0.0] * len(question) + [self.mix.answer_weight] * 2 + [0.05]

    def leave_open(self, which: list[int]) -> None:
        """Append questions without answers, as they stand in a session at the moment of a handover."""
        for i in which:
            question = self.book.question(self.facts[i][0])
            self.tokens += question
            self.weight += [0.0] * len(question)

    def burst(self, count: int) -> None:
        """Append a burst of questions, two in five about three hot facts, some left open first."""
        hot = self.rng.integers(self.stated, size=3)
        which = [
            int(hot[self.rng.integers(3)] if self.rng.random() < 0.4 else self.rng.integers(self.stated))
            for _ in range(count)
        ]
        if self.rng.random() < 0.15:
            self.leave_open(which[: int(self.rng.integers(2, 5))])
        for i in which:
            self.ask(i)

    def row(self) -> Row:
        """The row, cut to L + 1 tokens."""
        tokens = np.asarray(self.tokens[: self.limit], np.int64)
        return tokens, np.asarray(self.weight[: self.limit], np.float32)


def session_row(rng: np.random.Generator, book: KeyBook, stream: np.ndarray, length: int, mix: SessionMix) -> Row:
    """One session: either text, facts and questions mixed throughout, or facts first and questions at the end.

    Args:
        rng: Random generator.
        book: Keys and values.
        stream: Corpus tokens int [N].
        length: Tokens to predict, L.
        mix: Composition.

    Returns:
        Row of L + 1 tokens; only answers and text carry weight.
    """
    writer = SessionWriter(rng, book, stream, length, mix)
    if rng.random() < 0.35:
        _facts_then_questions(writer, rng)
    while len(writer.tokens) < writer.limit:
        if not writer.stated:
            writer.state(int(rng.integers(1, 7)))
        draw = rng.random()
        if draw < 0.35:
            writer.text(int(rng.integers(6, 70)))
        elif draw < 0.6 and writer.stated < len(writer.facts):
            writer.state(int(rng.integers(1, 7)))
        else:
            writer.burst(int(rng.integers(2, 9)))
    return writer.row()


def _facts_then_questions(writer: SessionWriter, rng: np.random.Generator) -> None:
    """Spread all facts over text up to a random point, as in the recall exam; the caller asks from there on."""
    span = int(writer.limit * rng.uniform(0.4, 0.85))
    room = max(0, span - sum(len(key) + 5 for key, _ in writer.facts))
    cuts = np.sort(rng.integers(0, room + 1, size=len(writer.facts) - 1))
    gaps = np.diff(np.concatenate([[0], cuts, [room]]))
    for gap in gaps:
        if gap:
            writer.text(int(gap))
        writer.state(1)
    while len(writer.tokens) < writer.limit and rng.random() < 0.8:
        writer.burst(int(rng.integers(4, 9)))


def exam_row(
    rng: np.random.Generator,
    book: KeyBook,
    stream: np.ndarray,
    length: int,
    keys: list[Key],
    queries: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One recall exam: facts scattered in text, then `queries` questions with answers.

    Args:
        rng: Random generator.
        book: Keys and values.
        stream: Text tokens int [N].
        length: Tokens L.
        keys: The facts' keys; the values are random.
        queries: How many of them are asked, each once.

    Returns:
        tokens int64 [L], and the index of the first value token of each answer, int64 [queries].
    """
    facts = [(key, book.value(rng)) for key in keys]
    asked = [facts[int(i)] for i in rng.permutation(len(facts))[:queries]]
    tail: list[int] = []
    spots = []
    for key, value in asked:
        tail += book.question(key)
        spots.append(len(tail))
        tail += [*value, book.newline]
    head: list[int] = [BOS]
    room = length - 1 - len(tail) - sum(len(key) + 5 for key in keys)
    cuts = np.sort(rng.integers(0, room + 1, size=len(facts)))
    gaps = np.diff(np.concatenate([[0], cuts]))
    start = int(rng.integers(len(stream) - length))
    for (key, value), gap in zip(facts, gaps, strict=True):
        head += stream[start : start + gap].tolist()
        start += int(gap)
        head += book.fact(key, value)
    fill = length - len(head) - len(tail)
    head += stream[start : start + fill].tolist()
    return np.asarray(head + tail, np.int64), np.asarray(spots) + len(head)
