"""Checkpoints of a training, and what is needed to go on from the last one as if nothing had happened.

`checkpoint_N.zip` is the policy with its optimiser. `resume.pkl` belongs to the newest one: the environments as they
stood, and the states of the random number generators. It is a pickle, as the parts of a checkpoint are: open only your
own.
"""

from __future__ import annotations

import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ..errors import PolicyError
from ..files import write_whole

STATE = "resume.pkl"
_PENDING = ("name_to_value", "name_to_count", "name_to_excluded")


def write(model: Any, env: Any, out: Path) -> Path:
    """Write `checkpoint_N.zip` and `resume.pkl`; a kill in between leaves the pair before usable.

    Args:
        model: Stable-Baselines3 algorithm, between an update and the next rollout.
        env: the environments it acts in.
        out: run folder.

    Returns:
        The path of the checkpoint.
    """
    import torch

    path = out / f"checkpoint_{model.num_timesteps:09d}.zip"
    write_whole(path, model.save)
    state = {
        "checkpoint": path.name, "env": env, "torch": torch.get_rng_state(), "numpy": np.random.get_state(),  # noqa: NPY002
        # SB3 writes the scalars of an update at the end of the next rollout.
        "scalars": {name: dict(getattr(model.logger, name)) for name in _PENDING},
    }
    write_whole(out / STATE, lambda draft: draft.write_bytes(pickle.dumps(state)))
    return path


def read(out: Path, make_logger: Callable[[], Any]) -> tuple[Any, Any]:
    """The model and the environments that the last checkpoint of a run left; the generators are set to go on.

    Args:
        out: run folder.
        make_logger: makes the Stable-Baselines3 logger that the model shall use.

    Raises:
        PolicyError: the run has finished, never got to a checkpoint, or its files are damaged.
    """
    import torch
    from stable_baselines3 import PPO

    file = out / STATE
    if not file.is_file():
        why = "it has finished" if (out / "policy.zip").is_file() else "it has no checkpoint yet, or is no run folder"
        raise PolicyError(f"run {str(out)!r} cannot go on: {why}; train it anew with --out")
    try:
        state = pickle.loads(file.read_bytes())
        model = PPO.load(out / state["checkpoint"], device="cpu")
    except Exception as error:
        raise PolicyError(f"run {str(out)!r} cannot go on: {STATE} or its checkpoint cannot be read "
                          f"({type(error).__name__}); train it anew with --out") from error
    logger = make_logger()
    model.set_logger(logger)
    for name, values in state["scalars"].items():
        getattr(logger, name).update(values)
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    return model, state["env"]


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a request to stop at the next checkpoint; the second stops at once.

    A context manager; outside the main thread, where signals cannot be caught, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this rollout, with a checkpoint; once more stops at once", file=sys.stderr)
