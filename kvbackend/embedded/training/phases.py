"""The curriculum: copying first, then strings, length, text, long sessions, a slow polish, and copying once more.

The order is what makes recall form within minutes: large batches of short random rows until copying appears, a
high rope_theta from the start, and loss only where the answer is in the context or the text is worth learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..keys import KeyBook
from .drills import ORDINARY, Row, block_row, generic_row, half_row, periodic, table_row
from .lessons import SessionMix, session_row, text_row


@dataclass(frozen=True)
class Phase:
    """One stage of training.

    Attributes:
        name: One letter.
        shapes: (rows, tokens per row) of the batches, used in turn.
        mix: Parts of block : generic : session : text rows; all 0 for phase A's own drills.
        rates: Learning rate at the start and at the end, linear in between.
        steps: Optimiser steps.
        sessions: How sessions are composed.
        warmup: Steps of linear warm-up.
        blocks: Draws the block rows.
    """

    name: str
    shapes: tuple[tuple[int, int], ...]
    mix: tuple[int, int, int, int]
    rates: tuple[float, float]
    steps: int
    sessions: SessionMix = field(default_factory=SessionMix)
    warmup: int = 40
    blocks: Callable[[np.random.Generator, int], Row] = block_row


PHASES = (
    Phase("A", ((64, 64),), (0, 0, 0, 0), (2.5e-3, 2.5e-3), 800, warmup=60),
    Phase("B", ((32, 128),), (1, 1, 4, 0), (2e-3, 2e-3), 256, SessionMix((2, 10), text_weight=0.2)),
    Phase("C", ((8, 512),), (1, 1, 6, 0), (2e-3, 1.5e-3), 320, SessionMix((6, 16), text_weight=0.2)),
    Phase("D", ((12, 512),), (1, 1, 5, 5), (2e-3, 1e-3), 800, SessionMix((4, 18))),
    Phase("E", ((6, 1024),), (1, 1, 5, 5), (1e-3, 3e-5), 300, SessionMix((8, 24))),
    Phase(
        "F",
        ((12, 512), (6, 1024), (6, 1024)),
        (2, 1, 6, 3),
        (1.4e-3, 1e-5),
        3000,
        SessionMix((6, 32), answer_weight=3.0, free=0.4, shared=0.5),
    ),
    # Blocks that are copied once, at the lengths where F leaves them: a short row, and half of the longest one.
    Phase(
        "G",
        ((32, 128), (6, 1024), (12, 512), (6, 1024)),
        (6, 1, 3, 2),
        (8e-4, 1e-5),
        900,
        SessionMix((6, 32), answer_weight=3.0, free=0.4, shared=0.5),
        blocks=half_row,
    ),
)


def batch(
    phase: Phase, step: int, rng: np.random.Generator, book: KeyBook, stream: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one batch.

    Args:
        phase: Stage of training.
        step: Step within the stage; selects the shape.
        rng: Random generator of the stage.
        book: Keys and values.
        stream: Corpus tokens int [N].

    Returns:
        tokens int64 [B, L + 1] and loss weights float32 [B, L + 1].
    """
    rows, length = phase.shapes[step % len(phase.shapes)]
    if phase.name == "A":
        drawn = [_first_drill(rng, length, i < rows // 2) for i in range(rows)]
    else:
        # Systematic sampling keeps the parts of a mix almost constant from batch to batch.
        parts = np.cumsum(phase.mix) / sum(phase.mix)
        kinds = np.searchsorted(parts, (np.arange(rows) + rng.random()) / rows, side="right")
        drawn = [_row(int(kind), phase, rng, book, stream, length) for kind in kinds]
    tokens, weights = zip(*drawn, strict=True)
    return np.stack(tokens), np.stack(weights)


def _first_drill(rng: np.random.Generator, length: int, block: bool) -> Row:
    return periodic(rng, length, int(rng.integers(4, 33)), ORDINARY) if block else table_row(rng, length)


def _row(kind: int, phase: Phase, rng: np.random.Generator, book: KeyBook, stream: np.ndarray, length: int) -> Row:
    if kind == 0:
        return phase.blocks(rng, length)
    if kind == 1:
        return generic_row(rng, length)
    if kind == 2:
        return session_row(rng, book, stream, length, phase.sessions)
    return text_row(rng, stream, length)
