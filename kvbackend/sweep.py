"""Fidelity against bytes, measured: `python -m kvroam.kvbackend.sweep [--model NAME --text FILE] --out DIR`.

Every session is handed over once by every combination of scorer, kept fraction and precision, and then reads on. The
table `sweep.csv` and the figure `sweep.png` say what each combination costs in bytes and in drift.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..commands import run as run_command
from ..errors import ConfigError
from ..files import write_whole
from .settings import SCORER_NAMES, KVSettings, TransferPlan

if TYPE_CHECKING:
    from .backend import KVBackend
    from .drift import Drift
    from .reference import Reference

# A sweep's own scorers: the upper bound, and the suffix that lets each layer and KV head keep a list of its own.
ORACLE = "oracle"
PER_HEAD = "@head"

PRECISIONS = {
    "fp32": TransferPlan(bits=32),
    "fp16": TransferPlan(bits=16, half="float16"),
    "bf16": TransferPlan(bits=16, half="bfloat16"),
    "int8": TransferPlan(bits=8),
    "int4": TransferPlan(bits=4),
    "int2": TransferPlan(bits=2),
}


@dataclass(frozen=True)
class Point:
    """One line of the table: means over all sessions, per session for bytes, per token for the rest."""

    scorer: str
    keep: float
    precision: str
    bytes: float  # of the payload
    kl: float  # KL(full || degraded) [nats]
    js: float  # Jensen-Shannon divergence [nats]
    top1: float  # fraction of tokens at which both predict the same
    dnll: float  # extra negative log-likelihood of the text [nats]
    recall: float | None  # fraction of answers that are right; None where the text asks nothing
    recall_hot: float | None  # of those asked about recently
    recall_cold: float | None  # of the others


def sweep(
    backend: "KVBackend",
    references: Sequence["Reference"],
    context: int,
    horizon: int,
    scorers: Sequence[str] = ("window",),
    keeps: Sequence[float] = (1.0, 0.5, 0.25),
    precisions: Sequence[str] = ("fp16",),
    scripts: Sequence[object] = (),
) -> Iterator[Point]:
    """Hand sessions over at token `context`, let each read `horizon` tokens, and yield one point per combination.

    Args:
        references: scripts, each of at least context + 1 tokens.
        horizon: tokens that are judged, or what is left of the script.
        scorers: names of scorers, also `oracle`; `@head` behind one lets each layer and KV head choose.
        scripts: what the references were made from, for `oracle`.

    Raises:
        ConfigError: an unknown scorer or precision, a fraction outside (0, 1], too short a script, or an oracle
            without scripts that tell where their facts stand.
    """
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown:
        raise ConfigError(f"precision {unknown[0]!r} does not exist; use one of {', '.join(PRECISIONS)}")
    settings = [ranking(backend.settings, scorer, references, scripts) for scorer in scorers]
    plans = [[replace(PRECISIONS[precision], keep=keep) for precision in precisions] for keep in keeps]
    shortest = min(map(len, references), default=0)
    if shortest <= context:
        raise ConfigError(f"context = {context} leaves nothing to read of a script of {shortest} tokens; lower it")
    before = backend.settings
    try:
        for (scorer, chosen), row in product(zip(scorers, settings, strict=True), plans):
            for precision, plan in zip(precisions, row, strict=True):
                backend.settings = chosen
                count = len(references)
                sizes, _, drift = hand_over(backend, references, [context] * count, horizon, [plan] * count)
                yield _point(scorer, plan.keep, precision, sizes, drift)
    finally:
        backend.settings = before


def ranking(
    base: KVSettings, name: str, references: Sequence["Reference"], scripts: Sequence[object]
) -> KVSettings:
    """Settings that rank as a scorer's name in a sweep says.

    Args:
        name: one of SCORER_NAMES or ORACLE, with PER_HEAD behind it or not.
        references, scripts: what the oracle is told, in the same order.

    Raises:
        ConfigError: an unknown name, or an oracle without scripts that tell where their facts stand.
    """
    plain = name.removesuffix(PER_HEAD)
    scorer: object = plain
    if plain == ORACLE:
        from .oracle import FactOracle

        scorer = FactOracle(references, scripts or [None] * len(references))
    return replace(base, scorer=scorer, scope="head" if name.endswith(PER_HEAD) else base.scope)


def hand_over(
    backend: "KVBackend",
    references: Sequence["Reference"],
    contexts: Sequence[int],
    horizon: int,
    plans: Sequence[TransferPlan],
) -> tuple[np.ndarray, np.ndarray, "Drift"]:
    """Hand one session per script over, each after its own context and by its own plan.

    Returns:
        Payload bytes [n], tokens sent [n], and the drift over the next `horizon` tokens.
    """
    sessions = [backend.open(*item) for item in zip(references, contexts, strict=True)]
    moves = backend.migrate(sessions, plans)
    drift = backend.measure(sessions, horizon)
    for session in sessions:
        backend.close(session)
    return np.array([move.payload_bytes for move in moves]), np.array([move.sent_tokens for move in moves]), drift


def _point(scorer: str, keep: float, precision: str, sizes: np.ndarray, drift: "Drift") -> Point:
    tokens = drift.tokens.sum()
    hot, cold = drift.hot_total.sum(), drift.cold_total.sum()
    hits = drift.hot_hits.sum(), drift.cold_hits.sum()
    return Point(
        scorer=scorer,
        keep=keep,
        precision=precision,
        bytes=float(sizes.mean()),
        kl=float(drift.kl.sum() / tokens),
        js=float(drift.js.sum() / tokens),
        top1=float(drift.matches.sum() / tokens),
        dnll=float(drift.delta_nll.sum() / tokens),
        recall=float(sum(hits) / (hot + cold)) if hot + cold else None,
        recall_hot=float(hits[0] / hot) if hot else None,
        recall_cold=float(hits[1] / cold) if cold else None,
    )


def write_table(points: Sequence[Point], path: Path) -> None:
    """Write points as CSV, six significant digits, an empty cell where there is no value; all of it or nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Point)])
    for point in points:
        cells = asdict(point).values()
        writer.writerow(["" if x is None else f"{x:.6g}" if isinstance(x, float) else x for x in cells])
    write_whole(path, lambda draft: draft.write_text(text.getvalue(), encoding="utf-8"))


