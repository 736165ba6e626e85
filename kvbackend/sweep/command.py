"""Measure what pruning and quantising a KV cache costs a language model.

    python -m kvroam.kvbackend.sweep [--model NAME --text FILE] --out FOLDER
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...commands import Command, add_out, add_quiet, add_seed
from ...errors import ConfigError
from ...files import make_folder, write_whole
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
        return text_scripts(backend, args.text, args.sessions, length)
    if args.model != "embedded":
        raise ConfigError(f"model {args.model!r} needs a text to read; give --text FILE")
    return list(script_bank(args.sessions, length, args.seed, args.situation))


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    shown = "(default: %(default)s)"
    parser.add_argument("--model", default="embedded", help=f"embedded, or a Hugging Face name or folder {shown}")
    parser.add_argument("--text", type=Path, metavar="FILE",
                        help="UTF-8 text to read (default: sessions with questions)")
    parser.add_argument("--scorers", nargs="+", metavar="NAME",
                        help=f"among {', '.join(_RANKINGS)}; {PER_HEAD} behind one: a list per head {shown}",
                        default=["window", "reconstruction", "reconstruction@head", "expected-attention",
                                 "attention-sum", "key-norm", "streaming", "random"])  # fmt: skip
    parser.add_argument("--keeps", nargs="+", type=float, metavar="FRACTION",
                        help=f"of the tokens that are sent {shown}", default=[1.0, 0.75, 0.5, 0.25, 0.1, 0.05])
    parser.add_argument("--precisions", nargs="+", metavar="NAME", help=f"among {', '.join(PRECISIONS)} {shown}",
                        default=["fp16", "int8", "int4", "int2"])  # fmt: skip
    parser.add_argument("--sessions", type=int, default=40, help=f"sessions that are handed over {shown}")
    parser.add_argument("--context", type=int, default=512, help=f"tokens read before the handover {shown}")
    parser.add_argument("--horizon", type=int, default=128, help=f"tokens read after it {shown}")
    parser.add_argument("--situation", default="mixed", help=f"pending, answered, adverse, text or mixed {shown}")
    add_seed(parser, what="of the sessions")
    parser.add_argument("--device", help="torch device (default: a GPU where there is one)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help=f"of the weights {shown}")
    add_out(parser, "runs/sweep", "sweep.csv and sweep.png")
    add_quiet(parser)


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
    make_folder(args.out)


def execute(args: argparse.Namespace) -> None:
    """Measure as the command line says."""
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
    table, picture = (args.out / name for name in ("sweep.csv", "sweep.png"))
    write_table(points, table)
    write_whole(picture, lambda draft: draw(points, draft))
    print(f"{len(references)} sessions, {total} plans: {table}, {picture}")


# As many threads as torch likes: the model may be large.
command = Command("python -m kvroam.kvbackend.sweep", __doc__, options, execute, torch=False)
