"""The manifest of the shipped files: checksums, and how they were made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ...errors import ModelError

ASSETS = Path(__file__).with_name("assets")
NAME = "manifest.json"


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(folder: Path, made: dict[str, Any]) -> None:
    """Write `manifest.json` with the checksum and size of every other file of the folder.

    Args:
        folder: Folder of the assets.
        made: How they were made (seed, commands, versions); recorded as it is.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != NAME and not p.name.startswith("."))
    listed = {p.name: {"sha256": sha256(p), "bytes": p.stat().st_size} for p in files}
    (folder / NAME).write_text(json.dumps({"files": listed, "made": made}, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`.

    Raises:
        ModelError: It is absent or malformed.
    """
    path = folder / NAME
    try:
        manifest = json.loads(path.read_text())
        manifest["files"].items()
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"embedded model: {path} cannot be read ({type(error).__name__}); reinstall kvroam") from error
    return manifest


def verify(folder: Path, names: tuple[str, ...]) -> None:
    """Check files against the manifest.

    Args:
        folder: Folder of the assets.
        names: File names.

    Raises:
        ModelError: A file is absent, not listed, or its checksum differs.
    """
    files = read_manifest(folder)["files"]
    for name in names:
        path = folder / name
        if name not in files or not path.is_file():
            raise ModelError(f"embedded model: {path} is absent or not in {NAME}; reinstall kvroam")
        found, wanted = sha256(path), files[name]["sha256"]
        if found != wanted:
            raise ModelError(
                f"embedded model: {path} has sha256 {found[:12]}..., {NAME} says {wanted[:12]}...; reinstall kvroam"
            )
