"""One batched core behind every interface: plans in, physics, scoring, reward, observation out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError
from ..handover import actions, observations, rewards
from ..handover.config import HandoverConfig
from ..handover.scoring import Scores, make_scorer
from ..handover.view import NetworkView
from ..handover.world.simulator import Simulator
from ..scenes import load as load_scene
from ..scenes import load_phy_table
from ..scenes.exact_phy import ExactPhy
from ..sim.traces import tracks_of
from . import snapshot


class HandoverCore:
    """E environments of U UEs that step together; PettingZoo, Gymnasium and Stable-Baselines3 are views of it.

    Args:
        config: the environment.
        num_envs: environments side by side. Environment i seeded s + i equals a single one seeded s + i.
        threads: numba threads of the simulator.

    After `reset` and `step`: `view` (NetworkView), `sim`, and after `step` also `reward` [E, U], `terms`
    [E, U, len(rewards.TERMS)] and `scores` (Scores, None with scoring: none).
    """

    def __init__(self, config: HandoverConfig, num_envs: int = 1, threads: int = 1) -> None:
        self.config = config
        scene = load_scene(config.scene)
        # A policy for many scenes may have a slot that a small one leaves empty; more slots than cells are a mistake.
        cells = len(scene.path_gain_db)
        if config.actions.candidates > cells:
            raise ConfigError(f"actions.candidates is {config.actions.candidates}: scene {config.scene} has {cells} "
                              f"cells, so a UE has at most {cells - 1} neighbours; set it to that or less")
        self.sim = Simulator(
            scene, load_phy_table(), num_ues=config.num_ues, interval_s=config.interval_s,
            num_envs=num_envs, threads=threads, radio=config.radio, mobility=config.mobility,
            sessions=config.sessions, serving=config.serving, compute=config.compute, backhaul=config.backhaul,
            trigger=config.actions.trigger,
            tracks=tracks_of(config.mobility, scene, num_ues=config.num_ues, interval_s=config.interval_s,
                             episode_s=config.episode_s),
            link=ExactPhy(config.radio) if config.radio.phy == "exact" else None,
        )
        self.num_envs, self.num_ues = num_envs, config.num_ues
        self.scorer = make_scorer(config, num_envs)
        self.scores: Scores | None = None
        self._seeds: list[int | None] = [None] * num_envs
        self._episode = [0] * num_envs
        self.threads, self._begun = threads, False
        self._empty()

    def _empty(self) -> None:
        self.reward = np.zeros((self.num_envs, self.num_ues))
        self.terms = np.zeros((self.num_envs, self.num_ues, len(rewards.TERMS)))

    def reset(self, seeds: Sequence[int | None] | None = None) -> None:
        """Begin a new episode everywhere.

        Args:
            seeds: one per environment, whole numbers of at least 0; None goes on with the next episode of the last
                seed, so that a run is reproducible from its first seed (a fresh one is drawn where none was ever
                given).

        Raises:
            ValueError: another value, or another number of them; nothing has changed then.
        """
        seeds = _checked_seeds(seeds, self.num_envs)
        for e, seed in enumerate(seeds):
            last = self._seeds[e]
            if seed is None and last is not None:
                self._episode[e] += 1
            else:
                last = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
                self._seeds[e], self._episode[e] = last, 0
            self.sim.seed(e, last, self._episode[e])
        self.sim.reset()
        self._begun, self.view = True, NetworkView(self.sim, self.config.actions.candidates)
        if self.scorer is not None:
            self.scorer.reset(self.sim)
        self._empty()

    def require_reset(self) -> None:
        """Raise RuntimeError before the first reset."""
        if not self._begun:
            raise RuntimeError("the episode has not begun: call reset() first")

    def __getstate__(self) -> dict[str, Any]:
        """Everything that the next step depends on; the scene and the model are loaded anew."""
        return snapshot.save(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on bit for bit from where the pickled core stood."""
        snapshot.load(self, state)

    def step(self, plans: np.ndarray) -> None:
        """Advance every environment by one decision interval under `plans`, PLAN [E, U].

        Raises:
            RuntimeError: before reset.
            ValueError: plans that the simulator cannot follow.
        """
        self.require_reset()
        self.sim.advance(plans)
        kl = np.zeros((self.num_envs, self.num_ues))
        if self.scorer is not None:
            self.scores = self.scorer.score(self.sim)
            kl = self.scorer.charged(self.scores)
        self.terms = rewards.terms(self.sim.state.flow, kl, self.config.reward)
        self.reward = rewards.total(self.terms)
        self.view.refresh()

    def decode(self, action: np.ndarray) -> np.ndarray:
        """Plans from MultiDiscrete actions, int [E, U, parts]."""
        self.require_reset()
        return actions.decode(action, self.view, self.config.actions)

    def masks(self) -> np.ndarray:
        """Action masks, bool [E, U, sum of the action sizes]; RuntimeError before reset."""
        self.require_reset()
        return actions.masks(self.view, self.config.actions)

    def observe(self) -> np.ndarray:
        """Observations, float32 [E, U, F]; RuntimeError before reset."""
        self.require_reset()
        return observations.observe(self.view)

    def events(self) -> Iterator[tuple[int, np.void]]:
        """The events of the last step as (environment, EVENT record), in order of time within an environment."""
        for e in np.flatnonzero(self.sim.state.world["events"]):
            for i in range(self.sim.state.world["events"][e]):
                yield int(e), self.sim.state.event[e, i]

    def digest(self) -> str:
        """A hash of the whole simulated state and the last rewards: equal traces have equal digests."""
        h = hashlib.sha256()
        for array in (self.sim.state.ue, self.sim.state.cell, self.sim.state.world, self.sim.state.rsrp_dbm,
                      self.reward):
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()


def seeds_from(seed: int, num_envs: int) -> list[int | None]:
    """The seeds of a batch: environment i gets seed + i.

    Raises:
        ValueError: `seed` is not a whole number of at least 0.
    """
    first = _whole(seed)
    return [first + i for i in range(num_envs)]


def _whole(seed: Any) -> int:
    """A seed as Python's whole number; a bool, a text or a fraction is a mistake of its giver."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed!r}: it must be a whole number of at least 0, or None")
    return int(seed)


def _checked_seeds(seeds: Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """One seed or None per environment."""
    given = [None] * num_envs if seeds is None else list(seeds)
    if len(given) != num_envs:
        raise ValueError(f"{len(given)} seeds were given for {num_envs} environments: give one each")
    return [None if seed is None else _whole(seed) for seed in given]
