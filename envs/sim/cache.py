"""Compiled kernels that outlive a change of the source they were compiled from.

numba keeps what it compiled next to each file and looks at that file only: after a change in one file, a kernel of
another file that calls it would go on running the old code. So all kernels are dropped when any source has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

_STAMP = "kvroam-sources.txt"


def drop_stale(folders: tuple[Path, ...]) -> bool:
    """Delete the compiled kernels of `folders` if a source in any of them differs from when they were made.

    Returns:
        Whether kernels were dropped. Folders that cannot be written keep theirs.
    """
    digest = hashlib.sha256()
    for source in sorted(path for folder in folders for path in folder.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    dropped = False
    for folder in folders:
        cache = folder / "__pycache__"
        stamp = cache / _STAMP
        with contextlib.suppress(OSError):
            if stamp.exists() and stamp.read_text() == digest.hexdigest():
                continue
            cache.mkdir(exist_ok=True)
            for kernel in (*cache.glob("*.nbi"), *cache.glob("*.nbc")):
                kernel.unlink(missing_ok=True)
                dropped = True
            stamp.write_text(digest.hexdigest())
    return dropped