def text_scripts(backend: "KVBackend", path: Path, count: int, length: int) -> list[np.ndarray]:
    """At most `count` stretches of `length` tokens, evenly spaced over a text file, not overlapping.

    Raises:
        ConfigError: the file cannot be read as UTF-8, or is shorter than one stretch.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text {str(path)!r} cannot be read as UTF-8 text ({error}); give another file") from error
    if backend.tokenizer is None:
        raise ConfigError("this model came without a tokenizer; give token ids to kvroam.kvbackend.sweep.sweep")
    ids = np.asarray(backend.tokenizer.encode(text, add_special_tokens=False), dtype=np.int64)
    count = min(count, len(ids) // length)
    if count < 1:
        raise ConfigError(
            f"--text {str(path)!r} has {len(ids)} tokens, one session takes {length}; give a longer text, or lower "
            "--context or --horizon"
        )
    starts = np.linspace(0, len(ids) - length, count).astype(int)
    return [ids[start : start + length] for start in starts]


def _scripts(backend: "KVBackend", args: argparse.Namespace) -> list:
    length = args.context + args.horizon
    if args.text:
        return text_scripts(backend, Path(args.text), args.sessions, length)
    if args.model != "embedded":
        raise ConfigError(f"model {args.model!r} needs a text to read; give --text FILE")
    from .embedded.scripts import script_bank

    return list(script_bank(args.sessions, length, args.seed, args.situation))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kvroam.kvbackend.sweep",
        description="Measure what pruning and quantising a KV cache costs a language model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="embedded", help="embedded, or a Hugging Face name or folder")
    parser.add_argument("--text", metavar="FILE", help="UTF-8 text to read; sessions with questions by default")
    parser.add_argument("--scorers", nargs="+", metavar="NAME",
                        help=f"among {', '.join((*SCORER_NAMES, ORACLE))}; {PER_HEAD} behind one: a list per head",
                        default=["window", "attention-sum", "key-norm", "streaming", "random"])  # fmt: skip
    parser.add_argument("--keeps", nargs="+", type=float, metavar="FRACTION", help="of the tokens that are sent",
                        default=[1.0, 0.75, 0.5, 0.25, 0.1, 0.05])  # fmt: skip
    parser.add_argument("--precisions", nargs="+", metavar="NAME", help=f"among {', '.join(PRECISIONS)}",
                        default=["fp16", "int8", "int4", "int2"])  # fmt: skip
    parser.add_argument("--sessions", type=int, default=40, help="sessions that are handed over")
    parser.add_argument("--context", type=int, default=512, help="tokens read before the handover")
    parser.add_argument("--horizon", type=int, default=128, help="tokens read after it")
    parser.add_argument("--situation", default="mixed", help="pending, answered, adverse, text or mixed")
    parser.add_argument("--seed", type=int, default=0, help="of the sessions")
    parser.add_argument("--device", help="torch device; a GPU where there is one")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights")
    parser.add_argument("--out", default="runs/sweep", metavar="DIR", help="folder for sweep.csv and sweep.png")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be used before a model is loaded."""
    for name in ("sessions", "context", "horizon"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)} is below 1; raise it")
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed} is negative; give 0 or more")
    for scorer in args.scorers:
        if scorer.removesuffix(PER_HEAD) not in (*SCORER_NAMES, ORACLE):
            raise ConfigError(f"scorer {scorer!r} does not exist; use some of {', '.join((*SCORER_NAMES, ORACLE))}")
    for precision in args.precisions:
        if precision not in PRECISIONS:
            raise ConfigError(f"precision {precision!r} does not exist; use some of {', '.join(PRECISIONS)}")
    for keep in args.keeps:
        TransferPlan(keep=keep)
    try:
        Path(args.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {args.out!r} cannot be made ({error.strerror}); give another folder") from error


def command(arguments: list[str] | None = None) -> None:
    """The command line."""
    args = _parser().parse_args(arguments)
    _check(args)
    import torch
    from tqdm import tqdm

    from .backend import KVBackend
    from .curves import draw

    backend = KVBackend.load(args.model, args.device, dtype=getattr(torch, args.dtype))
    if args.context + args.horizon > backend.max_tokens:
        raise ConfigError(
            f"--context {args.context} and --horizon {args.horizon} exceed the model's {backend.max_tokens} tokens; "
            "lower one"
        )
    scripts = _scripts(backend, args)
    references = backend.references(scripts)
    runs = sweep(backend, references, args.context, args.horizon, args.scorers, args.keeps, args.precisions, scripts)
    total = len(args.scorers) * len(args.keeps) * len(args.precisions)
    points = list(tqdm(runs, total=total, unit="plan", disable=args.quiet, dynamic_ncols=True, leave=False))
    table, picture = (Path(args.out) / name for name in ("sweep.csv", "sweep.png"))
    write_table(points, table)
    write_whole(picture, lambda draft: draw(points, draft))
    print(f"{len(references)} sessions, {total} plans: {table}, {picture}")


if __name__ == "__main__":
    sys.exit(run_command("kvroam-sweep", command))
