"""The run folder: what belongs to a run, when a new run may use it, and what a resumed one was configured as."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import KvroamError, PolicyError
from ..experiment import Experiment, flat, load_experiment
from ..files import write_whole
from .checkpoints import POLICY, STATE, forget

CONFIG = "config.json"
SCALARS = "tensorboard"
# Everything that a run writes, and nothing else: only this may be removed.
_WRITTEN = (CONFIG, POLICY, STATE, SCALARS, "checkpoint_*.zip", "resume_*.pkl")


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


def _files(out: Path) -> list[Path]:
    return sorted(path for pattern in _WRITTEN for path in out.glob(pattern))
