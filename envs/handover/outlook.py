"""What the coming minute holds for each UE: for the critic of a training, never for a policy.

Motion, changes of cell and the capacities of links do not depend on what policies do, so they can be known before the
episode is played. A critic that knows them tells luck from decisions, and leaves the gradient of the policy unbiased.
Source: Mao et al., "Variance Reduction for Reinforcement Learning in Input-Driven Environments", ICLR 2019.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..base.declare import Feature, indices
from ..sim.jit import entry
from .observations import grown
from .world import engine
from .world.simulator import Simulator, idle_plans
from .world.state import NO_JOB, State

_HALF_S, _HALF = 2.0, 2.0
_TOGETHER_S = 3.0  # changes of cell that are no further apart use the links together
_MOST = 24  # changes of cell that are remembered per UE

_FEATURES = (
    Feature("next_in", "time to the next change of cell", "t / (t + 2 s)", 0, 1),
    Feature("next_is_0", "it is to the UE's present cell's candidate slot 0", "0/1", 0, 1),
    Feature("next_is_1", "to the strongest neighbour", "0/1", 0, 1),
    Feature("next_is_2", "to the second", "0/1", 0, 1),
    Feature("next_is_3", "to the third", "0/1", 0, 1),
    Feature("next_waits", "its user would wait for tokens then, were nothing ever to move", "0/1", 0, 1),
    Feature("then_in", "time from it to the change after it", "t / (t + 2 s)", 0, 1),
    Feature("egress", "mean capacity out of the present server until then / 1 Gbit/s", "n / (n + 1)", 0, 1),
    Feature("ingress", "mean capacity into the next cell until then / 1 Gbit/s", "n / (n + 1)", 0, 1),
    Feature("leave_together", "others who leave the same cell within 3 s of it", "n / (n + 2)", 0, 1),
    Feature("arrive_together", "others who come to the same cell within 3 s of it", "n / (n + 2)", 0, 1),
)
_AT = indices("Outlook", (feature.name for feature in _FEATURES))
WIDTH = len(_FEATURES)


class Outlook:
    """The future of the episodes that are under way, as far as no policy changes it.

    Args:
        sim: the simulator; it is not touched.
        steps: intervals of an episode.
    """

    def __init__(self, sim: Simulator, steps: int) -> None:
        self._sim, self._steps = sim, steps
        shape = (sim.num_envs, sim.num_ues, _MOST)
        self._time_s, self._from = np.full(shape, np.inf), np.full(shape, -1, np.int32)
        self._to, self._waits = np.full(shape, -1, np.int32), np.zeros(shape, bool)
        cells = (2, sim.num_envs, steps + 1, sim.num_cells)
        self._sum_bps = np.zeros(cells)  # capacities out and in, summed up to the start of each step

    def reset(self, envs: np.ndarray) -> None:
        """Look at the episodes that begin in the environments `envs`, int64 [N]."""
        sim = self._sim
        ahead = copy.copy(sim)
        ahead.num_envs, ahead.threads, ahead.link = len(envs), 1, None
        ahead.state = State(*(np.ascontiguousarray(array[envs]) for array in sim.state))
        ahead.scratch = engine.allocate_scratch.py_func(sim.num_ues, sim.num_cells)
        plans, state = idle_plans(len(envs), sim.num_ues), ahead.state
        self._time_s[envs], self._from[envs], self._to[envs], self._waits[envs] = np.inf, -1, -1, False
        count = np.zeros((len(envs), sim.num_ues), np.int64)
        for step in range(self._steps):
            for way, name in enumerate(("egress_bps", "ingress_bps")):
                self._sum_bps[way, envs, step + 1] = self._sum_bps[way, envs, step] + state.cell[name]
            before, was = state.ue["since_s"].copy(), state.ue["radio"].copy()
            ahead.advance(plans)
            e, u = np.nonzero((state.ue["since_s"] != before) & (count < _MOST))
            if len(e):
                at = envs[e], u, count[e, u]
                ue = state.ue[e, u]
                self._time_s[at], self._from[at], self._to[at] = ue["since_s"], was[e, u], ue["radio"]
                self._waits[at] = ue["streaming"] | (ue["prompt"] != NO_JOB)
                count[e, u] += 1

    def save(self) -> Any:
        """What was seen of the episodes that are under way, as plain data."""
        return self._time_s, self._from, self._to, self._waits, self._sum_bps

    def restore(self, saved: Any) -> None:
        """Take over what `save` returned."""
        self._time_s, self._from, self._to, self._waits, self._sum_bps = saved

    def rows(self, view: Any, which: np.ndarray) -> np.ndarray:
        """The outlook of some UEs, float32 [N, WIDTH].

        Args:
            view: the network's view.
            which: int64 [N], environment * U + UE.
        """
        out = np.zeros((len(which), WIDTH), np.float32)
        _write(which, self._sim.state, self._sim.interval_s, self._time_s, self._from, self._to, self._waits,
               self._sum_bps, view.candidates, bool(self._sim.params["pool"][0]), out)
        return out


@entry
def _write(which, state, interval_s, time_s, origin, to, waits, sum_bps, candidates, pool, out):
    ues, most = time_s.shape[1], time_s.shape[2]
    last = sum_bps.shape[2] - 1
    for i in range(which.shape[0]):
        e, u, row = which[i] // ues, which[i] % ues, out[i]
        now, me = state.world[e].time_s, state.ue[e, u]
        k = 0
        while k < most and time_s[e, u, k] <= now:
            k += 1
        when = time_s[e, u, k] if k < most else np.inf
        row[_AT.next_in] = grown(when - now, _HALF_S)
        row[_AT.then_in] = 1.0
        first = min(state.world[e].step, last - 1)
        until = last if when == np.inf else min(last, int(when / interval_s) + 1)
        until = max(until, first + 1)
        source = 0 if pool else me.server
        mean_bps = (sum_bps[0, e, until, source] - sum_bps[0, e, first, source]) / (until - first)
        row[_AT.egress] = grown(mean_bps / 1e9, 1.0)
        if when == np.inf:
            continue
        cell = to[e, u, k]
        if k + 1 < most:
            row[_AT.then_in] = grown(time_s[e, u, k + 1] - when, _HALF_S)
        for slot in range(min(4, candidates.shape[2])):
            row[_AT.next_is_0 + slot] = candidates[e, u, slot] == cell
        row[_AT.next_waits] = waits[e, u, k]
        sink = 0 if pool else cell
        mean_bps = (sum_bps[1, e, until, sink] - sum_bps[1, e, first, sink]) / (until - first)
        row[_AT.ingress] = grown(mean_bps / 1e9, 1.0)
        leave, arrive = 0.0, 0.0
        for v in range(ues):
            if v == u:
                continue
            for j in range(most):
                other = time_s[e, v, j]
                if other > when + _TOGETHER_S:
                    break
                if other >= when - _TOGETHER_S and other > now:
                    leave += origin[e, v, j] == origin[e, u, k]
                    arrive += to[e, v, j] == cell
        row[_AT.leave_together], row[_AT.arrive_together] = grown(leave, _HALF), grown(arrive, _HALF)
