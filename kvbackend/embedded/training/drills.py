"""Training rows without language: repeated random blocks and random key-value tables.

They come first in training, because copying from context forms on them in a minute and on text hardly at all.
A row is a pair (tokens int64 [L + 1], weight float32 [L + 1]); the weight of a token is that of predicting it.
"""

from __future__ import annotations

import numpy as np

from ..tokenizer import BOS, SPECIALS, VOCABULARY

Row = tuple[np.ndarray, np.ndarray]
ORDINARY = VOCABULARY - len(SPECIALS)


def ordinary(rng: np.random.Generator, count: int, alphabet: int = ORDINARY) -> np.ndarray:
    """Random non-special token ids int64 [count], out of `alphabet` randomly chosen ones."""
    if alphabet >= ORDINARY:
        return rng.integers(len(SPECIALS), VOCABULARY, size=count)
    chosen = rng.choice(ORDINARY, size=alphabet, replace=False) + len(SPECIALS)
    return chosen[rng.integers(alphabet, size=count)]


def periodic(rng: np.random.Generator, length: int, period: int, alphabet: int = ORDINARY) -> Row:
    """A random block repeated to the end of the row; every copy but the first is to be predicted.

    Args:
        rng: Random generator.
        length: Tokens to predict, L.
        period: Tokens per block.
        alphabet: Distinct tokens that the block is drawn from.

    Returns:
        Row of L + 1 tokens. The first token of the second copy has weight 0: nothing announces the repetition.
    """
    block = ordinary(rng, period, alphabet)
    tokens = np.resize(block, length + 1)
    weight = np.zeros(length + 1, np.float32)
    weight[period + 1 :] = 1.0
    return tokens, weight


def block_row(rng: np.random.Generator, length: int) -> Row:
    """A repeated block whose period (8 to half the row) and alphabet vary; short alphabets need longer matches."""
    alphabet = int(rng.choice([12, 32, 128, ORDINARY], p=[0.1, 0.15, 0.15, 0.6]))
    period = int(np.exp(rng.uniform(np.log(8), np.log(length // 2))))
    return periodic(rng, length, period, alphabet)


def half_row(rng: np.random.Generator, length: int) -> Row:
    """A block of a quarter to half of the row, so that most copies are the only one; mostly of all ordinary tokens."""
    alphabet = int(rng.choice([128, 512, ORDINARY], p=[0.1, 0.15, 0.75]))
    return periodic(rng, length, int(rng.integers(length // 4, length // 2 + 1)), alphabet)


def table_row(rng: np.random.Generator, length: int) -> Row:
    """`K V K V ...` with single tokens: 3 to 12 pairs, then random re-reads, whose values are to be predicted."""
    pairs = int(rng.integers(3, 13))
    keys = rng.choice(ORDINARY, size=pairs, replace=False) + len(SPECIALS)
    values = ordinary(rng, pairs)
    rereads = (length + 1 - 2 * pairs) // 2 + 1
    order = np.concatenate([np.arange(pairs), rng.integers(pairs, size=rereads)])
    tokens = np.stack([keys[order], values[order]], axis=1).reshape(-1)[: length + 1]
    weight = np.zeros(length + 1, np.float32)
    weight[2 * pairs + 1 :: 2] = 1.0
    return tokens, weight


def generic_row(rng: np.random.Generator, length: int) -> Row:
    """A table whose keys have 1-3 tokens and values 1-4, with or without separator: the bridge to strings."""
    alphabet = int(rng.choice([24, 64, 256, ORDINARY], p=[0.15, 0.2, 0.2, 0.45]))
    pairs = int(rng.integers(3, max(5, min(25, length // 16))))
    key_size, value_size = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    separator = ordinary(rng, int(rng.integers(0, 3)))
    stop = ordinary(rng, int(rng.integers(0, 2)))
    keys: list[tuple[int, ...]] = []
    while len(keys) < min(pairs, alphabet // 2):
        key = tuple(int(t) for t in ordinary(rng, key_size, alphabet))
        if key not in keys:
            keys.append(key)
    values = [ordinary(rng, value_size, alphabet) for _ in keys]
    tokens, weight = [BOS], [0.0]
    order = iter(range(len(keys)))
    while len(tokens) < length + 1:
        new = next(order, None)
        pick = int(rng.integers(len(keys))) if new is None else new
        tokens += [*keys[pick], *separator, *values[pick], *stop]
        weight += [0.0] * (key_size + len(separator))
        weight += [0.0 if new is not None else 2.0] * value_size + [0.0] * len(stop)
    return np.asarray(tokens[: length + 1]), np.asarray(weight[: length + 1], np.float32)
