"""Measure the shipped model: `python -m kvroam.kvbackend.embedded.report` writes `report.json`.

Recall, copying, bits per byte, what the whole cache answers on session scripts, and how the drift grows as less
of the cache is kept. Every number states how many questions, tokens or contexts it rests on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import KvroamError
from .corpus import fingerprint, read_corpus
from .exams import BLOCKS, EXAMS, bits_per_byte, greedy, induction, recall
from .keys import KeyBook
from .lessons import key_words
from .manifest import ASSETS, read_manifest, write_manifest
from .model import MAX_TOKENS, load_model
from .scripts import COLD, HOT, SITUATIONS, Script, script_bank
from .tokenizer import encode_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

KEEPS = (1.0, 0.75, 0.5, 0.25, 0.1)
POSITIONS = (256, 448, 640)
HORIZON = 192


def quality(folder: Path, questions: int, seed: int) -> dict[str, Any]:
    """Recall, induction and bits per byte on text, keys and values that training never saw.

    Args:
        folder: Folder of the assets.
        questions: Questions per recall exam.
        seed: Seed of the exams.
    """
    model, wrapped = load_model(folder=folder)
    train, held = read_corpus()
    tokenizer = wrapped.backend_tokenizer
    streams = encode_texts(tokenizer, held)
    stream = np.concatenate([np.asarray(ids, np.int64) for ids in streams])
    book = KeyBook.from_tokenizer(tokenizer, key_words(train))
    result: dict[str, Any] = {"questions_per_exam": questions, "seed": seed, "corpus_sha256": fingerprint(train)}
    for name, exam in EXAMS.items():
        result[name] = round(recall(model, book, stream, exam, questions, seed), 4)
    for name, (block, length) in {**BLOCKS, "block_512_in_1024": (512, 1024)}.items():
        result[name] = round(induction(model, block, length, 64, seed), 4)
    sizes = [len(text) for text in held]
    result["bits_per_byte"] = round(bits_per_byte(model, streams, sizes, 10**6), 4)
    result["held_out_bytes"] = sum(sizes)
    result["parameters"] = sum(p.numel() for p in model.parameters())
    return result


def script_recall(model: LlamaForCausalLM, bank: list[Script]) -> dict[str, float]:
    """What the whole cache answers right on scripts, hot and cold facts apart.

    Args:
        model: Model in eval mode.
        bank: Scripts of equal length.

    Returns:
        Exact-match shares "hot", "cold" and "all", and "queries", the mean number of them per script.
    """
    tokens = np.stack([script.tokens for script in bank]).astype(np.int64)
    guesses = greedy(model, tokens)
    hits: dict[int, list[bool]] = {HOT: [], COLD: []}
    for i, script in enumerate(bank):
        for name in range(int(script.query.max()) + 1):
            at = np.flatnonzero(script.query == name)
            hits[int(script.answer[at[0]])].append(bool((guesses[i, at - 1] == tokens[i, at]).all()))
    both = hits[HOT] + hits[COLD]
    shares = {"hot": hits[HOT], "cold": hits[COLD], "all": both}
    result = {name: round(float(np.mean(found)), 4) for name, found in shares.items() if found}
    return {**result, "queries": round(len(both) / len(bank), 2)}


def drift_table(folder: Path, situation: str, scripts: int, seed: int) -> list[dict[str, float]]:
    """Drift and recall after one handover, for each keep ratio, with guarded and pooled last-window saliency.

    Args:
        folder: Folder of the assets.
        situation: Kind of scripts.
        scripts: How many; each is handed over at POSITIONS, independently.
        seed: Seed of the scripts.

    Returns:
        One row per keep ratio: KL [nats per token], top-1 agreement, hot and cold recall over HORIZON tokens.
    """
    from .. import KVBackend, TransferPlan

    backend = KVBackend(load_model(folder=folder)[0])
    bank = script_bank(scripts, MAX_TOKENS, seed, situation)
    references = backend.references([(script.tokens, script.answer, script.query) for script in bank])
    rows = []
    for keep in KEEPS:
        sessions = [backend.open(reference, at) for reference in references for at in POSITIONS]
        sent = backend.migrate(sessions, [TransferPlan(keep=keep)] * len(sessions))
        drift = backend.measure(sessions, HORIZON)
        row = {
            "keep": keep,
            "kl": drift.kl.sum() / drift.tokens.sum(),
            "top1": drift.matches.sum() / drift.tokens.sum(),
            "hot": drift.hot_hits.sum() / max(drift.hot_total.sum(), 1),
            "cold": drift.cold_hits.sum() / max(drift.cold_total.sum(), 1),
            "payload_bytes": np.mean([migration.payload_bytes for migration in sent]),
        }
        rows.append({name: round(float(value), 4) for name, value in row.items()})
        for session in sessions:
            backend.close(session)
    return rows


def full_report(folder: Path, quick: bool, seed: int) -> dict[str, Any]:
    """Everything that `report.json` holds."""
    result: dict[str, Any] = {"quality": quality(folder, 128 if quick else 1024, seed)}
    print(json.dumps(result["quality"], indent=1), flush=True)
    model, _ = load_model(folder=folder)
    count = 16 if quick else 64
    kinds = ("mixed", *SITUATIONS)
    result["scripts"] = {kind: script_recall(model, script_bank(count, MAX_TOKENS, seed, kind)) for kind in kinds}
    result["scripts"]["count"] = count
    print(json.dumps(result["scripts"]), flush=True)
    tables = {}
    for kind in kinds:
        tables[kind] = drift_table(folder, kind, 4 if quick else 24, seed + 1)
        for row in tables[kind]:
            print(kind, row, flush=True)
    settings = {"scorer": "window", "bits": 16, "positions": POSITIONS, "horizon": HORIZON}
    result["drift"] = {**settings, "scripts": 4 if quick else 24, "tables": tables}
    return result


def main(argv: list[str] | None = None) -> int:
    """Command line; writes `report.json` and renews the manifest; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kvroam.kvbackend.embedded.report", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ASSETS, help="folder of the assets")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--quick", action="store_true", help="a small sample, for a first look")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    try:
        import torch

        torch.set_num_threads(args.threads)
        started = time.monotonic()
        result = full_report(args.folder, args.quick, args.seed)
        result["wall_s"] = round(time.monotonic() - started, 1)
        (args.folder / "report.json").write_text(json.dumps(result, indent=1) + "\n")
        write_manifest(args.folder, read_manifest(args.folder).get("made", {}))
    except KvroamError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
