"""When a UE has something to decide: when its situation changes, and now and then while that lasts.

In most of the 600 intervals of an episode a UE can do nothing that matters. A learner that is asked only at the others
sees what its decisions lead to (envs/base/decisions.py).
"""

from __future__ import annotations

import numpy as np

from ..sim.jit import entry
from .view import NetworkView
from .world.state import DONE, IDLE, NO_JOB, PREPARING

NEAR_S = 0.5  # between decisions while a change of cell is predicted, a session moves, or a cache is not whole [s]
FAR_S = 2.0  # between decisions at other times [s]
_ROUNDING_S = 1e-6
_PHASES, _FLAGS = 8, 8


def occasions(view: NetworkView) -> np.ndarray:
    """The situation of every UE in one number, int64 [E, U]: it may decide anew when that has changed.

    It is made of: the phase of its session, whether a preparation is finished, where the session is and moves, the cell
    that serves the UE, the one that event A3 has announced, the one that is predicted, the strongest neighbour, whether
    its cache is whole, whether its user waits; and of a count of half seconds, or of two seconds where nothing is near.
    """
    out = np.empty((view.num_envs, view.num_ues), np.int64)
    _write(view.sim.state, view.known[0], view.candidates, out)
    return out


@entry
def _write(state, predicted, candidates, out):
    cells = state.cell.shape[1] + 1
    for e in range(out.shape[0]):
        now = state.world[e].time_s + _ROUNDING_S
        for u in range(out.shape[1]):
            me = state.ue[e, u]
            waits = me.streaming or me.prompt != NO_JOB
            ready = me.phase == PREPARING and me.bits_left <= 0.0 and (me.job == NO_JOB or me.job == DONE)
            announced = me.fire_cell if me.fire_s < np.inf else -1
            near = me.phase != IDLE or predicted[e, u] >= 0 or announced >= 0 or not me.healthy
            code = np.int64(now / (NEAR_S if near else FAR_S))
            code = code * _PHASES + me.phase
            code = code * _FLAGS + (4 if ready else 0) + (2 if me.healthy else 0) + (1 if waits else 0)
            code = (code * cells + me.server) * cells + me.radio
            code = ((code * cells + announced + 1) * cells + predicted[e, u] + 1) * cells + candidates[e, u, 1] + 1
            out[e, u] = code * 2 + near
