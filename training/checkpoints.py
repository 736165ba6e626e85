"""Checkpoints of a training, and what is needed to go on from the last one as if nothing had happened.

`checkpoint_N.zip` is the policy with its optimiser. `resume_N.pkl` belongs to the newest one: the environments as they
stood, and the states of the random number generators. `resume.json` names both with their SHA-256; it is written last
and in one piece, so a kill at any moment leaves a pair that belongs together. Resuming reads Python objects from both
files, which run code: open only your own.
"""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..compat import pending_scalars, restore_pending_scalars
from ..errors import PolicyError
from ..experiment import Experiment, flat
from ..files import write_whole
from ..settings.loader import fingerprint
from . import description

STATE = "resume.json"
POLICY = "policy.zip"
FORMAT = 1


def save(model: Any, path: Path, experiment: Experiment[Any]) -> Path:
    """Write a checkpoint that evaluate.py accepts, whole or not at all.

    Args:
        model: Stable-Baselines3 PPO with an MlpPolicy, trained in HandoverVecEnv; your own may be one, too.
        path: a .zip.
        experiment: what it was trained in.

    Raises:
        PolicyError: a model that would act wrongly when it is read again, such as one under VecNormalize.
        ConfigError: the folder cannot be written to.
    """
    about = description.describe(model, experiment)

    def write(draft: Path) -> None:
        model.save(draft)
        description.add_to(draft, about)

    write_whole(path, write)
    return path


def write(model: Any, env: Any, out: Path, experiment: Experiment[Any]) -> Path:
    """Write `checkpoint_N.zip` and what resuming needs; a kill in between leaves the pair before usable.

    Args:
        model: Stable-Baselines3 algorithm, between an update and the next rollout.
        env: the environments it acts in.
        out: run folder.
        experiment: what is being trained.

    Returns:
        The path of the checkpoint.
    """
    import torch

    number = f"{model.num_timesteps:09d}"
    path = save(model, out / f"checkpoint_{number}.zip", experiment)
    state = {
        "env": env, "torch": torch.get_rng_state(), "numpy": np.random.get_state(),  # noqa: NPY002
        # SB3 writes the scalars of an update at the end of the next rollout.
        "scalars": pending_scalars(model.logger),
    }
    kept = out / f"resume_{number}.pkl"
    write_whole(kept, lambda draft: draft.write_bytes(pickle.dumps(state)))
    index = {"format": FORMAT, "checkpoint": path.name, "state": kept.name, "written_by": _user(),
             "sha256": {file.name: _sha256(file.read_bytes()) for file in (path, kept)}}
    write_whole(out / STATE, lambda draft: draft.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8"))
    for older in set(out.glob("resume_*.pkl")) - {kept}:
        older.unlink(missing_ok=True)
    return path


def read(out: Path, experiment: Experiment[Any], make_logger: Callable[[], Any],
         say: Callable[[str], Any] = lambda line: None) -> tuple[Any, Any]:
    """The model and the environments that the last checkpoint of a run left; the generators are set to go on.

    Args:
        out: run folder.
        experiment: what the run is configured as.
        make_logger: makes the Stable-Baselines3 logger that the model shall use.
        say: called with a line that names the files whose code is trusted, before they are read.

    Raises:
        PolicyError: the run has finished, never got to a checkpoint, is of another configuration, or its files are
            damaged or were exchanged.
    """
    import torch
    from stable_baselines3 import PPO

    cannot = f"run {str(out)!r} cannot go on"
    anew = "train it anew with another --out, or with --overwrite"
    if not (out / STATE).is_file():
        why = "it has finished" if (out / POLICY).is_file() else "it has no checkpoint yet, or it is not a run folder"
        raise PolicyError(f"{cannot}: {why}; {anew}")
    try:
        index = json.loads((out / STATE).read_text(encoding="utf-8"))
        made = index["format"]
        checkpoint, kept = (_inside(out, index[name]) for name in ("checkpoint", "state"))
        expected = {file: str(index["sha256"][file.name]) for file in (checkpoint, kept)}
        author = str(index.get("written_by", "unknown"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{cannot}: {STATE} cannot be read ({type(error).__name__}); {anew}") from error
    if made != FORMAT:
        raise PolicyError(f"{cannot}: {STATE} has format {made!r}, this version reads {FORMAT}; {anew}")
    content = {}
    for file, digest in expected.items():
        if not file.is_file():
            raise PolicyError(f"{cannot}: {file.name} is absent; {anew}")
        content[file] = file.read_bytes()
        if _sha256(content[file]) != digest:
            raise PolicyError(f"{cannot}: {file.name} is not what the run wrote (its SHA-256 differs from the one in "
                              f"{STATE}); nothing of it was read; {anew}")
    about = description.read(checkpoint)
    if about.fingerprint != fingerprint(flat(experiment)):
        raise PolicyError(f"{cannot}: {checkpoint.name} was made with another configuration than config.json; {anew}")
    say(f"trusting {kept} and {checkpoint.name}, written by {author}: resuming runs code that is stored in them")
    try:
        state = pickle.loads(content[kept])
        model = PPO.load(io.BytesIO(content[checkpoint]), device="cpu")
    except Exception as error:
        raise PolicyError(f"{cannot}: {kept.name} or its checkpoint cannot be read ({type(error).__name__}); "
                          f"{anew}") from error
    logger = make_logger()
    model.set_logger(logger)
    restore_pending_scalars(logger, state["scalars"])
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    return model, state["env"]


def forget(out: Path) -> None:
    """Remove what a run could be resumed from, first of all what names it."""
    (out / STATE).unlink(missing_ok=True)
    for kept in out.glob("resume_*.pkl"):
        kept.unlink(missing_ok=True)


def _inside(out: Path, name: str) -> Path:
    """The file of that name in the run folder; a path that leads elsewhere is refused."""
    if Path(name).name != name:
        raise ValueError(name)
    return out / name


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
