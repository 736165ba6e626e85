"""What happens beside the training itself: progress bar, TensorBoard, evaluations, checkpoints, the end."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam, TensorBoardOutputFormat
from tqdm import tqdm

from ..agents import policy_file
from ..agents.learned import in_folder
from ..experiment import Experiment
from ..settings.loader import to_dict
from . import checkpoints, clip
from .algorithm import Environments
from .held_out import HeldOut
from .stopping import StopRequest
from .worlds import Worlds


class Enough(Exception):
    """The held-out cost has not improved for `train.patience` evaluations: the training ends here, as it should."""


class Report(BaseCallback):
    """Evaluates every `train.evaluate_every` steps, writes a checkpoint every `train.checkpoint_every`, and scalars.

    Args:
        experiment: what is being trained.
        env: the environments, without wrappers.
        out: run folder.
        stop: asks to end with a checkpoint.
        quiet: no progress bar.
        earlier: what `kept` was in the run that goes on.
    """

    def __init__(self, experiment: Experiment[Any], env: Environments, out: Path, stop: StopRequest,
                 quiet: bool = False, earlier: Any = None) -> None:
        super().__init__()
        self.experiment, self.env, self.out, self.stop, self.quiet = experiment, env, out, stop, quiet
        self.seconds: float = earlier[0] if earlier else 0.0
        self.held_out = HeldOut(experiment, out, earlier[1] if earlier else None)
        task = env.views[0].core.task if isinstance(env, Worlds) else env.core.task
        self.terms = [f"reward/{term.name}" for term in task.terms]
        self.shown = ""

    def _on_training_start(self) -> None:
        options = self.experiment.train
        self.saved, self.began = self.model.num_timesteps, time.perf_counter()
        self.bar = tqdm(total=options.total_steps, initial=self.saved, unit="step", disable=self.quiet,
                        dynamic_ncols=True)
        self.sums, self.count = np.zeros(len(self.terms)), 0
        told = {name: value if isinstance(value, (bool, int, float, str)) else str(value)
                for name, value in to_dict(options).items()}
        self.logger.record("hparams", HParam(told, {"reward/total": 0.0}), exclude=("stdout", "log", "json", "csv"))

    @property
    def kept(self) -> Any:
        """What a resumed run has to know of this one."""
        return self.seconds + time.perf_counter() - self.began, self.held_out.history

    def _on_step(self) -> bool:
        if not isinstance(self.env, Worlds):
            self.sums += self.env.core.terms.mean(axis=(0, 1))
            self.count += 1
        self._move_bar()
        return True

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        if self.held_out.due(steps) and not self.stop.asked:
            self.evaluate()
            if self.held_out.enough:
                raise Enough
        if not self.stop.asked and steps - self.saved < self.experiment.train.checkpoint_every:
            return
        self.saved = steps
        path = checkpoints.write(self.model, self.env, self.out, self.experiment, self.kept)
        if self.stop.asked:
            self.bar.close()
            run = shlex.quote(str(self.out))
            print(f"written: {path}; go on with: python train.py --resume {run}", file=sys.stderr)
            raise KeyboardInterrupt

    def _on_rollout_end(self) -> None:
        if isinstance(self.env, Worlds):
            self.sums, self.count = self.env.terms.copy(), self.env.intervals
        for name, value in zip(self.terms, self.sums / self.count, strict=True):
            self.logger.record(name, value)
        reward = float(self.sums.sum() / self.count)
        self.logger.record("reward/total", reward)
        self.sums, self.count = np.zeros(len(self.terms)), 0
        for name in self.env.episode_metrics[0] if self.env.episode_metrics else ():
            values = [m[name] for m in self.env.episode_metrics if not np.isnan(m[name])]
            if values:
                self.logger.record(f"episode/{name}", float(np.mean(values)))
        self._move_bar()
        self.bar.set_postfix_str(f"{self.shown}reward per agent and interval {reward:.5f}")

    def evaluate(self) -> None:
        """Play the held-out episodes now."""
        row = self.held_out.evaluate(checkpoints.policy_of(self.model, self.experiment), self.kept[0])
        self.shown = f"held-out {self.held_out.metric} {row.cost:.3f} (best {self.held_out.history.best:.3f}), "
        for writer in writers(self.logger):
            writer.add_scalar(f"held_out/{self.held_out.metric}", row.cost, row.steps)
            if len(row.worlds) > 1:
                for name, cost in zip(self.held_out.configs, row.worlds, strict=True):
                    writer.add_scalar(f"held_out/{name}", cost, row.steps)
            writer.flush()

    def finish(self) -> None:
        """The end of a training that was not interrupted: a last evaluation, and no bar."""
        rows = self.held_out.history.rows
        if self.experiment.train.evaluate_every > 0 and (not rows or rows[-1].steps < self.model.num_timesteps):
            self.evaluate()
        self.bar.close()

    def show(self) -> None:
        """Film an episode of the best policy, where the task can be drawn."""
        config = next(iter(self.held_out.configs.values()))
        clip.write(self.out, config, policy_file.read(in_folder(self.out)), self.held_out.seeds[0],
                   writers(self.logger))

    def _move_bar(self) -> None:
        self.bar.update(min(self.num_timesteps, self.experiment.train.total_steps) - self.bar.n)


def writers(logger: Any) -> list[Any]:
    """The TensorBoard writers behind a Stable-Baselines3 logger."""
    return [output.writer for output in logger.output_formats if isinstance(output, TensorBoardOutputFormat)]
