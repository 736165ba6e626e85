"""The text that the embedded model learns to read: the standard library of the Python that runs the training."""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

from ....errors import ModelError

HOLD_OUT_EVERY = 30


def read_corpus(root: Path | None = None) -> tuple[list[str], list[str]]:
    """Read the standard library's sources and plain texts, in path order.

    Tests, installed packages and files that are not pure ASCII are left out. Every 30th file is held out.

    Args:
        root: Folder to read; the running Python's standard library by default.

    Returns:
        Texts to train on, and texts held out: two lists with one string per file.

    Raises:
        ModelError: The folder holds fewer than 30 usable files.
    """
    base = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    found = (path for path in base.rglob("*") if path.suffix in (".py", ".txt") and path.is_file())
    texts = []
    for path in sorted(found, key=lambda p: p.relative_to(base).as_posix()):
        parts = path.relative_to(base).parts
        if any(part in ("site-packages", "dist-packages") or part.startswith("test") for part in parts):
            continue
        data = path.read_bytes()
        if data and data.isascii():
            texts.append(data.decode("ascii").replace("\r\n", "\n"))
    if len(texts) < HOLD_OUT_EVERY:
        raise ModelError(
            f"corpus: {base} holds {len(texts)} ASCII .py/.txt files, at least {HOLD_OUT_EVERY} are needed; "
            "train with a Python that ships its standard library as source"
        )
    held = texts[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY]
    train = [text for i, text in enumerate(texts) if (i + 1) % HOLD_OUT_EVERY]
    return train, held


def fingerprint(texts: list[str]) -> str:
    """SHA-256 (hex) of all texts in order: two trainings read the same corpus iff these are equal."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("ascii"))
        digest.update(b"\0")
    return digest.hexdigest()
