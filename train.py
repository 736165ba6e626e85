"""Train one policy that all UEs share, with Stable-Baselines3 PPO.

    python train.py --config configs/handover.yaml --out runs/ppo --set train.total_steps=2000000

The run folder gets the configuration, TensorBoard scalars (every reward term, every episode metric), checkpoints and
`policy.zip`, which `evaluate.py --policies runs/ppo` accepts. A run that was stopped or killed goes on from its last
checkpoint, to the same numbers as if it had not been:

    python train.py --resume runs/ppo
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvroam.envs.handover.config import Experiment
from kvroam.errors import ConfigError, KvroamError, PolicyError, run_command
from kvroam.files import write_whole
from kvroam.settings.loader import load, to_dict
from kvroam.training import checkpoints

CONFIG = "config.json"


def train(config: Experiment, out: Path, quiet: bool = False, resume: bool = False) -> Path:
    """Train and return the path of the final checkpoint; SIGINT and SIGTERM end it with a checkpoint.

    Args:
        config: the experiment; `config.train` has the hyper-parameters.
        out: run folder, created if absent.
        quiet: no progress bar.
        resume: go on from the last checkpoint in `out`, which was made with the same configuration.

    Raises:
        KvroamError: the run folder cannot be written, or has nothing to go on from.
        KeyboardInterrupt: a signal asked to stop; the checkpoint is written.
    """
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.utils import LinearSchedule

    from kvroam.envs.handover.sb3 import HandoverVecEnv

    torch.set_num_threads(1)
    options = config.train

    def logger():
        return configure(str(out / "tensorboard"), ["tensorboard"])

    if resume:
        model, env = checkpoints.read(out, logger)
        model.set_env(_Scaled(env, options.reward_scale), force_reset=False)
    else:
        env = HandoverVecEnv(config, options.num_envs, options.seed,
                             config.evaluate.objectives)
        _begin(config, out)
        model = PPO(
            "MlpPolicy", _Scaled(env, options.reward_scale), seed=options.seed, n_steps=options.rollout_steps,
            batch_size=options.batch_size, n_epochs=options.epochs, gamma=options.gamma, gae_lambda=options.gae_lambda,
            learning_rate=LinearSchedule(options.learning_rate, 0.0, 1.0), ent_coef=options.entropy,
            clip_range=options.clip, policy_kwargs={"net_arch": list(options.hidden)}, device="cpu",
        )
        _favour_harmless(model, config, options.harmless_bias)
        model.set_logger(logger())
    with checkpoints.StopRequest() as stop:
        # SB3 counts a resumed run's steps on top of those it has.
        model.learn(options.total_steps - model.num_timesteps, callback=_callback(env, out, options, quiet, stop),
                    reset_num_timesteps=not resume)
    path = save(model, out / "policy.zip")
    (out / checkpoints.STATE).unlink(missing_ok=True)
    return path


def _begin(config: Experiment, out: Path) -> None:
    """Make the run folder, with the configuration and without what an earlier run could be resumed from."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(to_dict(config), indent=2) + "\n"
        write_whole(out / CONFIG, lambda draft: draft.write_text(text, encoding="utf-8"))
        (out / checkpoints.STATE).unlink(missing_ok=True)
    except OSError as error:
        reason = f"run folder {str(out)!r} cannot be written ({error.strerror}): name another with --out"
        raise KvroamError(reason) from error


def _favour_harmless(model, config: Experiment, bias: float) -> None:
    """Start from a policy that mostly prepares nothing, keeps everything at full precision and shares equally.

    Those are the first choices of every part but the medium. Under uniform choices nearly every transfer is pruned, and
    PPO learns to avoid transfers before it learns that whole ones are good.
    """
    import torch

    from kvroam.envs.handover.actions import MEDIUM, sizes

    with torch.no_grad():
        start = 0
        for part, size in enumerate(sizes(config.actions)):
            if part != MEDIUM:
                model.policy.action_net.bias[start] += bias
            start += size


def save(model, path: Path) -> Path:
    """Write a checkpoint whole or not at all."""
    write_whole(path, model.save)
    return path


def _Scaled(env, scale: float):
    """The environment with its rewards multiplied by `scale`, for PPO's value function."""
    from stable_baselines3.common.vec_env import VecEnvWrapper

    class Scaled(VecEnvWrapper):
        def reset(self):
            return self.venv.reset()

        def step_wait(self):
            observation, reward, done, info = self.venv.step_wait()
            return observation, reward * np.float32(scale), done, info

    return Scaled(env)


def _callback(env, out: Path, options, quiet: bool, stop: checkpoints.StopRequest):
    """Progress bar, TensorBoard scalars and checkpoints."""
    from stable_baselines3.common.callbacks import BaseCallback
    from tqdm import tqdm

    from kvroam.envs.handover.rewards import NAMES as TERMS

    class Report(BaseCallback):
        def _on_training_start(self) -> None:
            self.saved = self.model.num_timesteps
            self.bar = tqdm(total=options.total_steps, initial=self.saved, unit="step", disable=quiet,
                            dynamic_ncols=True)
            self.sums, self.count = np.zeros(len(TERMS)), 0

        def _on_step(self) -> bool:
            self.sums += env.core.terms.mean(axis=(0, 1))
            self.count += 1
            self.bar.update(min(self.num_timesteps, options.total_steps) - self.bar.n)
            return True

        def _on_rollout_start(self) -> None:
            steps = self.model.num_timesteps
            if not stop.asked and steps - self.saved < options.checkpoint_every:
                return
            self.saved = steps
            path = checkpoints.write(self.model, env, out)
            if stop.asked:
                self.bar.close()
                print(f"written: {path}; go on with: python train.py --resume {out}", file=sys.stderr)
                raise KeyboardInterrupt

        def _on_rollout_end(self) -> None:
            for name, value in zip(TERMS, self.sums / self.count, strict=True):
                self.logger.record(f"reward/{name}", value)
            reward = float(self.sums.sum() / self.count)
            self.logger.record("reward/total", reward)
            self.sums, self.count = np.zeros(len(TERMS)), 0
            for name in env.episode_metrics[0] if env.episode_metrics else ():
                values = [m[name] for m in env.episode_metrics if not np.isnan(m[name])]
                if values:
                    self.logger.record(f"episode/{name}", float(np.mean(values)))
            self.bar.set_postfix_str(f"reward per UE and step {reward:.5f}")

        def _on_training_end(self) -> None:
            self.bar.close()

    return Report()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kvroam-train", description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML file or shipped name (default: handover)")
    parser.add_argument("--out", help="run folder (default: runs/ppo)")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, as it was configured")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change a key of the configuration, e.g. --set train.total_steps=50000")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


def command(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    args = _parse(arguments)
    if args.resume is not None:
        if args.config is not None or args.out is not None or args.overrides:
            raise ConfigError("--resume goes on as the run was configured: leave out --config, --out and --set")
        source, out = str(Path(args.resume) / CONFIG), args.resume
        if not Path(source).is_file():
            raise PolicyError(f"run {args.resume!r} cannot go on: it has no {CONFIG}; give a folder made by train.py")
    else:
        source, out = args.config or "handover", args.out or "runs/ppo"
    path = train(load(Experiment, source, args.overrides), Path(out), args.quiet, args.resume is not None)
    print(f"written: {path}")
    print(f"evaluate it: python evaluate.py --config {source} --policies ctho {out}")


def main() -> None:
    """Entry point of `kvroam-train`."""
    sys.exit(run_command("kvroam-train", command))


if __name__ == "__main__":
    main()
