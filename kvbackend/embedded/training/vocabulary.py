"""Trains the byte-pair tokenizer: 2048 entries, digits in pairs, and every word of a listed key in one token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ....errors import ModelError
from ..tokenizer import SPECIALS, VOCABULARY
from ..words import NOUNS, SUFFIXES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Digit pairs keep a value at two tokens; a line break takes its indentation along; a word takes the one character
# before it, so that `_code` and ` code` are single tokens.
PATTERN = r"[0-9]{2}|[0-9]|\n[ \t]*|[ _.(]?[A-Za-z]+|[ ]?[^\sA-Za-z0-9_]+|_+|\s"


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Train the tokenizer on a corpus plus the vocabulary of keys and values.

    Args:
        texts: Training texts (ASCII).

    Returns:
        A tokenizer with VOCABULARY entries; ids 0..5 are SPECIALS.

    Raises:
        ModelError: A word of a key or a digit pair did not become one token.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_lessons(texts), trainer)
    check_words(tokenizer)
    return tokenizer


def _lessons(texts: list[str]) -> Iterator[str]:
    """The corpus, then each digit pair and each key often enough that their merges are worth an entry."""
    yield from texts
    yield " ".join(f"{i:02d}" for i in range(100)) * 3000
    for noun in NOUNS:
        yield "".join(f"{noun}_{suffix}=" for suffix in SUFFIXES) * 14


def check_words(tokenizer: Tokenizer) -> None:
    """Raise ModelError unless every noun, `_suffix`, digit pair and `=` is one token and the size is right."""
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ModelError(
            f"tokenizer: {tokenizer.get_vocab_size()} entries, {VOCABULARY} are needed; train on a larger corpus"
        )
    single = [*NOUNS, *(f"_{suffix}" for suffix in SUFFIXES), *(f"{i:02d}" for i in range(100)), "=", "\n"]
    broken = [word for word in single if len(tokenizer.encode(word).ids) != 1]
    if broken:
        raise ModelError(
            f"tokenizer: {len(broken)} words are not one token, first {broken[0]!r}; "
            "repeat the keys more often in training or choose shorter words"
        )


def encode_texts(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text; long texts are cut at line breaks so that memory stays small."""
    rows = []
    for text in texts:
        ids: list[int] = []
        lines = text.splitlines(keepends=True)
        for start in range(0, len(lines), 2000):
            ids.extend(tokenizer.encode("".join(lines[start : start + 2000])).ids)
        rows.append(ids)
    return rows
