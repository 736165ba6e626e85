"""Examinations of a model: recall of facts, copying of repeated blocks, and bits per byte of held-out text.

Answers are judged teacher-forced by exact match of both value tokens, which equals greedy decoding wherever
the whole answer is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..keys import KeyBook
from .drills import periodic, table_row
from .intervals import Interval, mean, share
from .lessons import exam_row

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True)
class Recall:
    """One recall exam: `facts` facts in `length` tokens, `queries` of them asked at the end."""

    length: int
    facts: int
    queries: int = 8
    free: float = 0.0
    shared: float = 0.0


EXAMS = {
    "recall_128_4": Recall(128, 4, 4),
    "recall_512_8": Recall(512, 8),
    "recall_512_12": Recall(512, 12),
    "recall_512_24": Recall(512, 24),
    "recall_512_12_shared": Recall(512, 12, shared=1.0),
    "recall_512_12_free": Recall(512, 12, free=1.0),
    "recall_768_16": Recall(768, 16),
    "recall_1024_16": Recall(1024, 16),
    "recall_1024_48": Recall(1024, 48),
}
BLOCKS = {
    "block_64_in_128": (64, 128),
    "block_64_in_512": (64, 512),
    "block_256_in_512": (256, 512),
    "block_512_in_1024": (512, 1024),
}


def recall(
    model: LlamaForCausalLM, book: KeyBook, stream: np.ndarray, exam: Recall, questions: int, seed: int
) -> Interval:
    """Share of answers whose whole value the model gets right.

    Args:
        model: Model in eval mode.
        book: Keys and values; `book.free` is needed for exams with free keys.
        stream: Held-out text tokens int [N].
        exam: Which exam.
        questions: Least number of questions in all.
        seed: Seed of facts, values, text and order.

    Returns:
        Exact-match share in 0..1, over keys that training never used, with its interval over rows.
    """
    rng = np.random.default_rng([seed, exam.length, exam.facts, int(4 * exam.free + 2 * exam.shared)])
    rows, spots = [], []
    for _ in range(-(-questions // exam.queries)):
        keys = book.draw(rng, exam.facts, unseen=True, free=exam.free, shared=exam.shared)
        row, spot = exam_row(rng, book, stream, exam.length, keys, exam.queries)
        rows.append(row)
        spots.append(spot)
    guesses = greedy(model, np.stack(rows))
    hits = [
        sum(guesses[i, s - 1] == rows[i][s] and guesses[i, s] == rows[i][s + 1] for s in spot)
        for i, spot in enumerate(spots)
    ]
    return share(hits, [len(spot) for spot in spots])


def greedy(model: LlamaForCausalLM, tokens: np.ndarray, batch: int = 16) -> np.ndarray:
    """Most likely next token after each position, teacher-forced.

    Args:
        model: Model in eval mode.
        tokens: int [B, L].
        batch: Rows per forward pass.

    Returns:
        int64 [B, L].
    """
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(tokens), batch):
            ids = torch.from_numpy(tokens[start : start + batch])
            found.append(model(input_ids=ids, use_cache=False).logits.argmax(-1).numpy())
    return np.concatenate(found)


def induction(model: LlamaForCausalLM, block: int, length: int, rows: int, seed: int) -> Interval:
    """Top-1 share on the copies of a random block that repeats to the end of the row.

    Args:
        model: Model in eval mode.
        block: Tokens per block.
        length: Tokens per row.
        rows: Rows examined.
        seed: Seed.

    Returns:
        Share in 0..1 with its interval over rows; the first token of the second copy is not counted.
    """
    rng = np.random.default_rng([seed, block, length])
    tokens = np.stack([periodic(rng, length - 1, block)[0] for _ in range(rows)])
    guesses = greedy(model, tokens)
    hit = guesses[:, block:-1] == tokens[:, block + 1 :]
    return share(hit.sum(1), np.full(rows, hit.shape[1]))


def tables(model: LlamaForCausalLM, rows: int, seed: int, length: int = 64) -> float:
    """Top-1 share on the re-reads of single-token key-value tables."""
    rng = np.random.default_rng([seed, length])
    drawn = [table_row(rng, length) for _ in range(rows)]
    tokens = np.stack([row[0] for row in drawn])
    counted = np.stack([row[1] for row in drawn])[:, 1:] > 0
    hit = greedy(model, tokens)[:, :-1] == tokens[:, 1:]
    return float(hit[counted].mean())


def bits_per_byte(
    model: LlamaForCausalLM, streams: list[list[int]], texts_bytes: list[int], windows: int, length: int = 512
) -> Interval:
    """Mean bits per byte of text, in windows of `length` tokens.

    Args:
        model: Model in eval mode.
        streams: Token ids of each text.
        texts_bytes: Bytes of each text.
        windows: How many windows to read, evenly spread; all of them when fewer exist.
        length: Tokens per window; the first one of each is not scored.

    Returns:
        Bits per byte, with the texts' mean bytes per token, and the bootstrap interval over windows.
    """
    import torch

    pieces = [ids[i : i + length] for ids in streams for i in range(0, len(ids) - length + 1, length)]
    chosen = [pieces[int(i)] for i in np.unique(np.linspace(0, len(pieces) - 1, windows).astype(int))]
    tokens = torch.tensor(chosen)
    losses = []
    with torch.inference_mode():
        for start in range(0, len(tokens), 8):
            ids = tokens[start : start + 8]
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            losses.append(loss.view(len(ids), -1).double().mean(1).numpy())
    bytes_per_token = sum(texts_bytes) / sum(len(ids) for ids in streams)
    return mean(np.concatenate(losses) / math.log(2) / bytes_per_token)
