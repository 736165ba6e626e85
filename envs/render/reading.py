"""What a picture shows, read from the core: states of the users, transfers, loads of the servers, the last seconds."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from ..handover.world.state import IDLE, INTERRUPTED, PREPARING

STATES = ("streaming", "idle", "preparing", "interrupted", "detoured", "degraded")
STREAMING_, IDLE_, PREPARING_, INTERRUPTED_, DETOURED_, DEGRADED_ = range(len(STATES))
HISTORY_S = 20.0
# A server whose next job starts after this is drawn as full [s].
FULL_WAIT_S = 0.5


def user_states(core: Any, env: int) -> np.ndarray:
    """What happens to each user's session, index into STATES, int [U]; the first of these that holds.

    interrupted: no service until the cache has arrived; preparing: the cache moves while the session streams;
    detoured: the session stayed at another gNB; degraded: its cache is not whole or not exact; streaming; idle: the
    user reads or types.
    """
    ue = core.sim.state.ue[env]
    return np.select(
        [ue["phase"] == INTERRUPTED, ue["phase"] == PREPARING, ue["server"] != ue["radio"], ~ue["healthy"],
         ue["streaming"]],
        [INTERRUPTED_, PREPARING_, DETOURED_, DEGRADED_, STREAMING_], IDLE_)


class Transfer(NamedTuple):
    """One session on its way from gNB `source` to gNB `target`."""

    user: int
    source: int
    target: int
    medium: int  # kvroam.envs.handover.world.state.MEDIA
    rate_bps: float  # mean of the last step
    sent: float  # share of its bits that have arrived, 1 when there are none to send
    state: int  # index into STATES


def transfers(core: Any, env: int) -> list[Transfer]:
    """The migrations under way, by user."""
    ue, flow, states = core.sim.state.ue[env], core.sim.state.flow[env], user_states(core, env)
    moving = []
    for u in np.flatnonzero(ue["phase"] != IDLE):
        me = ue[u]
        bits = me["bits_sent"] + me["bits_left"]
        moving.append(Transfer(int(u), int(me["server"]), int(me["target"]), int(me["medium"]),
                               float(flow[u]["bits_sent"]) / core.sim.interval_s,
                               float(me["bits_sent"] / bits) if bits > 0.0 else 1.0, int(states[u])))
    return moving


def detours(core: Any, env: int) -> list[tuple[int, int]]:
    """Pairs (server's gNB, user's gNB) between which tokens of sessions left behind travel, sorted, once each."""
    ue = core.sim.state.ue[env]
    behind = ue[(ue["server"] != ue["radio"]) & (ue["phase"] == IDLE)]
    return sorted({(int(me["server"]), int(me["radio"])) for me in behind})


def server_loads(core: Any, env: int) -> list[tuple[str, np.ndarray]]:
    """What the bars of a gNB mean and how full they are, [(meaning, share in [0, 1] [C])].

    The memory of the servers is among them where the core has it: `view.free_memory_bytes` and `cell.memory_bytes`.
    """
    cell = core.sim.state.cell[env]
    loads = [("radio load", cell["load"]),
             (f"prefill queue (full: {FULL_WAIT_S:g} s)", core.view.prefill_wait_s[env] / FULL_WAIT_S)]
    free = getattr(core.view, "free_memory_bytes", None)
    if free is not None and "memory_bytes" in (cell.dtype.names or ()):
        loads.append(("KV memory in use", 1.0 - free[env] / cell["memory_bytes"]))
    return [(meaning, np.clip(share, 0.0, 1.0)) for meaning, share in loads]


class History:
    """Service lost and drift per step over the last HISTORY_S seconds of one environment."""

    def __init__(self, env: int) -> None:
        self._env = env
        self.points: deque[tuple[float, float, float]] = deque()  # time [s], service lost [ms], drift [nat]

    def record(self, core: Any) -> None:
        """Add the step that `core` has just made; the same step twice counts once, a new episode begins anew."""
        now = float(core.sim.state.world[self._env]["time_s"])
        if self.points and now < self.points[-1][0]:
            self.points.clear()
        if now <= 0.0 or (self.points and now == self.points[-1][0]):
            return
        lost = 1e3 * float(core.sim.state.flow[self._env]["interruption_s"].sum())
        drift = float(core.scores.kl[self._env].sum()) if core.scores is not None else 0.0
        self.points.append((now, lost, drift))
        while self.points[0][0] <= now - HISTORY_S + 1e-9:
            self.points.popleft()
