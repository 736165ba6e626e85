"""Train one policy that all UEs share, with Stable-Baselines3, or on Ray RLlib with `train.engine=rllib`.

    python train.py --config configs/handover.yaml --out runs/ppo --set train.total_steps=2000000

The run folder gets the configuration, TensorBoard files (every reward term, every episode metric), a learning curve on
held-out seeds, `policy.safetensors` and, by that curve, `best.safetensors`; `evaluate.py --policies runs/ppo` plays the
best. A run that was stopped or killed goes on from its last checkpoint, to the same numbers as if it had not been:

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
from kvroam.training.stopping import StopRequest

OUT = "runs/ppo"


def train(experiment: Experiment[Any], out: Path, quiet: bool = False, resume: bool = False,
          overwrite: bool = False) -> Path:
    """Train and return the path of the last policy; SIGINT and SIGTERM end it with a checkpoint.

    torch uses as many threads as it is set to; one is the fastest for networks as small as these.

    Args:
        experiment: `experiment.train` has the hyper-parameters.
        out: run folder, created if absent.
        quiet: no progress bar.
        resume: go on from the last checkpoint in `out`, which was made with the same configuration. Runs code that is
            stored in the run's files: only for runs of your own.
        overwrite: replace the run that `out` holds.

    Raises:
        KvroamError: the run folder holds a run, is used by another training, cannot be written, or has nothing to go
            on from.
        KeyboardInterrupt: a signal asked to stop; the checkpoint is written.
    """
    if experiment.train.engine == "rllib":
        from kvroam.training.rllib import entry

        return entry.train(experiment, out, quiet, resume, overwrite)
    from kvroam.agents import policy_file
    from kvroam.training import algorithm, checkpoints, evolution, folder, imitation
    from kvroam.training.callbacks import Enough, Report

    options, scalars = experiment.train, str(out / folder.SCALARS)
    if options.algorithm == "evolution":
        with folder.owned(out):
            if not resume:
                folder.begin(out, experiment, overwrite)
            return evolution.train(experiment, out, quiet, resume)
    algorithm.algorithm(experiment)
    with folder.owned(out), StopRequest() as stop:
        earlier = None
        if resume:
            model, env, earlier = checkpoints.read(out, experiment, lambda: algorithm.make_logger(scalars), say)
            model.set_env(algorithm.wrapped(env, experiment), force_reset=False)
        else:
            env = algorithm.make_env(experiment)
            model = algorithm.make_model(experiment, env)
            folder.begin(out, experiment, overwrite)
            model.set_logger(algorithm.make_logger(scalars))
            if options.imitate is not None:
                imitation.begin(model, experiment, (lambda line: None) if quiet else say)
        report = Report(experiment, env, out, stop, quiet, earlier)
        try:
            if options.algorithm == "bc":
                report.init_callback(model)
                report.on_training_start({}, {})
            else:
                algorithm.learn(model, experiment, report, resume)
        except Enough:
            rows = report.held_out.history.rows
            say(f"stopped after {rows[-1].steps} steps: {options.patience} evaluations without improvement")
        report.finish()
        path = out / checkpoints.POLICY
        policy_file.write(path, checkpoints.policy_of(model, experiment))
        checkpoints.forget(out)
        report.show()
        model.logger.close()
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
    from kvroam.training import folder

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
