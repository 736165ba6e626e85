"""Train the embedded language model: `python -m kvroam.kvbackend.embedded.training.train --out DIR --seed S`.

Writes `tokenizer.json`, `config.json`, `model.safetensors` (fp16), one fp32 checkpoint per phase and
`training_log.json`. `--resume` continues after the last finished phase; every phase draws from its own generator
and starts a fresh optimiser, so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....commands import Command, add_seed, add_threads
from ....errors import ModelError
from ....files import make_folder
from ..keys import KeyBook
from ..tokenizer import load_tokenizer
from .corpus import fingerprint, read_corpus
from .exams import BLOCKS, EXAMS, bits_per_byte, induction, recall, tables
from .lessons import key_words
from .network import build_model, write_model
from .phases import PHASES, Phase, batch
from .vocabulary import encode_texts, train_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

# Least exam results after a phase; a miss means that this seed did not form what the next phase builds on.
GATES = {
    "A": {"induction": 0.9, "tables": 0.9},
    "C": {"recall_512_8": 0.7},
    "E": {"recall_512_8": 0.95, "recall_1024_16": 0.8},
}


@dataclass
class Course:
    """Everything a training run holds in memory: token streams, keys, and the log."""

    book: KeyBook
    stream: np.ndarray
    held: list[list[int]]
    held_bytes: list[int]
    log: list[dict[str, Any]] = field(default_factory=list)


def prepare(out: Path) -> Course:
    """Read the corpus, train the tokenizer unless `out` has one, and encode everything."""
    train, held = read_corpus()
    path = out / "tokenizer.json"
    if not path.exists():
        train_tokenizer(train).save(str(path))
    tokenizer = load_tokenizer(path)
    stream = np.concatenate([np.asarray(ids, np.int64) for ids in encode_texts(tokenizer, train)])
    book = KeyBook.from_tokenizer(tokenizer, key_words(train))
    course = Course(book, stream, encode_texts(tokenizer, held), [len(text) for text in held])
    course.log.append({"corpus_sha256": fingerprint(train), "corpus_tokens": len(stream)})
    return course


def examine(model: LlamaForCausalLM, course: Course, phase: str, seed: int) -> dict[str, float]:
    """The few measurements that make sense after a phase, on a small sample."""
    model.eval()
    result = {"induction": induction(model, 16, 64, 64, seed).value, "tables": tables(model, 64, seed)}
    if phase != "A":
        held = np.concatenate([np.asarray(ids, np.int64) for ids in course.held])
        names = ["recall_128_4"] + (["recall_512_8", "recall_512_12_free"] if phase != "B" else [])
        names += ["recall_1024_16"] if phase in "EFG" else []
        for name in names:
            result[name] = recall(model, course.book, held, EXAMS[name], 128, seed).value
        for name in BLOCKS if phase in "FG" else ["block_64_in_128"]:
            result[name] = induction(model, *BLOCKS[name], 32, seed).value
        result["bits_per_byte"] = bits_per_byte(model, course.held, course.held_bytes, 32).value
    model.train()
    return result


def run_phase(
    model: LlamaForCausalLM, phase: Phase, course: Course, seed: int, started: float, deadline: float | None
) -> dict[str, float]:
    """Train one phase and return its exam results.

    Args:
        model: Model, trained in place (fp32 weights, bf16 arithmetic).
        phase: Stage of training.
        course: Data.
        seed: Seed of the run.
        started: time.monotonic() at the start of the run, for the log [s].
        deadline: time.monotonic() at which the phase must have ended [s]; the learning rate falls accordingly.
    """
    import torch

    rng = np.random.default_rng([seed, PHASES.index(phase)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=phase.rates[0], betas=(0.9, 0.95), weight_decay=0.05)
    begun, losses, seen = time.monotonic(), [], 0
    for step in range(phase.steps):
        done = step / phase.steps
        if deadline is not None:
            done = max(done, (time.monotonic() - begun) / max(deadline - begun, 1e-9))
            if done >= 1:
                break
        rate = phase.rates[0] + (phase.rates[1] - phase.rates[0]) * done
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / phase.warmup)
        tokens, weights = batch(phase, step, rng, course.book, course.stream)
        loss = weighted_loss(model, torch.from_numpy(tokens), torch.from_numpy(weights))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        seen += tokens.size
        if phase.name == "A" and step >= 199 and step % 20 == 19:
            results = examine(model, course, "A", seed)
            if all(results[name] >= least for name, least in GATES["A"].items()):
                break
        if step % 100 == 99:
            spent = time.monotonic() - started
            print(f"{phase.name} {step + 1:5d}  {spent:6.0f} s  loss {np.mean(losses[-100:]):.3f}", flush=True)
    results = examine(model, course, phase.name, seed)
    entry = {
        "phase": phase.name,
        "steps": len(losses),
        "tokens": seen,
        "wall_s": round(time.monotonic() - started, 1),
        "loss": round(float(np.mean(losses[-50:])), 4) if losses else None,
        **{name: round(value, 4) for name, value in results.items()},
    }
    print(json.dumps(entry), flush=True)
    course.log.append(entry)
    return results


def check_gates(phase: str, results: dict[str, float], seed: int) -> None:
    """Raise ModelError if an exam result of a phase is below its gate."""
    for name, least in GATES.get(phase, {}).items():
        if results[name] < least:
            raise ModelError(
                f"phase {phase}: {name} is {results[name]:.3f}, at least {least} is needed; "
                f"train again with another --seed than {seed}"
            )


def weighted_loss(model: LlamaForCausalLM, tokens: Any, weights: Any) -> Any:
    """Mean cross-entropy over the tokens that carry weight; the vocabulary is projected at those only.

    Args:
        model: Model.
        tokens: int64 [B, L + 1].
        weights: float32 [B, L + 1].

    Returns:
        Scalar tensor.
    """
    import torch

    wanted = weights[:, 1:] > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[wanted])
    losses = torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:][wanted], reduction="none")
    chosen = weights[:, 1:][wanted]
    return (losses * chosen).sum() / chosen.sum()


def train(out: Path, seed: int, minutes: float | None, last: str, resume: bool) -> None:
    """Run the phases up to `last`, and save model, checkpoint and log after each.

    Args:
        out: Folder to write to; an existing `tokenizer.json` in it is used.
        seed: Seed of weights and data.
        minutes: The last phase ends after this many minutes from the start; None lets it run to its end.
        last: Name of the last phase.
        resume: Skip the phases whose checkpoints `out` already holds.

    Raises:
        ModelError: A gate was missed.
        ConfigError: `out` cannot be made.
    """
    import torch
    from safetensors.torch import load_file, save_file

    make_folder(out)
    started = time.monotonic()
    deadline = None if minutes is None else started + 60 * minutes
    course = prepare(out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(torch.float32).train()
    log_path = out / "training_log.json"
    for phase in PHASES:
        if phase.name > last:
            break
        path = out / f"phase_{phase.name}.safetensors"
        if resume and path.exists() and log_path.exists():
            model.load_state_dict(load_file(path), strict=False)
            course.log = json.loads(log_path.read_text())["log"]
            continue
        results = run_phase(model, phase, course, seed, started, deadline if phase.name == last else None)
        save_file({k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}, path)
        write_model(model, out)
        record = {
            "seed": seed,
            "minutes": minutes,
            "command": f"python -m kvroam.kvbackend.embedded.training.train --seed {seed}"
            + ("" if minutes is None else f" --minutes {minutes:g}"),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "gates": GATES,
            "log": course.log,
        }
        log_path.write_text(json.dumps(record, indent=1) + "\n")
        check_gates(phase.name, results, seed)


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, tokenizer and log")
    add_seed(parser, 1, "of weights and data")
    parser.add_argument("--minutes", type=float, help="end the last phase after this many minutes in all")
    names = [phase.name for phase in PHASES]
    parser.add_argument("--last", choices=names, default=names[-1], help="last phase to run")
    add_threads(parser)
    parser.add_argument("--resume", action="store_true", help="continue after the last finished phase in --out")


def execute(args: argparse.Namespace) -> None:
    """Train as the command line says."""
    train(args.out, args.seed, args.minutes, args.last, args.resume)


command = Command("python -m kvroam.kvbackend.embedded.training.train", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
