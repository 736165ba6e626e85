"""Asset files: a compressed .npz of arrays beside a .json manifest that holds the checksum of the .npz."""

import hashlib
import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ...errors import SceneError

ASSETS = Path(__file__).with_name("assets")


def write(npz: Path, arrays: dict[str, np.ndarray], manifest: dict) -> dict:
    """Write `arrays` to `npz` and `manifest` beside it, the checksum added; equal arrays give equal bytes.

    Args:
        npz: File to write; the manifest takes the same name with the suffix .json.
        arrays: Arrays of any shape, none of type object.
        manifest: JSON-serialisable facts about the arrays.

    Returns:
        The manifest as written.
    """
    npz.parent.mkdir(parents=True, exist_ok=True)
    with npz.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    content = npz.read_bytes()
    complete = manifest | {"npz_bytes": len(content), "npz_sha256": hashlib.sha256(content).hexdigest()}
    npz.with_suffix(".json").write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
    return complete


def read(npz: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], dict]:
    """Read the arrays `names` and the manifest of an asset after comparing its checksum.

    Args:
        npz: The .npz file; its manifest lies beside it.
        names: Arrays that the asset must hold.

    Returns:
        The arrays by name, and the manifest.

    Raises:
        SceneError: The manifest is absent or unreadable, the checksum differs, or an array is missing.
    """
    sidecar = npz.with_suffix(".json")
    if not npz.exists():
        raise SceneError(f"{npz} does not exist: give the path of an .npz, or build it")
    if not sidecar.exists():
        raise SceneError(f"{npz} has no manifest: {sidecar.name} with its checksum must lie beside it; copy both "
                         "files, or build it again")
    try:
        manifest = json.loads(sidecar.read_text(encoding="utf-8"))
        expected = str(manifest["npz_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SceneError(f"{sidecar} is not a readable manifest with npz_sha256 ({error}): build it again") from None
    try:
        found = hashlib.sha256(npz.read_bytes()).hexdigest()
    except OSError as error:
        raise SceneError(f"{npz} cannot be read ({error.strerror}): build it again") from None
    if found != expected:
        raise SceneError(
            f"{npz} has sha256 {found[:16]}..., its manifest says {expected[:16]}...: "
            "restore the file or build it again"
        )
    try:
        with np.load(npz, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}, manifest
    except (BadZipFile, KeyError, ValueError) as error:
        raise SceneError(f"{npz} does not hold the arrays {', '.join(names)} ({error}): build it again") from None
