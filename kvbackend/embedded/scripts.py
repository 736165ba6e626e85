"""Session scripts: what one agent session says, token by token, with the answers marked.

A script states facts early and keeps topping them up, streams text, and asks. From about token 128 on every
position is a plausible moment for a handover: whatever is dropped from the cache there is asked for in the next
100 to 300 tokens, be it a hot fact (asked about within the last HOT_TOKENS tokens, or named in a question that is
still open) or a cold one (stated, never asked about).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ...errors import ConfigError
from .keys import Key, KeyBook, Value
from .model import MAX_TOKENS
from .texts import load_texts
from .tokenizer import BOS, load_tokenizer

HOT_TOKENS = 128
HOT, COLD = 1, 2
SITUATIONS = ("pending", "answered", "adverse", "text")

# Weights of the four situations, by name of the script's situation; the text situation still asks now and then.
_MIXES = {"mixed": (0.38, 0.34, 0.16, 0.12), **{name: tuple(np.eye(4)[i]) for i, name in enumerate(SITUATIONS)}}
_UNASKED = 9
_QUERY_TOKENS = 7


@dataclass(frozen=True)
class Script:
    """One LLM session, token by token.

    Attributes:
        tokens: int32 [S], token ids of the embedded model.
        answer: int8 [S], 0 = not an answer token, 1 = answer about a hot fact, 2 = about a cold fact.
        query: int16 [S], number of the query that an answer token belongs to, -1 elsewhere.
        fact: int16 [S], number of the fact whose `=` and value are stated or whose value is answered, -1 elsewhere.
    """

    tokens: np.ndarray
    answer: np.ndarray
    query: np.ndarray
    fact: np.ndarray


def script_bank(count: int, length: int, seed: int, situation: str = "mixed") -> list[Script]:
    """Independent scripts; script i depends on (seed, i) only.

    Args:
        count: Number of scripts.
        length: Tokens per script.
        seed: Seed.
        situation: See `make_script`.
    """
    return [make_script(np.random.default_rng([seed, i]), length, situation) for i in range(count)]


def make_script(
    rng: np.random.Generator, length: int = MAX_TOKENS, situation: str = "mixed", context: int = 512
) -> Script:
    """Write one script.

    Args:
        rng: Random generator; the same state gives the same script on every machine.
        length: Tokens S, 64 to MAX_TOKENS.
        situation: "pending" (questions stay open for a while), "answered" (answers are recent), "adverse" (long
            text between the hot questions and the next ones), "text" (nearly no questions), or "mixed".
        context: A first question about a fact reaches back at most this many tokens.

    Returns:
        The script.

    Raises:
        ConfigError: An unknown situation, or a length outside the limits.
    """
    if situation not in _MIXES:
        raise ConfigError(f"situation {situation!r} is unknown; choose one of {', '.join(_MIXES)}")
    if not 64 <= length <= MAX_TOKENS:
        raise ConfigError(f"script length {length} is outside 64..{MAX_TOKENS}; choose a length within")
    book, texts = _materials()
    writer = _Writer(rng, book, texts[int(rng.integers(len(texts)))], length, context)
    writer.opening()
    weights = np.cumsum(_MIXES[situation])
    scenes = (writer.pending, writer.answered, writer.adverse, writer.quiet)
    while writer.room > 0:
        scenes[min(int(np.searchsorted(weights, rng.random(), side="right")), 3)]()
    return writer.script()


@lru_cache(maxsize=1)
def _materials() -> tuple[KeyBook, np.ndarray]:
    return KeyBook.from_tokenizer(load_tokenizer()), load_texts()


@dataclass
class _Fact:
    """A stated fact: where it was stated, and where it was last named in a question (-1: never)."""

    key: Key
    value: Value
    stated: int
    named: int = -1


@dataclass
class _Writer:
    """Writes scenes until the script is full; a scene that does not fit is cut, a query never is."""

    rng: np.random.Generator
    book: KeyBook
    text: np.ndarray
    length: int
    context: int
    tokens: list[int] = field(default_factory=lambda: [BOS])
    answer: list[int] = field(default_factory=lambda: [0])
    query: list[int] = field(default_factory=lambda: [-1])
    fact: list[int] = field(default_factory=lambda: [-1])
    facts: list[_Fact] = field(default_factory=list)
    queries: int = 0
    cursor: int = 0

    @property
    def room(self) -> int:
        return self.length - len(self.tokens)

    def opening(self) -> None:
        """Facts within the first sixth or so, with text between them."""
        self.cursor = int(self.rng.integers(len(self.text) // 2))
        for _ in range(5):
            self.stream(4, 11)
            self.state(2)

    def pending(self) -> None:
        """Questions are asked, text streams while they are open, then come the answers and some cold ones."""
        self.top_up()
        self.stream(16, 40)
        open_ones = self.unasked(int(self.rng.integers(1, 3))) + self.hot(1)
        for fact in open_ones:
            self.write(self.book.question(fact.key))
            fact.named = len(self.tokens)
        self.stream(8, 28)
        self.ask(open_ones + self.unasked(1))

    def answered(self) -> None:
        """Questions are answered at once; then text, then the same ones again and a cold one."""
        self.top_up()
        group = self.hot(2) + self.unasked(1)
        self.ask(group)
        self.stream(24, 56)
        self.ask([group[int(self.rng.integers(len(group)))], *self.unasked(1)] if group else self.unasked(2))
        self.stream(8, 24)

    def adverse(self) -> None:
        """A long stretch of text between the hot questions and their repetition; recent queries see only text."""
        self.top_up()
        group = self.hot(1) + self.unasked(1)
        self.ask(group)
        self.stream(64, 100)
        self.ask(group + self.unasked(1))

    def quiet(self) -> None:
        """Text, and one question at its end."""
        self.top_up()
        self.stream(72, 104)
        self.ask((self.hot(1, HOT_TOKENS - 4) if self.rng.random() < 0.5 else []) or self.unasked(1))

    def write(self, words: list[int], answer: int = 0, query: int = -1, fact: int = -1) -> None:
        """Append tokens that carry one mark, as far as there is room."""
        words = words[: self.room]
        self.tokens += words
        self.answer += [answer] * len(words)
        self.query += [query] * len(words)
        self.fact += [fact] * len(words)

    def stream(self, low: int, high: int) -> None:
        """Append low to high - 1 tokens of the session's own text."""
        count = int(self.rng.integers(low, high))
        self.write(np.take(self.text, range(self.cursor, self.cursor + count), mode="wrap").tolist())
        self.cursor = (self.cursor + count) % len(self.text)

    def state(self, count: int) -> None:
        """State new facts, with keys that the session has not used."""
        used = {fact.key for fact in self.facts}
        for _ in range(count):
            key = next(k for k in iter(lambda: self.book.draw(self.rng, 1, unseen=None)[0], None) if k not in used)
            used.add(key)
            value = self.book.value(self.rng)
            if self.room >= len(key) + 5:
                self.facts.append(_Fact(key, value, len(self.tokens)))
                self.write(self.book.fact(key, value))
                self.fact[-4:-1] = [len(self.facts) - 1] * 3

    def top_up(self) -> None:
        """Keep enough unasked facts in reach, and leave a little text after the new ones."""
        missing = _UNASKED - len(self._reachable())
        if missing > 0:
            self.state(missing)
            self.stream(4, 16)

    def ask(self, facts: list[_Fact]) -> None:
        """Ask, in random order, what is hot or cold by now; a fact in between would say nothing clear."""
        for i in self.rng.permutation(len(facts)):
            fact = facts[int(i)]
            recent = fact.named >= 0 and len(self.tokens) - fact.named <= HOT_TOKENS
            if (fact.named >= 0 and not recent) or self.room < _QUERY_TOKENS:
                continue
            self.write(self.book.question(fact.key))
            self.write(list(fact.value), HOT if recent else COLD, self.queries, self.facts.index(fact))
            self.write([self.book.newline])
            self.queries += 1
            fact.named = len(self.tokens)

    def hot(self, count: int, within: int = HOT_TOKENS // 2) -> list[_Fact]:
        """Up to `count` facts named in a question within so many tokens, half of HOT_TOKENS to last a scene."""
        limit = len(self.tokens) - within
        return self._pick([fact for fact in self.facts if fact.named >= max(limit, 0)], count)

    def unasked(self, count: int) -> list[_Fact]:
        """Up to `count` unasked facts of the older half: a handover must have had the time to lose them."""
        reachable = self._reachable()
        return self._pick(reachable[: max((len(reachable) + 1) // 2, count)], count)

    def _reachable(self) -> list[_Fact]:
        oldest = len(self.tokens) - self.context
        return [fact for fact in self.facts if fact.named < 0 and fact.stated >= oldest]

    def _pick(self, facts: list[_Fact], count: int) -> list[_Fact]:
        return [facts[int(i)] for i in self.rng.permutation(len(facts))[:count]]

    def script(self) -> Script:
        return Script(
            np.asarray(self.tokens, np.int32),
            np.asarray(self.answer, np.int8),
            np.asarray(self.query, np.int16),
            np.asarray(self.fact, np.int16),
        )
