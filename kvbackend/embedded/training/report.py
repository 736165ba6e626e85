"""Measure the shipped model: `python -m kvroam.kvbackend.embedded.training.report --page docs/embedded.md`.

Writes `report.json`: recall, copying, bits per byte, what the whole cache answers on session scripts, how the drift
grows as less of the cache is kept, and which gates that passes. Every number has a 95 % interval and says how many
questions, tokens or windows it rests on. The page shows the reports of all seeds that lie in the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ....commands import Command, add_seed, add_threads
from ....files import write_whole
from ...backend import KVBackend
from ...settings import KVSettings, TransferPlan
from ..keys import KeyBook
from ..manifest import ASSETS, read_manifest, write_manifest
from ..model import MAX_TOKENS, load_model
from ..scripts import COLD, HOT, SITUATIONS, Script, script_bank
from .corpus import fingerprint, read_corpus
from .exams import BLOCKS, EXAMS, bits_per_byte, greedy, induction, recall
from .gates import judge
from .intervals import drift_columns, share
from .lessons import key_words
from .report_page import gate_line, page, read_reports
from .vocabulary import encode_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

KEEPS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
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
        result[name] = recall(model, book, stream, exam, questions, seed).entry()
    for name, (block, length) in BLOCKS.items():
        result[name] = induction(model, block, length, 64, seed).entry()
    sizes = [len(text) for text in held]
    result["bits_per_byte"] = bits_per_byte(model, streams, sizes, 10**6).entry()
    result["held_out_bytes"] = sum(sizes)
    result["parameters"] = sum(p.numel() for p in model.parameters())
    return result


def script_recall(model: LlamaForCausalLM, bank: list[Script]) -> dict[str, Any]:
    """What the whole cache answers right on scripts, hot and cold facts apart.

    Args:
        model: Model in eval mode.
        bank: Scripts of equal length.

    Returns:
        Exact-match shares "hot" and "cold" with intervals over scripts.
    """
    tokens = np.stack([script.tokens for script in bank]).astype(np.int64)
    guesses = greedy(model, tokens)
    hits, totals = np.zeros((2, len(bank)), int), np.zeros((2, len(bank)), int)
    for i, script in enumerate(bank):
        for name in range(int(script.query.max()) + 1):
            at = np.flatnonzero(script.query == name)
            kind = (HOT, COLD).index(int(script.answer[at[0]]))
            hits[kind, i] += bool((guesses[i, at - 1] == tokens[i, at]).all())
            totals[kind, i] += 1
    return {name: share(hits[kind], totals[kind]).entry() for kind, name in enumerate(("hot", "cold"))}


def drift_table(folder: Path, situation: str, scripts: int, seed: int) -> list[dict[str, Any]]:
    """Drift and recall after one handover, for each keep ratio, with guarded and pooled last-window saliency.

    Args:
        folder: Folder of the assets.
        situation: Kind of scripts.
        scripts: How many; each is handed over at POSITIONS, independently.
        seed: Seed of the scripts.

    Returns:
        One row per keep ratio: KL [nats per token], top-1 agreement, hot and cold recall over HORIZON tokens, with
        intervals over scripts.
    """
    backend = KVBackend(load_model(folder=folder)[0], settings=KVSettings(scorer="window", scope="sequence"))
    bank = script_bank(scripts, MAX_TOKENS, seed, situation)
    references = backend.references([(script.tokens, script.answer, script.query) for script in bank])
    rows = []
    for keep in KEEPS:
        sessions = [backend.open(reference, at) for reference in references for at in POSITIONS]
        sent = backend.migrate(sessions, [TransferPlan(keep=keep)] * len(sessions))
        drift = backend.measure(sessions, HORIZON)
        payload = np.mean([migration.payload_bytes for migration in sent])
        rows.append({"keep": keep, "payload_bytes": round(float(payload), 1), **drift_columns(drift, scripts)})
        for session in sessions:
            backend.close(session)
    return rows


def full_report(folder: Path, quick: bool, seed: int) -> dict[str, Any]:
    """Everything that `report.json` holds."""
    result: dict[str, Any] = {"made": read_manifest(folder).get("made", {})}
    log = json.loads((folder / "training_log.json").read_text())
    result["training"] = [entry for entry in log["log"] if "phase" in entry]
    result["quality"] = quality(folder, 128 if quick else 1024, seed)
    model, _ = load_model(folder=folder)
    count, few = (16, 4) if quick else (64, 24)
    kinds = ("mixed", *SITUATIONS)
    result["scripts"] = {kind: script_recall(model, script_bank(count, MAX_TOKENS, seed, kind)) for kind in kinds}
    result["scripts"]["count"] = count
    tables = {kind: drift_table(folder, kind, few, seed + 1) for kind in tqdm(kinds, unit="situation", leave=False)}
    settings = {"scorer": "window", "bits": 16, "positions": POSITIONS, "horizon": HORIZON}
    result["drift"] = {**settings, "scripts": few, "tables": tables}
    result["gates"] = judge(result)
    return result


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--folder", type=Path, default=ASSETS, help="folder of the assets")
    add_seed(parser, 2026, "of exams and scripts")
    parser.add_argument("--quick", action="store_true", help="a small sample, for a first look")
    add_threads(parser)
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the reports of the folder as Markdown")
    parser.add_argument("--measured", action="store_true", help="write page and manifest of reports made earlier")


def execute(args: argparse.Namespace) -> None:
    """Write `report.json`, the page and the manifest."""
    if not args.measured:
        result = full_report(args.folder, args.quick, args.seed)
        text = json.dumps(result, indent=1) + "\n"
        write_whole(args.folder / "report.json", lambda draft: draft.write_text(text))
        for row in result["gates"]:
            print(gate_line(row))
    if args.page:
        text = page(read_reports(args.folder))
        write_whole(args.page, lambda draft: draft.write_text(text, encoding="utf-8"))
    write_manifest(args.folder, read_manifest(args.folder).get("made", {}))


command = Command("python -m kvroam.kvbackend.embedded.training.report", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
