"""What a training writes: its policy as data, and what is needed to go on as if nothing had happened.

`policy.safetensors` is the policy as it stands (kvroam.agents.policy_file); evaluate.py reads it, and nothing else of a
run. `resume_N.zip` is Stable-Baselines3's own file of the algorithm with its optimiser; `resume_N.pkl` holds the
environments as they stood and the states of the random number generators. `resume.json` names both with their SHA-256;
it is written last and in one piece, so a kill at any moment leaves a pair that belongs together. Resuming reads Python
objects from both, which run code: open only your own.
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

from ..agents import policy_file
from ..agents.learned import LAST
from ..agents.policy_file import PolicyFile
from ..compat import pending_scalars, restore_pending_scalars
from ..errors import ConfigError, KvroamError, PolicyError
from ..experiment import Experiment, flat
from ..files import write_whole
from ..settings.loader import fingerprint
from .algorithm import algorithm
from .decision_ppo import DecisionPPO

STATE = "resume.json"
POLICY = LAST
FORMAT = 2


def save(model: Any, path: Path, experiment: Experiment[Any], decisions: bool | None = None,
         masked: bool | None = None) -> Path:
    """Write a policy file that evaluate.py accepts, whole or not at all.

    Args:
        model: PPO, MaskablePPO or RecurrentPPO of Stable-Baselines3 and sb3-contrib; your own may be one, too.
        path: a .safetensors.
        experiment: what it was trained in.
        decisions: it is asked at decision points only; default: by its class.
        masked: it acts with masks; default: by its class.

    Raises:
        PolicyError: a model that would act wrongly when it is read again.
        ConfigError: the folder cannot be written to.
    """
    names = {kind.__name__ for kind in type(model).__mro__}
    at_points = isinstance(model, DecisionPPO) if decisions is None else decisions
    policy_file.write(path, policy_file.from_sb3(model, experiment, at_points,
                                                 "MaskablePPO" in names if masked is None else masked))
    return path


def policy_of(model: Any, experiment: Experiment[Any]) -> PolicyFile:
    """The policy of a training as it stands."""
    options = experiment.train
    return policy_file.from_sb3(model, experiment, options.decisions, algorithm(experiment)[1], options.algorithm)


def write(model: Any, env: Any, out: Path, experiment: Experiment[Any], more: Any = None) -> Path:
    """Write `policy.safetensors` and what resuming needs; a kill in between leaves the pair before usable.

    Args:
        model: Stable-Baselines3 algorithm, between an update and the next rollout.
        env: the environments it acts in.
        out: run folder.
        experiment: what is being trained.
        more: plain data that a resumed run shall get back.

    Returns:
        The path of the policy.

    Raises:
        KvroamError: the disk is full, or cannot be written; what was written before is as it was.
    """
    import torch

    number = f"{model.num_timesteps:09d}"
    state = {
        "env": env, "torch": torch.get_rng_state(), "numpy": np.random.get_state(),  # noqa: NPY002
        # SB3 writes the scalars of an update at the end of the next rollout.
        "scalars": pending_scalars(model.logger),
        # What SB3 does not write, or empties when it loads.
        "lstm": getattr(model, "_last_lstm_states", None),
        "spread": getattr(model.rollout_buffer, "spread", None),
        "more": more,
    }
    zipped = io.BytesIO()
    model.save(zipped)
    content = {f"resume_{number}.zip": zipped.getvalue(), f"resume_{number}.pkl": pickle.dumps(state)}
    algorithm_file, state_file = content
    index = {"format": FORMAT, "algorithm": algorithm_file, "state": state_file, "written_by": _user(),
             "fingerprint": fingerprint(flat(experiment)),
             "sha256": {name: _sha256(data) for name, data in content.items()}}
    content[STATE] = (json.dumps(index, indent=1) + "\n").encode()
    policy = policy_of(model, experiment)
    before = {path.name for path in out.glob("resume_*")}
    try:
        for name, data in content.items():
            _put(out / name, data)
        policy_file.write(out / POLICY, policy)
    except ConfigError as error:
        if _named(out) != algorithm_file:
            for name in {algorithm_file, state_file} - before:
                (out / name).unlink(missing_ok=True)
        reason = getattr(error.__cause__, "strerror", None) or str(error)
        kept = f"go on from the one before with --resume {out}" if (out / STATE).is_file() else "there is none before"
        raise KvroamError(f"the checkpoint of step {model.num_timesteps} cannot be written to {str(out)!r} ({reason}): "
                          f"make room there; {kept}") from error
    for older in out.glob("resume_*"):
        if older.name not in content:
            older.unlink(missing_ok=True)
    return out / POLICY


def read(out: Path, experiment: Experiment[Any], make_logger: Callable[[], Any],
         say: Callable[[str], Any] = lambda line: None) -> tuple[Any, Any, Any]:
    """The model and the environments that the last checkpoint of a run left; the generators are set to go on.

    Args:
        out: run folder.
        experiment: what the run is configured as.
        make_logger: makes the Stable-Baselines3 logger that the model shall use.
        say: called with a line that names the files whose code is trusted, before they are read.

    Returns:
        model, environments, and what `write` was given as `more`.

    Raises:
        PolicyError: the run has finished, never got to a checkpoint, is of another configuration, or its files are
            damaged or were exchanged.
    """
    import torch

    cannot = f"run {str(out)!r} cannot go on"
    anew = "train it anew with another --out, or with --overwrite"
    if not (out / STATE).is_file():
        why = "it has finished" if (out / POLICY).is_file() else "it has no checkpoint yet, or it is not a run folder"
        raise PolicyError(f"{cannot}: {why}; {anew}")
    try:
        index = json.loads((out / STATE).read_text(encoding="utf-8"))
        made = index["format"]
        if made != FORMAT:
            raise PolicyError(f"{cannot}: {STATE} has format {made!r}, this version reads {FORMAT}; {anew}")
        zipped, kept = (_inside(out, index[name]) for name in ("algorithm", "state"))
        expected = {file: str(index["sha256"][file.name]) for file in (zipped, kept)}
        author, configured = str(index.get("written_by", "unknown")), index["fingerprint"]
    except PolicyError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{cannot}: {STATE} cannot be read ({type(error).__name__}); {anew}") from error
    if configured != fingerprint(flat(experiment)):
        raise PolicyError(f"{cannot}: it was made with another configuration ({configured}) than the one given or in "
                          f"config.json ({fingerprint(flat(experiment))}); {anew}")
    content = {}
    for file, digest in expected.items():
        if not file.is_file():
            raise PolicyError(f"{cannot}: {file.name} is absent; {anew}")
        content[file] = file.read_bytes()
        if _sha256(content[file]) != digest:
            raise PolicyError(f"{cannot}: {file.name} is not what the run wrote (its SHA-256 differs from the one in "
                              f"{STATE}); nothing of it was read; {anew}")
    say(f"trusting {kept} and {zipped.name}, written by {author}: resuming runs code that is stored in them")
    kind: Any = algorithm(experiment)[0]
    try:
        state = pickle.loads(content[kept])
        model = kind.load(io.BytesIO(content[zipped]), device="cpu")
    except Exception as error:
        raise PolicyError(f"{cannot}: {kept.name} or {zipped.name} cannot be read ({type(error).__name__}); "
                          f"{anew}") from error
    if state["lstm"] is not None:
        model._last_lstm_states = state["lstm"]
    if state["spread"] is not None:
        model.rollout_buffer.spread = state["spread"]
    logger = make_logger()
    model.set_logger(logger)
    restore_pending_scalars(logger, state["scalars"])
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    return model, state["env"], state["more"]


def forget(out: Path) -> None:
    """Remove what a run could be resumed from, first of all what names it."""
    (out / STATE).unlink(missing_ok=True)
    for kept in out.glob("resume_*"):
        kept.unlink(missing_ok=True)


def _put(path: Path, data: bytes) -> None:
    write_whole(path, lambda draft: draft.write_bytes(data))


def _named(out: Path) -> str | None:
    """The algorithm's file that the run would be resumed from now."""
    try:
        return str(json.loads((out / STATE).read_text(encoding="utf-8"))["algorithm"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
