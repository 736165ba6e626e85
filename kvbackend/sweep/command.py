"""The command: `python -m kvroam.kvbackend.sweep [--model NAME --text FILE] --out DIR`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ConfigError
from ...files import write_whole
from ..embedded.scripts import script_bank
from ..scorers.table import SCORERS
from ..settings import TransferPlan
from .choices import ORACLE, PER_HEAD, PRECISIONS
from .curves import draw
from .points import write_table

if TYPE_CHECKING:
    from ..backend import KVBackend

_RANKINGS = (*SCORERS, ORACLE)


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
        raise ConfigError("this model came without a tokenizer; give token ids to kvroam.kvbackend.sweep.measure.sweep")
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
                        help=f"among {', '.join(_RANKINGS)}; {PER_HEAD} behind one: a list per head",
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
        if scorer.removesuffix(PER_HEAD) not in _RANKINGS:
            raise ConfigError(f"scorer {scorer!r} does not exist; use some of {', '.join(_RANKINGS)}")
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

    from ..backend import KVBackend
    from .measure import sweep

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
