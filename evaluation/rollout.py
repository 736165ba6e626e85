"""How a policy plays: the one loop that every evaluation, figure, video and timing of a policy goes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ..envs.base.core import Core
from ..experiment import EvaluateConfig


class Plays(Protocol):
    """What acts in a roll-out; every kvroam.agents.Policy does."""

    def reset(self, view: Any) -> None:
        """A new episode begins everywhere."""

    def act(self, view: Any) -> np.ndarray:
        """Plans for the coming decision interval, [E, A]."""


def rollout(core: Core, policy: Plays, seeds: Sequence[int | None], steps: int | None = None) -> Iterator[int]:
    """Reset the core and play, one environment per seed side by side.

    Args:
        core: has as many environments as there are seeds; what happened is read from it.
        policy: who acts.
        seeds: of the episodes.
        steps: how many to play; default: the episode.

    Yields:
        The number of steps that have been made: 0 after the reset, then 1, 2, ...
    """
    core.reset(seeds)
    policy.reset(core.view)
    yield 0
    for step in range(core.config.max_steps if steps is None else steps):
        core.step(policy.act(core.view))
        yield step + 1


def episodes(core: Core, policy: Plays, seeds: Sequence[int], goals: EvaluateConfig,
             ) -> Iterator[list[tuple[dict[str, float], dict[str, float]]] | None]:
    """Play one episode per seed side by side; yields None after every step, and at last what each episode amounted to.

    Args:
        core: has as many environments as there are seeds.
        policy: who acts.
        seeds: of the episodes.
        goals: the objectives that count for goodput.

    Yields:
        At last, for each episode, its metrics {METRIC: value}, and the parts of its cost {TERM: price paid, per agent}.
    """
    meter = core.task.meter(**goals.objectives)
    names = [term.name for term in core.task.terms]
    paid = np.zeros((core.num_envs, len(names)))
    for step in rollout(core, policy, seeds):
        if step:
            meter.add(core)
            paid -= core.terms.sum(axis=1) / core.num_agents
            yield None
    yield [(meter.result(e), dict(zip(names, paid[e].tolist(), strict=True))) for e in range(core.num_envs)]
