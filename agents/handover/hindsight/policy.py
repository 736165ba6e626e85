"""Hindsight as a policy: it searches the coming episode, then follows the book that it found."""

from __future__ import annotations

import numpy as np

from ....envs.handover.config import HandoverConfig
from ....envs.handover.view import NetworkView
from ....envs.handover.world.simulator import idle_plans
from ....envs.sim.jit import entry
from ...base import label
from .book import LEVELS
from .calendar import Calendar
from .replay import write_plans
from .search import Episode, Found, search

_BUDGET = 300.0


class Hindsight:
    """A bound, not a competitor: it knows the episode, and has searched a plan for every handover of it.

    Whenever an environment begins an episode, a search with a budget of so many simulated episodes finds its book. The
    search prices drift by the table (envs/handover/harm/charges.py), whatever the environment measures.

    Args:
        config: the environment.
        budget: of the search of one episode [simulated episodes].
        look_s: everything is done so much earlier, for those who hold their plans (envs/base/decisions.py) [s].
    """

    def __init__(self, config: HandoverConfig, budget: float = _BUDGET, look_s: float = 0.0) -> None:
        self.config, self.budget, self.look_s = config, budget, look_s
        self.name = label("hindsight", budget=(budget, _BUDGET), look_s=(look_s, 0.0))
        self._known: dict[bytes, tuple[Calendar, Found]] = {}

    def reset(self, view: NetworkView) -> None:
        """Search what is not known yet."""
        for env in range(view.num_envs):
            self._book(view, env)

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        plans, state = idle_plans(view.num_envs, view.num_ues), view.sim.state
        for env in range(view.num_envs):
            calendar, found = self._book(view, env)
            step = int(state.world["step"][env])
            if step < self.config.max_steps:
                _write(step, view.interval_s, self.look_s, state.ue[env], found.book, LEVELS, calendar, plans[env])
        return plans

    def _book(self, view: NetworkView, env: int) -> tuple[Calendar, Found]:
        """The calendar of the episode that the environment is in, and the book for it."""
        key = view.sim.state.keys[env].tobytes()
        if key not in self._known:
            episode = Episode(view.sim, env, self.config)
            self._known[key] = episode.calendar, search(episode, budget=self.budget)
        return self._known[key]


@entry
def _write(step, interval_s, look_s, ue, book, levels, when, plan):
    write_plans(step, interval_s, look_s, ue, book, levels, when, plan)
