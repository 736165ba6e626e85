"""Folders that are made, and files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .errors import ConfigError


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it, where it is absent.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be made ({error.strerror}); give another folder") from error
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a draft beside `path`, then put it in place at once: readers never see half a file.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(draft)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written ({error.strerror}); give another --out") from error
    finally:
        draft.unlink(missing_ok=True)
