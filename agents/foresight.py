"""A bound, not a competitor: Pallas' preparation with the true future instead of a prediction.

It reads what no network knows (NetworkView.sim), so it says what better prediction could be worth at most to a policy
that prepares by prefill and streaming; it is no optimum over all policies.
"""

from __future__ import annotations

import copy

import numpy as np

from ..envs.sim.simulator import Simulator, idle_plans
from ..envs.sim.state import DETOUR, STAY, State
from ..envs.view import NetworkView
from .base import label
from .pallas import Pallas

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
    plans = idle_plans(sim.num_envs, sim.num_ues)
    ue, decided = future.state.ue, sim.params["policy_trigger"][0] == 1
    times, cells = [], []
    before, was = ue["since_s"].copy(), ue["radio"].copy()
    for _ in range(max(1, round(ahead_s / sim.interval_s))):
        if decided:
            # Where policies decide the handovers, those of event A3 (agents/following.py).
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


class Foresight(Pallas):
    """Upper bound by foresight: knows every handover of the next seconds, prepares exactly in time, never in vain.

    A session stays where it is when its UE will be back within `back_s`. Not a competitor.

    Args:
        bits: precision of the KV that is streamed.
        back_s: a visit to another cell that ends sooner, back at the session's server, moves nothing [s].
    """

    def __init__(self, bits: int = 16, back_s: float = 2.0) -> None:
        super().__init__(bits=bits)
        self.back_s = back_s
        self.name = label("foresight", bits=(bits, 16), back_s=(back_s, 2.0))

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
        plans = super().act(view)
        plans["medium"] = np.where(self._visits(view), DETOUR, plans["medium"])
        return plans

    def forecast(self, view: NetworkView) -> tuple[np.ndarray, np.ndarray]:
        """What will happen, except short visits, [E, U]."""
        time, cell = self._ahead(view, 0)
        skip = self._visits(view)
        return np.where(skip, -1, cell), np.where(skip, np.inf, np.maximum(time - view.time_s[:, None], 0.0))

    def _visits(self, view: NetworkView) -> np.ndarray:
        """UEs whose next cell is left for the session's server soon after, bool [E, U]."""
        first, second = self._ahead(view, 0), self._ahead(view, 1)
        with np.errstate(invalid="ignore"):
            soon = second[0] - first[0] <= self.back_s
        return soon & (second[1] == view.server_cell)

    def _ahead(self, view: NetworkView, nth: int) -> tuple[np.ndarray, np.ndarray]:
        """Time and cell of the `nth` change that is still to come, [E, U]."""
        passed = (self._time < view.time_s[:, None, None] - 1e-9).sum(axis=-1)
        at = passed + nth
        inside = at < self._time.shape[-1]
        at = np.minimum(at, self._time.shape[-1] - 1)[..., None]
        time, cell = (np.take_along_axis(array, at, axis=-1)[..., 0] for array in (self._time, self._cell))
        return np.where(inside, time, np.inf), np.where(inside, cell, -1)
