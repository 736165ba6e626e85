"""Keys and values of facts as token ids: `<fact>door_code=4821`, asked later as `<ask>door_code=`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .tokenizer import ASK, FACT
from .words import NOUNS, SUFFIXES, held_out

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Key = tuple[int, ...]
Value = tuple[int, int]


@dataclass
class KeyBook:
    """Token ids of everything a fact is made of.

    Attributes:
        nouns: Id of each word of NOUNS.
        suffixes: Id of `_` + each word of SUFFIXES.
        pairs: Id of each digit pair 00..99.
        equals: Id of `=`, the same in a fact and in a question, so that plain induction answers it.
        newline: Id of the line break that ends a fact and an answer.
        free: Any other words as (ids at the start of a key, ids after `_`); empty where no corpus is at hand.
    """

    nouns: list[int]
    suffixes: list[int]
    pairs: list[int]
    equals: int
    newline: int
    free: list[tuple[Key, Key]] = field(default_factory=list)

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, words: tuple[str, ...] = ()) -> KeyBook:
        """Look every word up.

        Args:
            tokenizer: The embedded model's tokenizer.
            words: Words that free keys are made of.
        """

        def ids(text: str) -> list[int]:
            return tokenizer.encode(text).ids

        return cls(
            nouns=[ids(noun)[0] for noun in NOUNS],
            suffixes=[ids(f"_{suffix}")[0] for suffix in SUFFIXES],
            pairs=[ids(f"{i:02d}")[0] for i in range(100)],
            equals=ids("=")[0],
            newline=ids("\n")[0],
            free=[(tuple(ids(word)), tuple(ids(f"_{word}"))) for word in words],
        )

    def value(self, rng: np.random.Generator) -> Value:
        """Four random digits as two digit-pair tokens."""
        a, b = rng.integers(100, size=2)
        return self.pairs[a], self.pairs[b]

    def listed(self, rng: np.random.Generator, unseen: bool | None) -> tuple[int, int]:
        """Word indices of a random listed key.

        Args:
            rng: Random generator.
            unseen: True for pairs kept out of training, False for the others, None for either.
        """
        while True:
            noun, suffix = int(rng.integers(len(NOUNS))), int(rng.integers(len(SUFFIXES)))
            if unseen is None or held_out(noun, suffix) == unseen:
                return noun, suffix

    def draw(
        self,
        rng: np.random.Generator,
        count: int,
        *,
        unseen: bool | None = False,
        free: float = 0.0,
        shared: float = 0.0,
    ) -> list[Key]:
        """Draw distinct keys.

        Args:
            rng: Random generator.
            count: Number of keys.
            unseen: See `listed`.
            free: Share of keys that consist of two arbitrary words instead of listed ones.
            shared: Share of listed keys that repeat a word of an earlier key (hard to tell apart).

        Returns:
            `count` distinct tuples of token ids, without `=`.
        """
        keys: list[Key] = []
        words: list[tuple[int, int]] = []
        while len(keys) < count:
            if free and self.free and rng.random() < free:
                first, second = rng.integers(len(self.free), size=2)
                key = self.free[first][0] + self.free[second][1]
                if not 2 <= len(key) <= 6:
                    continue
            else:
                noun, suffix = self.listed(rng, unseen)
                if words and shared and rng.random() < shared:
                    twin = words[int(rng.integers(len(words)))]
                    noun, suffix = (twin[0], suffix) if rng.random() < 0.5 else (noun, twin[1])
                    if unseen is not None and held_out(noun, suffix) != unseen:
                        continue
                key = (self.nouns[noun], self.suffixes[suffix])
                words.append((noun, suffix))
            if key not in keys:
                keys.append(key)
        return keys

    def fact(self, key: Key, value: Value) -> list[int]:
        """Tokens of a statement."""
        return [FACT, *key, self.equals, *value, self.newline]

    def question(self, key: Key) -> list[int]:
        """Tokens of a question, up to and including `=`."""
        return [ASK, *key, self.equals]
