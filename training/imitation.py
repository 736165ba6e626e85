"""Imitation: a policy learns to decide as an expert does, from episodes that the expert, or the learner itself, plays.

When the learner plays and the expert says what it would have done, the learner sees the situations that its own
mistakes lead to. Source: DAgger, Ross, Gordon and Bagnell, AISTATS 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..agents.registry import make
from ..envs.base.core import Core
from ..envs.base.decisions import Holder
from ..envs.base.make import make_core
from ..experiment import Experiment
from .algorithm import algorithm, environments

_FIRST_SEED = 2_000_000_000  # far from those of trainings and of evaluations
_PEAK_RATE = 2e-3  # of the one-cycle schedule


class Lessons(NamedTuple):
    """N decisions of an expert."""

    observations: np.ndarray  # float32 [N, F]
    masks: np.ndarray  # bool [N, sum of the action sizes]
    actions: np.ndarray  # int8 [N, parts]
    weight: np.ndarray  # float32 [N], so that every world counts the same


def joined(lessons: Sequence[Lessons]) -> Lessons:
    """All lessons as one."""
    return Lessons(*(np.concatenate(columns) for columns in zip(*lessons, strict=True)))


def lessons(core: Core, expert: Any, seeds: Sequence[int | None],
            learner: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None) -> Lessons:
    """What an expert decides in one episode per seed.

    Args:
        core: as many environments as there are seeds.
        expert: a policy of kvroam.agents; its plans become the nearest actions (Task.encode).
        seeds: of the episodes.
        learner: who plays, from observations and masks of the rows that decide; default: the expert.
    """
    core.reset(seeds)
    expert.reset(core.view)
    task, holder = core.task, Holder(core.task)
    actions = np.zeros((core.num_envs, core.num_agents, len(task.parts)), np.int64)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(core.config.max_steps):
        due = holder.due()
        told = task.encode(expert.act(core.view))
        if due.any():
            seen, allowed = core.observe()[due], core.masks()[due]
            found.append((seen, allowed, told[due].astype(np.int8)))
            actions[due] = told[due] if learner is None else learner(seen, allowed)
        core.step(holder.decide(due, actions))
    seen, allowed, chosen = (np.concatenate(column) for column in zip(*found, strict=True))
    return Lessons(seen, allowed, chosen, np.full(len(seen), 1e4 / len(seen), np.float32))


def minibatches(given: Lessons, sizes: Sequence[int], size: int, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Shuffled minibatches as tensors: observations, masks, actions, weights of the parts [B, parts].

    A part counts where the expert's choice is one that can have an effect, and there was another one.
    """
    ends = np.cumsum(sizes)
    first = np.concatenate([[0], ends[:-1]])
    for start in range(0, len(given.weight) - size + 1, size):
        if start == 0:
            order = rng.permutation(len(given.weight))
        i = order[start:start + size]
        masks, actions = given.masks[i].copy(), given.actions[i].astype(np.int64)
        allowed = np.take_along_axis(masks, first + actions, axis=1)
        several = np.stack([masks[:, a:b].sum(axis=1) > 1 for a, b in zip(first, ends, strict=True)], axis=1)
        np.put_along_axis(masks, first + actions, True, axis=1)
        weight = given.weight[i][:, None] * (allowed & several)
        yield (torch.as_tensor(given.observations[i]), masks, torch.as_tensor(actions),
               torch.as_tensor(weight.astype(np.float32)))


def imitate(policy: Any, given: Lessons, epochs: int, batch_size: int, learning_rate: float, seed: int,
            openness: float = 0.0) -> list[float]:
    """Train the actor of a masked policy to choose as the lessons say; the loss of every epoch.

    Args:
        policy: sb3-contrib's MaskableActorCriticPolicy; its critic is not trained.
        given: the lessons.
        epochs: passes over them.
        batch_size: decisions per gradient step.
        learning_rate: at the peak of a one-cycle schedule.
        seed: of the order.
        openness: weight of the entropy of the choices: above 0 the policy stays ready to try something else.
    """
    rng, sizes = np.random.default_rng(seed), policy.action_space.nvec.tolist()
    padding = policy.observation_space.shape[0] - given.observations.shape[1]
    batch_size = min(batch_size, len(given.weight))
    optimizer = torch.optim.Adam(policy.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * (len(given.weight) // batch_size))
    losses = []
    for _ in range(epochs):
        total, count = 0.0, 0
        for seen, masks, actions, weight in minibatches(given, sizes, batch_size, rng):
            seen = torch.nn.functional.pad(seen, (0, padding))
            parts = policy.get_distribution(seen, action_masks=masks).distributions
            log_prob = torch.stack([part.log_prob(chosen) for part, chosen in
                                    zip(parts, torch.unbind(actions, dim=1), strict=True)], dim=1)
            entropy = torch.stack([part.entropy() for part in parts], dim=1)
            loss = -((log_prob + openness * entropy) * weight).sum() / weight.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total, count = total + float(loss.detach()), count + 1
        losses.append(total / max(count, 1))
    return losses


def begin(model: Any, experiment: Experiment[Any], say: Callable[[str], Any] = lambda line: None) -> None:
    """Let the policy of a new model imitate `train.imitate`, in all worlds of the experiment.

    Args:
        model: DecisionPPO at its start.
        experiment: says whom, and how long.
        say: called with a line after each round.
    """
    options = experiment.train
    configs = environments(experiment)
    _, masked = algorithm(experiment)
    count = options.imitate_episodes
    cores = {name: make_core(config, count) for name, config in configs.items()}
    experts = {name: make(options.imitate, config) for name, config in configs.items()}
    known: list[Lessons] = []

    def learner(observations: np.ndarray, masks: np.ndarray) -> np.ndarray:
        masks = masks if masked else np.ones_like(masks)
        padded = np.pad(observations, ((0, 0), (0, model.observation_space.shape[0] - observations.shape[1])))
        with torch.no_grad():
            return model.policy._predict(torch.as_tensor(padded), action_masks=masks).numpy()

    for number in range(options.imitate_rounds):
        for place, (name, core) in enumerate(cores.items()):
            first = _FIRST_SEED + ((options.seed * options.imitate_rounds + number) * len(cores) + place) * count
            seeds = [first + k for k in range(count)]
            found = lessons(core, experts[name], seeds, learner if number else None)
            # Who will act without masks learns what to choose where a choice is closed, too.
            known.append(found if masked else found._replace(masks=np.ones_like(found.masks)))
        losses = imitate(model.policy, joined(known), options.imitate_epochs, options.batch_size, _PEAK_RATE,
                         options.seed + number, options.openness)
        decisions = sum(len(one.weight) for one in known)
        say(f"imitation of {options.imitate}: round {number + 1} of {options.imitate_rounds}, {decisions} decisions, "
            f"loss {losses[-1]:.3f}")
