"""When every UE will change cell, and to which: known from a run in which nothing is prepared.

Motion, event A3 and radio-link failures do not depend on plans (envs/sim/link_monitoring.py), so the calendar of an
episode is the same whatever a policy does; tests/agents/test_hindsight.py holds that.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np

from ....envs.handover.world import engine
from ....envs.handover.world.simulator import Simulator, idle_plans
from ....envs.handover.world.state import State
from ....errors import ConfigError


class Calendar(NamedTuple):
    """All changes of cell of one episode: S steps, U UEs, K changes at most."""

    time_s: np.ndarray  # float64 [U, K]; inf where a UE has fewer
    cell: np.ndarray  # int64 [U, K], the new cell
    step: np.ndarray  # int64 [U, K], in which it happens
    changes: np.ndarray  # int64 [U], how many
    coming: np.ndarray  # int64 [S + 1, U], at the start of a step: number of the next change


def alone(sim: Simulator, env: int) -> Simulator:
    """A copy of one environment of a simulator, at the start of its present episode; the original is not touched.

    Raises:
        ConfigError: plans decide the handovers there.
    """
    if sim.params["policy_trigger"][0] == 1:
        raise ConfigError("actions.trigger is policy: hindsight knows handovers beforehand only where event A3 "
                          "decides them; set actions.trigger to a3")
    one = copy.copy(sim)
    one.num_envs, one.threads, one.link = 1, 1, None  # decoding errors delay tokens, they move nobody
    one.state = State(*(np.zeros_like(array[:1]) for array in sim.state))
    one.state.keys[0] = sim.state.keys[env]
    one.scratch = engine.allocate_scratch.py_func(one.num_ues, one.num_cells)
    one.reset()
    return one


def calendar(sim: Simulator, steps: int) -> Calendar:
    """The calendar of the `steps` steps from now on.

    Args:
        sim: one environment (`alone`); its time passes.
    """
    ue, plans = sim.state.ue[0], idle_plans(1, sim.num_ues)
    found: list[list[tuple[float, int, int]]] = [[] for _ in range(sim.num_ues)]
    for step in range(steps):
        since = ue["since_s"].copy()
        sim.advance(plans)
        for moved in np.flatnonzero(ue["since_s"] != since):
            found[moved].append((float(ue["since_s"][moved]), int(ue["radio"][moved]), step))
    count = np.array([len(changes) for changes in found])
    shape = (sim.num_ues, max(1, int(count.max())))
    time_s, cell, at = np.full(shape, np.inf), np.full(shape, -1, np.int64), np.full(shape, steps, np.int64)
    for u, changes in enumerate(found):
        for k, (when_s, new_cell, step) in enumerate(changes):
            time_s[u, k], cell[u, k], at[u, k] = when_s, new_cell, step
    coming = (at[None] < np.arange(steps + 1)[:, None, None]).sum(axis=-1)
    return Calendar(time_s, cell, at, count, coming)
