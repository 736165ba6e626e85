"""The greedy planner with a perfect predictor; not a competitor, and no bound.

It reads what no network knows (NetworkView.sim), so it says what perfect prediction would be worth to a policy that
plans each UE alone by the delay model; it is not the optimum over all policies.
"""

from __future__ import annotations

import copy

import numpy as np

from ...envs.handover.config import HandoverConfig
from ...envs.handover.view import NetworkView
from ...envs.handover.world.simulator import Simulator, idle_plans
from ...envs.handover.world.state import STAY, State
from ..base import label
from .judgement import Judgement
from .planner import GreedyPlanner

_AHEAD_S, _REFRESH_S = 10.0, 5.0
_MOST = 8  # changes of cell that are remembered per UE


def next_changes(sim: Simulator, ahead_s: float) -> tuple[np.ndarray, np.ndarray]:
    """All changes of cell in the coming `ahead_s`, from a copy of the simulator that runs ahead with idle plans.

    Motion and A3 events do not depend on plans. Radio-link failures depend on interference and so, weakly, on who is
    answering: there the foresight may err.

    Args:
        sim: is not changed.
        ahead_s: how far to look [s].

    Returns:
        (time_s, cell): of the first changes in order of time, float and int [E, U, 8]; inf and -1 where there are
        fewer.
    """
    future = copy.copy(sim)
    future.state = State(*(array.copy() for array in sim.state))
    future.link = None  # decoding errors delay tokens, they move nobody
    plans = idle_plans(sim.num_envs, sim.num_ues)
    ue, decided = future.state.ue, sim.params["policy_trigger"][0] == 1
    times, cells = [], []
    before, was = ue["since_s"].copy(), ue["radio"].copy()
    for _ in range(max(1, round(ahead_s / sim.interval_s))):
        if decided:
            # Where policies decide the handovers, those of event A3 (agents/handover/a3_handovers.py).
            due = ue["fire_s"] <= future.state.world["time_s"][:, None]
            plans["handover"] = np.where(due, ue["fire_cell"], STAY)
        future.advance(plans)
        changed = (ue["since_s"] != before) | (ue["radio"] != was)
        times.append(np.where(changed, ue["since_s"], np.inf))
        cells.append(np.where(changed, ue["radio"], -1))
        before, was = ue["since_s"].copy(), ue["radio"].copy()
    time, cell = np.stack(times, axis=-1), np.stack(cells, axis=-1)
    order = np.argsort(time, axis=-1, kind="stable")[..., :_MOST]
    pad = [(0, 0), (0, 0), (0, _MOST - order.shape[-1])]
    return (np.pad(np.take_along_axis(time, order, axis=-1), pad, constant_values=np.inf),
            np.pad(np.take_along_axis(cell, order, axis=-1), pad, constant_values=-1))


class Foresight(GreedyPlanner):
    """The planner with a perfect predictor: it knows every handover of the next seconds, and that it will come.

    No bound: each UE is planned alone by the delay model, as by the planner.

    Args:
        config: the environment.
        rest_tokens: horizon of the expected cost of detour and drift [serving tokens].
        horizon_s: handovers that come later are not prepared yet [s].
    """

    def __init__(self, config: HandoverConfig, rest_tokens: float = 1000.0, horizon_s: float = 5.0) -> None:
        super().__init__(config, rest_tokens, horizon_s)
        self.name = label("foresight", rest_tokens=(rest_tokens, 1000.0), horizon_s=(horizon_s, 5.0))

    def reset(self, view: NetworkView) -> None:
        """Look ahead anew."""
        super().reset(view)
        self._keys, self._seen_s = view.sim.state.keys.copy(), np.full(view.num_envs, np.inf)
        self._look(view)

    def _look(self, view: NetworkView) -> None:
        """Renew what is known of environments that began an episode, or were last looked at some seconds ago."""
        now, keys = view.time_s, view.sim.state.keys
        stale = (now >= self._seen_s + _REFRESH_S) | (now < self._seen_s) | (keys != self._keys).any(axis=1)
        if stale.any():
            time, cell = next_changes(view.sim, _AHEAD_S)
            if stale.all():
                self._time, self._cell = time, cell
            self._time[stale], self._cell[stale] = time[stale], cell[stale]
            self._keys[stale], self._seen_s[stale] = keys[stale], now[stale]

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        if getattr(self, "_keys", np.empty(0)).shape != view.sim.state.keys.shape:
            self.reset(view)
        self._look(view)
        return super().act(view)

    def forecast(self, view: NetworkView) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What will happen, as far as preparations reach, and that all of it is known, [E, U]."""
        passed = (self._time < view.time_s[:, None, None] - 1e-9).sum(axis=-1)
        at = np.minimum(passed, self._time.shape[-1] - 1)[..., None]
        time, cell = (np.take_along_axis(array, at, axis=-1)[..., 0] for array in (self._time, self._cell))
        in_s = np.maximum(time - view.time_s[:, None], 0.0)
        near = (passed < self._time.shape[-1]) & (in_s <= _REFRESH_S)
        return np.where(near, cell, -1), np.where(near, in_s, np.inf), in_s < 0.3, np.ones(in_s.shape)

    def sure(self, ahead_s, chance, judge: Judgement) -> np.ndarray:
        """It comes."""
        return np.ones(np.shape(ahead_s))
