"""Where the drift of a pruned cache falls: `python -m kvroam.kvbackend.embedded.training.drift_by_token --out docs`.

Hands sessions and plain text over, and reads on token by token. Writes `drift_by_token.csv`, which says how far the
predictions of text, of stated facts, of questions and of answers move, and the page `drift_by_token.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from tqdm import tqdm

from ....commands import Command, add_out, add_quiet, add_seed
from ....errors import ConfigError
from ....files import make_folder, write_whole
from ...backend import KVBackend
from ...settings import TransferPlan
from ...sweep.measure import ranking
from ..scripts import script_bank
from ..texts import load_texts
from ..tokenizer import ASK, BOS, FACT, load_tokenizer
from .corpus import read_corpus
from .drift_by_token_page import Row, page, read_csv
from .intervals import mean
from .pruning import HORIZON, LENGTH, START, write_csv
from .vocabulary import encode_texts

KINDS = ("text", "statement", "question", "answer")
SOURCES = ("sessions", "own text", "held-out text")
SCORERS = ("window", "streaming", "random")
KEEPS = (0.75, 0.5, 0.25, 0.1)
COLUMNS = ("source", "scorer", "keep", "kind", "share", "kl", "part", "part_low", "part_high", "tokens")
# Offsets behind `<fact>` and `<ask>` of `key=value` and line break, key and value being two tokens each.
_STATED, _ASKED, _ANSWERED = slice(1, 7), slice(1, 4), slice(4, 7)


def kinds(tokens: np.ndarray) -> np.ndarray:
    """What each token of a session of the "text" situation is, int [S]: an index into KINDS.

    A statement or a question begins behind its marker; the marker itself comes as unforeseen as text does. An answer
    is the value and its line break.

    Args:
        tokens: int [S], without questions that stay open.
    """
    found = np.zeros(len(tokens), int)
    for at in np.flatnonzero(tokens == FACT):
        found[at:][_STATED] = KINDS.index("statement")
    for at in np.flatnonzero(tokens == ASK):
        found[at:][_ASKED] = KINDS.index("question")
        found[at:][_ANSWERED] = KINDS.index("answer")
    return found


def tokens_of(source: str, count: int, seed: int) -> list[np.ndarray]:
    """Token rows int32 [START + HORIZON + 1] of a source, `count` of them or as many as there are.

    Args:
        source: "sessions" (the scripts of the situation "text"), "own text" (the text that these stream, alone) or
            "held-out text" (files of the running Python's standard library that training never saw).
        count: Rows.
        seed: Seed of the scripts.
    """
    size = START + HORIZON + 1
    if source == "sessions":
        return [script.tokens[:size] for script in script_bank(count, LENGTH, seed, "text")]
    if source == "own text":
        pieces = [row[: size - 1] for row in load_texts()]
    else:
        streams = encode_texts(load_tokenizer(), read_corpus()[1])
        pieces = [np.array(ids[i : i + size - 1]) for ids in streams for i in range(0, len(ids) - size + 1, size)]
    chosen = np.unique(np.linspace(0, len(pieces) - 1, count).astype(int))
    return [np.concatenate([[BOS], pieces[int(i)]]).astype(np.int32) for i in chosen]


def drift_by_token(
    backend: KVBackend, rows: Sequence[np.ndarray], scorer: str, plan: TransferPlan, start: int, horizon: int
) -> np.ndarray:
    """KL of each prediction after one handover, float64 [n, horizon]: column j predicts token start + j + 1 [nats].

    Args:
        backend: With the embedded model.
        rows: int [S] each, S at least start + horizon + 1.
        scorer: As in a sweep.
        plan: How the caches travel.
        start: The handover [tokens].
        horizon: Predictions that are judged.
    """
    before = backend.settings
    try:
        backend.settings = ranking(before, scorer, (), ())
        sessions = [backend.open(reference, start) for reference in backend.references(rows)]
        backend.migrate(sessions, [plan] * len(sessions))
    finally:
        backend.settings = before
    steps = [backend.advance(sessions, [1] * len(sessions)).kl for _ in range(horizon)]
    for session in sessions:
        backend.close(session)
    return np.stack(steps, axis=1)


def measure(backend: KVBackend, count: int, seed: int, quiet: bool = False) -> Iterator[Row]:
    """The table: one line per source, scorer, kept fraction and kind of token, and one for all kinds together.

    Args:
        backend: With the embedded model.
        count: Rows per source.
        seed: Seed of the scripts.
        quiet: No progress bar.
    """
    total = len(SOURCES) * len(SCORERS) * len(KEEPS)
    with tqdm(total=total, unit="plan", disable=quiet, dynamic_ncols=True, leave=False) as bar:
        for source in SOURCES:
            rows = tokens_of(source, count, seed)
            predicted = np.stack([kinds(row)[START + 1 : START + HORIZON + 1] for row in rows])
            for scorer, keep in product(SCORERS, KEEPS):
                kl = drift_by_token(backend, rows, scorer, TransferPlan(keep=keep), START, HORIZON)
                where = {"source": source, "scorer": scorer, "keep": keep}
                for kind in ("all", *(KINDS if source == "sessions" else ())):
                    mask = predicted >= 0 if kind == "all" else predicted == KINDS.index(kind)
                    yield {**where, "kind": kind, **summary(kl, mask)}
                bar.update()


def summary(kl: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Means over the tokens of one kind.

    Args:
        kl: float64 [n, T], nats.
        mask: bool [n, T], the tokens of this kind.

    Returns:
        `share` of all tokens, `kl` [nats per token of this kind], `part` [nats per token of all kinds] with its 95 %
        interval over rows; the parts of all kinds add up to the whole drift.
    """
    part = mean(np.where(mask, kl, 0.0).mean(1))
    share = float(mask.mean())
    inside = float(kl[mask].mean()) if mask.any() else 0.0
    return {"share": round(share, 4), "kl": round(inside, 4), **part.columns("part"), "tokens": int(mask.sum())}


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    add_out(parser, "runs/drift_by_token", "drift_by_token.csv and drift_by_token.md")
    parser.add_argument("--rows", type=int, default=40, help="sessions or texts per source (default: %(default)s)")
    add_seed(parser, 2028, "of the sessions; the one of pruning.csv")
    parser.add_argument("--measured", action="store_true", help="write the page of the table that --out holds")
    add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Write table and page."""
    if args.rows < 1 or args.seed < 0:
        raise ConfigError(f"--rows {args.rows} or --seed {args.seed} is too low; give 1 and 0 or more")
    table, text = (args.out / f"drift_by_token.{end}" for end in ("csv", "md"))
    if not args.measured:
        make_folder(args.out)
        write_csv(list(measure(KVBackend.load(device="cpu"), args.rows, args.seed, args.quiet)), table, COLUMNS)
    elif not table.is_file():
        raise ConfigError(f"{str(table)!r} does not exist; measure without --measured first")
    rows = read_csv(table)
    write_whole(text, lambda draft: draft.write_text(page(rows, START, HORIZON), encoding="utf-8"))
    print(f"{len(rows)} lines: {table}, {text}")


command = Command("python -m kvroam.kvbackend.embedded.training.drift_by_token", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
