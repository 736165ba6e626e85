"""What happens beside the training itself: progress bar, TensorBoard scalars, checkpoints, the end on a signal."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from ..envs.views.sb3 import StableBaselinesView
from ..experiment import Experiment
from . import checkpoints
from .stopping import StopRequest


class Report(BaseCallback):
    """Writes a checkpoint every `train.checkpoint_every` steps, and the means of a rollout as scalars.

    Args:
        experiment: what is being trained.
        env: the environments, without wrappers.
        out: run folder.
        stop: asks to end with a checkpoint.
        quiet: no progress bar.
    """

    def __init__(self, experiment: Experiment[Any], env: StableBaselinesView, out: Path, stop: StopRequest,
                 quiet: bool = False) -> None:
        super().__init__()
        self.experiment, self.env, self.out, self.stop, self.quiet = experiment, env, out, stop, quiet
        self.terms = [f"reward/{term.name}" for term in env.task.terms]

    def _on_training_start(self) -> None:
        self.saved = self.model.num_timesteps
        self.bar = tqdm(total=self.experiment.train.total_steps, initial=self.saved, unit="step", disable=self.quiet,
                        dynamic_ncols=True)
        self.sums, self.count = np.zeros(len(self.terms)), 0

    def _on_step(self) -> bool:
        self.sums += self.env.core.terms.mean(axis=(0, 1))
        self.count += 1
        self.bar.update(min(self.num_timesteps, self.experiment.train.total_steps) - self.bar.n)
        return True

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        if not self.stop.asked and steps - self.saved < self.experiment.train.checkpoint_every:
            return
        self.saved = steps
        path = checkpoints.write(self.model, self.env, self.out, self.experiment)
        if self.stop.asked:
            self.bar.close()
            run = shlex.quote(str(self.out))
            print(f"written: {path}; go on with: python train.py --resume {run}", file=sys.stderr)
            raise KeyboardInterrupt

    def _on_rollout_end(self) -> None:
        for name, value in zip(self.terms, self.sums / self.count, strict=True):
            self.logger.record(name, value)
        reward = float(self.sums.sum() / self.count)
        self.logger.record("reward/total", reward)
        self.sums, self.count = np.zeros(len(self.terms)), 0
        for name in self.env.episode_metrics[0] if self.env.episode_metrics else ():
            values = [m[name] for m in self.env.episode_metrics if not np.isnan(m[name])]
            if values:
                self.logger.record(f"episode/{name}", float(np.mean(values)))
        self.bar.set_postfix_str(f"reward per agent and step {reward:.5f}")

    def _on_training_end(self) -> None:
        self.bar.close()
