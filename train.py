"""Train one policy that all UEs share, with Stable-Baselines3 PPO.

    python train.py --config configs/handover.yaml --out runs/ppo --set train.total_steps=2000000

The run folder gets the configuration, TensorBoard scalars (every reward term, every episode metric), checkpoints and
`policy.zip`, which `evaluate.py --policies runs/ppo` accepts. A run that was stopped or killed goes on from its last
checkpoint, to the same numbers as if it had not been:

    python train.py --resume runs/ppo
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from kvroam import commands
from kvroam.errors import ConfigError
from kvroam.experiment import Experiment, load_experiment
from kvroam.training import checkpoints, folder
from kvroam.training.stopping import StopRequest

OUT = "runs/ppo"


def train(experiment: Experiment[Any], out: Path, quiet: bool = False, resume: bool = False,
          overwrite: bool = False) -> Path:
    """Train and return the path of the final checkpoint; SIGINT and SIGTERM end it with a checkpoint.

    torch uses as many threads as it is set to; one is the fastest for networks as small as these.

    Args:
        experiment: `experiment.train` has the hyper-parameters.
        out: run folder, created if absent.
        quiet: no progress bar.
        resume: go on from the last checkpoint in `out`, which was made with the same configuration. Runs code that is
            stored in the run's files: only for runs of your own.
        overwrite: replace the run that `out` holds.

    Raises:
        KvroamError: the run folder holds a run, cannot be written, or has nothing to go on from.
        KeyboardInterrupt: a signal asked to stop; the checkpoint is written.
    """
    from kvroam.training.algorithm import Scaled, make_env, make_logger, make_model
    from kvroam.training.callbacks import Report

    options, scalars = experiment.train, str(out / folder.SCALARS)
    if resume:
        model, env = checkpoints.read(out, experiment, lambda: make_logger(scalars), say)
        model.set_env(Scaled(env, options.reward_scale), force_reset=False)
    else:
        env = make_env(experiment)
        folder.begin(out, experiment, overwrite)
        model = make_model(experiment, env)
        model.set_logger(make_logger(scalars))
    with StopRequest() as stop:
        # SB3 counts a resumed run's steps on top of those it has.
        model.learn(options.total_steps - model.num_timesteps, callback=Report(experiment, env, out, stop, quiet),
                    reset_num_timesteps=not resume)
    path = checkpoints.save(model, out / checkpoints.POLICY, experiment)
    checkpoints.forget(out)
    return path


def say(line: str) -> None:
    """Tell the user something that is not a result."""
    print(line, file=sys.stderr)


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--config", help="YAML file or shipped name (default: handover)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"run folder (default: {OUT})")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the run folder holds")
    parser.add_argument("--resume", type=Path, metavar="FOLDER",
                        help="go on with the run in this folder, as it was configured; only with runs of your own, "
                             "whose files may run code")
    commands.add_set(parser)
    commands.add_quiet(parser)


def execute(args: argparse.Namespace) -> None:
    """Train as the command line says."""
    if args.resume is not None:
        if args.config is not None or args.out is not None or args.overrides or args.overwrite:
            raise ConfigError("--resume goes on as the run was configured: leave out --config, --out, --overwrite and "
                              "--set")
        out, experiment = args.resume, folder.configuration(args.resume)
    else:
        out, experiment = args.out or Path(OUT), load_experiment(args.config or "handover", args.overrides)
    path = train(experiment, out, args.quiet, args.resume is not None, args.overwrite)
    run = shlex.quote(str(out))
    print(f"written: {path}")
    print(f"evaluate it: python evaluate.py --config {shlex.quote(str(out / folder.CONFIG))} --policies ctho {run}")


command = commands.Command("kvroam-train", __doc__, options, execute)


def main() -> None:
    """Entry point of `kvroam-train`."""
    sys.exit(command.main())


if __name__ == "__main__":
    main()
