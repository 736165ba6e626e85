"""The run folder: what belongs to a run, when a new run may use it, and what a resumed one was configured as."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..agents.learned import BEST
from ..errors import KvroamError, PolicyError
from ..experiment import Experiment, flat, load_experiment
from ..files import write_whole
from .checkpoints import POLICY, STATE, forget
from .clip import CLIP
from .held_out import CURVE

CONFIG = "config.json"
SCALARS = "tensorboard"
LOCK = "run.lock"
# Everything that a run writes, and nothing else: only this may be removed.
_WRITTEN = (CONFIG, POLICY, BEST, CURVE, CLIP, STATE, SCALARS, "resume_*.zip", "resume_*.pkl", "evolution.json")


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder; it is made where it is absent.

    `run.lock` names the process. The system lets go of it when that process ends, however it ends, so that the file of
    a dead one keeps nobody out.

    Raises:
        KvroamError: another process trains into it, or it cannot be written.
    """
    path = out / LOCK
    try:
        out.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                process = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise KvroamError(f"run folder {str(out)!r} is used by another training (process {process}): wait for "
                                  "its end, or name another folder with --out") from None
            if _same(descriptor, path):
                break
            os.close(descriptor)  # the one before removed it in between
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        reason = f"run folder {str(out)!r} cannot be written ({error.strerror}): name another with --out"
        raise KvroamError(reason) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def begin(out: Path, experiment: Experiment[Any], overwrite: bool = False) -> None:
    """Make the run folder, with the configuration of a new run in it.

    Args:
        out: created if absent.
        experiment: what will be trained.
        overwrite: remove an earlier run from it first; other files stay.

    Raises:
        KvroamError: the folder holds a run, or cannot be written.
    """
    earlier = _files(out)
    if earlier and not overwrite:
        resume = f"go on with it by --resume {out}, " if (out / STATE).is_file() else ""
        raise KvroamError(f"run folder {str(out)!r} holds a run ({earlier[0].name}): {resume}name another with --out, "
                          "or replace it with --overwrite")
    text = json.dumps(flat(experiment), indent=2) + "\n"
    try:
        forget(out)
        for path in earlier:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / CONFIG, lambda draft: draft.write_text(text, encoding="utf-8"))
    except OSError as error:
        reason = f"run folder {str(out)!r} cannot be written ({error.strerror}): name another with --out"
        raise KvroamError(reason) from error


def configuration(out: Path) -> Experiment[Any]:
    """The experiment of the run in a folder.

    Raises:
        PolicyError: there is no run.
        ConfigError: its configuration cannot be used by this version.
    """
    if not (out / CONFIG).is_file():
        raise PolicyError(f"run {str(out)!r} cannot go on: it has no {CONFIG}; give a folder made by train.py")
    return load_experiment(out / CONFIG)


def _same(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _files(out: Path) -> list[Path]:
    return sorted(path for pattern in _WRITTEN for path in out.glob(pattern))
