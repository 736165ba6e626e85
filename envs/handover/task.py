"""Handover as a task: the world, what UEs see, may do and pay, and how each step is scored. Read this file first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError
from ..base.declare import Feature, Part
from ..base.drawing import Drawing
from ..base.pricing import priced
from ..base.task import Task
from ..scenes import load as load_scene
from ..scenes import load_phy_table
from ..scenes.exact_phy import ExactPhy
from ..sim.traces import tracks_of
from . import actions, credit, drawing, observations, occasions, rewards
from .config import TERMS, HandoverConfig
from .metrics import METRICS, EpisodeMeter
from .outlook import WIDTH, Outlook
from .scores import Scorer, Scores
from .scoring import make_scorer, ranking_tokens
from .view import NetworkView
from .world.simulator import Simulator
from .world.state import PLAN


class HandoverTask(Task):
    """UEs move through a city and change cell; policies choose what happens to their KV caches.

    Args:
        config, num_envs, threads: as for every task.
        scorer: makes who scores the steps, from the settings and the number of environments; a pickled core goes on
            with the one that the settings name.

    Attributes:
        sim: the simulated world.
        view: what policies read, a NetworkView.
        scorer: follows every session's real KV cache; None with scoring.mode none.
        scores: of the last step; None with scoring.mode none.
    """

    name, title = "handover", "Handover"
    Config = HandoverConfig
    terms = TERMS
    metrics = METRICS
    headline = ("cost", "avoidable_cost", "interruption_s_mean", "interruption_s_p95", "drift_kl_mean", "recall_strict",
                "backhaul_gb")
    scenarios = ("default", "calm", "rush_hour", "starved_backhaul", "fast_vehicles", "long_context", "edge_box",
                 "crowd", "held_out_city", "held_out_rush_hour", "held_out_starved", "held_out_edge_box",
                 "held_out_long_context")
    references = ("ctho", "pallas")
    companion = "ctho"

    def __init__(self, config: HandoverConfig, num_envs: int = 1, threads: int = 1,
                 scorer: Callable[[HandoverConfig, int], Scorer | None] = make_scorer) -> None:
        super().__init__(config, num_envs, threads)
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
            ranking=ranking_tokens(config.scoring),
        )
        self.agents = tuple(f"ue_{u}" for u in range(config.num_ues))
        self._prices = np.array([getattr(config.reward, term.name) for term in TERMS])
        self._network = NetworkView(self.sim, config.actions.candidates, self)
        self.scorer = scorer(config, num_envs)
        self.scores: Scores | None = None
        self._outlook: Outlook | None = None
        self._kl = np.zeros((num_envs, config.num_ues))
        self._wrong = np.zeros((num_envs, config.num_ues))

    @classmethod
    def layout(cls, config: HandoverConfig) -> tuple[tuple[Part, ...], tuple[Feature, ...]]:
        """The parts of a UE's action, and the features of its observation row."""
        return actions.parts(config.actions), observations.features(config.actions.candidates)

    @property
    def view(self) -> NetworkView:
        """The network's own knowledge, which policies read."""
        return self._network

    def reset(self, envs: np.ndarray, seeds: Sequence[int], episodes: Sequence[int]) -> None:
        """Begin new episodes: UEs on the streets, in the middle of answers, caches whole, nothing migrating."""
        for e, seed, episode in zip(envs, seeds, episodes, strict=True):
            self.sim.seed(int(e), seed, episode)
        self.sim.reset(envs)
        self._network.refresh()
        if self.scorer is not None:
            self.scorer.reset(self.sim, envs)
        if self._outlook is not None:
            self._outlook.reset(envs)

    def advance(self, plans: np.ndarray) -> None:
        """Let one decision interval pass under `plans`, PLAN [E, U], and score what it did to the caches."""
        self._network.advance(plans)
        if self.scorer is not None:
            self.scores = self.scorer.score(self.sim)
            self._kl = self.scorer.charged(self.scores)
            self._wrong = self.scores.wrong

    def price(self) -> np.ndarray:
        """Reward terms of the last step, float64 [E, U, len(TERMS)]."""
        amounts = rewards.amounts(self.sim.state.flow, self._kl, self._wrong)
        return priced(amounts, self._prices, team=self.config.reward.sharing == "team")

    def credit(self, reward: np.ndarray) -> np.ndarray:
        """The rewards of the last step, dealt out to those whose decisions they follow from, float64 [E, U]."""
        return credit.credited(self.sim.state, reward, self.config.reward)

    def decode(self, chosen: np.ndarray) -> np.ndarray:
        """Plans, PLAN [E, U], from actions int [E, U, parts]."""
        return actions.decode(chosen, self._network, self.config.actions)

    def encode(self, plans: np.ndarray) -> np.ndarray:
        """Actions int64 [E, U, parts] that come nearest to plans, PLAN [E, U]."""
        return actions.encode(plans, self._network, self.config.actions)

    def masks(self) -> np.ndarray:
        """Which choices can have an effect, bool [E, U, sum of the part sizes]."""
        return actions.masks(self._network, self.config.actions)

    def observe(self) -> np.ndarray:
        """Observation rows, float32 [E, U, len(features)]."""
        return observations.observe(self._network)

    def foresee(self) -> int:
        """From the next reset on, `outlook` can be asked; how many numbers it has: none where policies hand over."""
        if self.config.actions.trigger == "policy":
            return 0
        self._outlook = Outlook(self.sim, self.config.max_steps)
        return WIDTH

    def outlook(self, which: np.ndarray) -> np.ndarray:
        """What the future holds for some UEs whatever policies do, float32 [N, foresee()]; for critics only."""
        if self._outlook is None:
            return np.zeros((len(which), 0), np.float32)
        return self._outlook.rows(self._network, which)

    def occasions(self) -> np.ndarray:
        """The situation of every UE in one number, int64 [E, U]."""
        return occasions.occasions(self._network)

    def info(self) -> dict[str, np.ndarray]:
        """Seconds without service in the last step, and whether a language model scores the steps."""
        lost = self.sim.state.flow["interruption_s"]
        return {"interruption_s": lost, "scored": np.full(lost.shape, int(self.scorer is not None))}

    def check_plans(self, plans: Any) -> np.ndarray:
        """Plans from outside, PLAN [E, U].

        Raises:
            ValueError: another shape or type.
        """
        plans, shape = np.array(plans), (self.num_envs, self.num_agents)
        if plans.dtype != PLAN or plans.shape != shape:
            raise ValueError(f"plans are {plans.dtype} {plans.shape}: expected PLAN {shape}")
        return plans

    def events(self) -> Iterator[tuple[int, np.void]]:
        """The events of the last step as (environment, EVENT record), in order of time within an environment."""
        for e in np.flatnonzero(self.sim.state.world["events"]):
            for i in range(self.sim.state.world["events"][e]):
                yield int(e), self.sim.state.event[e, i]

    def meter(self, **objectives: float) -> EpisodeMeter:
        """A meter; objectives are ttft_objective_s and tpot_objective_s."""
        return EpisodeMeter(self, **objectives)

    def drawing(self, env: int) -> Drawing:
        """The map with UEs, their sessions on the way, servers, and the last seconds."""
        return drawing.drawing(self, env)

    def arrays(self) -> dict[str, np.ndarray]:
        """The simulator's state, and what the predictor remembers."""
        remembered = {name: getattr(self._network, name) for name in NetworkView.REMEMBERED}
        return {**self.sim.state._asdict(), **remembered}

    def save(self) -> dict[str, Any]:
        """The scores of the last step, and the caches that are not whole."""
        return {"scores": self.scores, "kl": self._kl, "wrong": self._wrong,
                "scorer": None if self.scorer is None else self.scorer.save(),
                "outlook": None if self._outlook is None else self._outlook.save()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what `save` returned."""
        self.scores, self._kl, self._wrong = saved["scores"], saved["kl"], saved["wrong"]
        if self.scorer is not None:
            self.scorer.restore(saved["scorer"])
        if saved["outlook"] is not None:
            self.foresee()
            self._outlook.restore(saved["outlook"])  # type: ignore[union-attr]
        self._network.refresh()
