"""The way to the engine from where Ray may not be installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...experiment import Experiment, TrainConfig

INSTALL = "pip install -c constraints-rllib.txt torch && pip install -c constraints-rllib.txt '.[rllib]'"
ALGORITHMS = ("ppo", "maskable-ppo")


def train(experiment: Experiment[Any], out: Path, quiet: bool = False, resume: bool = False,
          overwrite: bool = False) -> Path:
    """Train on RLlib; arguments and result as of `kvroam.train.train`.

    Raises:
        ConfigError: the experiment asks for what RLlib does not do here, Ray is not installed, or the run is to be
            resumed.
        KvroamError: another training uses the run folder; or as of training.rllib.engine.train.
    """
    check(experiment.train)
    if resume:
        raise ConfigError("train.engine is rllib: its runs cannot be resumed; train anew with --overwrite, or with "
                          "train.engine=sb3")
    if find_spec("ray") is None:
        raise ConfigError(f"train.engine is rllib, and Ray is not installed: {INSTALL} (an environment of its own is "
                          "best: Ray asks for one exact Gymnasium); or set train.engine=sb3")
    from .. import folder
    from .engine import train as on_rllib

    with folder.owned(out):
        return on_rllib(experiment, out, quiet, overwrite)


def check(options: TrainConfig) -> None:
    """Refuse what only the other engine does.

    Raises:
        ConfigError: the first such setting, by name.
    """
    if options.algorithm not in ALGORITHMS:
        raise ConfigError(f"train.algorithm is {options.algorithm}: train.engine=rllib trains only "
                          f"{' and '.join(ALGORITHMS)}; set one of them, or train.engine=sb3")
    for name, none in (("start", None), ("imitate", None), ("critic_first", 0)):
        value = getattr(options, name)
        if value != none:
            raise ConfigError(f"train.{name} is {value}: train.engine=rllib starts from a new policy, and trains "
                              f"all of it at once; leave train.{name} out, or set train.engine=sb3")
