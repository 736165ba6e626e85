"""Episodes of a policy, and what it did in them: one record per change of cell, and one per preparation.

Motion and changes of cell do not depend on what policies do (actions.trigger a3), so the records of two policies in
the same episodes stand beside each other. A link that failed and came back elsewhere is no change of cell here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...envs import make_core
from ...envs.handover.world.state import (
    BACKFILLED,
    CANCEL,
    DETOUR,
    FOLLOWING,
    IDLE,
    INTERRUPTED,
    NO_JOB,
    PREPARING,
    RESUMED,
    SPLIT,
    TOKEN,
)
from ...evaluation.rollout import episodes
from ...experiment import Experiment

NEAR_S = 3.0  # changes of cell that are no further apart compete for the links
BEFORE_S = 6.0  # what is paid so long before a change of cell is counted as paid for it

# What was chosen for a migration, and in which situation.
_CHOICE = [
    ("medium", "i4"), ("keep", "f8"), ("bits", "i4"), ("prefix", "f8"),  # prefix: share that a split rebuilds; nan
    ("cache_bits", "f8"), ("link_bps", "f8"),  # the whole cache at 16 bit; the narrower of the two links
    ("others", "i4"),  # other sessions that were being sent from the same cell then
]
CHANGE = np.dtype([
    ("env", "i4"), ("ue", "i4"), ("time_s", "f8"), ("source", "i4"), ("target", "i4"), ("waits", "b1"),
    ("lead_s", "f8"),  # how long before it the preparation that was used had begun; nan: there was none
    ("way_bps", "f8"),  # the narrower link between the two cells at the change, whoever plays
    ("leaving", "i4"),  # others who leave the same cell within NEAR_S
    ("cost", "f8"),  # avoidable, from BEFORE_S before it (or half-way since the last one) to the next one's beginning
    *_CHOICE,
])
# How a preparation ended: its user changed to that cell; to another one; it was dropped; the session, the radio link or
# the episode ended.
USED, WRONG, DROPPED, OVER = range(4)
PREPARATION = np.dtype([
    ("env", "i4"), ("ue", "i4"), ("time_s", "f8"), ("target", "i4"), ("announced", "b1"), ("behind", "b1"),
    ("ahead_s", "f8"),  # when the change of cell was expected; inf: it was not
    ("end", "i4"), ("right", "f8"),  # right: the next change of cell was to the target; nan: there was none
    *_CHOICE,
])
# Who sends, in the order of urgency; the last: rests of caches whose sessions have resumed.
URGENCY = ("out of service", "below 1 s", "1 to 2 s", "2 to 3 s", "3 to 5 s", "none expected", "rest of a cache")
_EDGES_S = (0.0, 1.0, 2.0, 3.0, 5.0)


@dataclass
class Watch:
    """What one policy did in some episodes of a scenario.

    Attributes:
        changes: CHANGE records.
        preparations: PREPARATION records.
        share, senders: sum of weight over mean weight of the link, and how many it was summed over, by URGENCY; links
            that several share.
        first: pairs of senders on one link by whether the more urgent one has more, the same, or less weight.
        moves, cut, followed, arrived: sessions that moved; without a part of their cache; whose rest was to follow;
            whose rest arrived.
        metrics: of the episodes.
        parts: price paid per term and user, of the episodes.
    """

    changes: np.ndarray = field(default_factory=lambda: np.empty(0, CHANGE))
    preparations: np.ndarray = field(default_factory=lambda: np.empty(0, PREPARATION))
    share: np.ndarray = field(default_factory=lambda: np.zeros(len(URGENCY)))
    senders: np.ndarray = field(default_factory=lambda: np.zeros(len(URGENCY), np.int64))
    first: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    moves: int = 0
    cut: int = 0
    followed: int = 0
    arrived: int = 0
    metrics: list[dict[str, float]] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)


def watch(policy: Any, experiment: Experiment[Any], seeds: Sequence[int]) -> Watch:
    """Play one episode per seed side by side, and note what happens.

    Args:
        policy: of kvroam.agents.
        experiment: its environment, with actions.trigger a3, and its objectives.
        seeds: of the episodes.
    """
    core = make_core(experiment.environment, len(seeds))
    notes = _Notes(core, policy)
    found = None
    for found in episodes(core, notes, seeds, experiment.evaluate):
        if found is None:
            notes.step()
    result = notes.finish()
    result.metrics, result.parts = [m for m, _ in found or ()], [p for _, p in found or ()]
    return result


class _Notes:
    """Acts as a policy does, and looks at the world before and after every step."""

    def __init__(self, core: Any, policy: Any) -> None:
        self.core, self.policy, self.name = core, policy, policy.name
        self.found = Watch()
        self.sim = core.task.sim
        self.changes: list[np.ndarray] = []
        self.preparations: list[np.ndarray] = []
        self.under_way = np.full((core.num_envs, core.num_agents), -1)
        self.costs: list[np.ndarray] = []
        self.unavoidable = core.config.reward.interruption

    def reset(self, view: Any) -> None:
        """New episodes begin."""
        self.policy.reset(view)

    def act(self, view: Any) -> np.ndarray:
        """The policy's plans; the world as it is before they are followed is kept."""
        self.plans = self.policy.act(view)
        self.before = self.sim.state.ue.copy()
        self.now_s = self.sim.state.world["time_s"].copy()
        self.announced = np.isfinite(view.handover_in_s)
        self.ahead_s = np.minimum(view.handover_in_s, view.predicted_in_s)
        return self.plans

    def step(self) -> None:
        """Note what the step did that was just made."""
        was, state = self.before, self.sim.state
        ue, flow, target = state.ue, state.flow, self.plans["target"]
        self.costs.append((-self.core.reward - self.unavoidable * flow["unavoidable_s"]).astype(np.float32))
        # As `apply_plans` in envs/handover/world/handovers.py decides it.
        begins = ((target >= 0) & (self.plans["medium"] != DETOUR) & (target != was["server"]) & ~was["stranded"]
                  & (was["phase"] != INTERRUPTED) & ~((was["phase"] == PREPARING) & (was["target"] == target))
                  & (flow["refused"] == 0))
        # A link that was re-established at the same cell is no change of cell.
        changed = (flow["handovers"] > 0) & (ue["radio"] != was["radio"])
        dropped = begins | ((target == CANCEL) & (was["phase"] == PREPARING))
        for e, u in np.argwhere(dropped & (self.under_way >= 0)):
            self._end(e, u, DROPPED)
        for e, u in np.argwhere(begins):
            self._begin(e, u)
        for e, u in np.argwhere(changed):
            self._change(e, u)
        # A radio that fails, or changes cell, interrupts a preparation without ending it.
        goes_on = np.where(ue["phase"] == INTERRUPTED, ue["then"], ue["phase"])
        gone = (self.under_way >= 0) & (goes_on != PREPARING)
        for e, u in np.argwhere(gone):
            made = self.preparations[self.under_way[e, u]]
            self._end(e, u, USED if made["behind"] and made["target"] == ue["radio"][e, u] else OVER)
        self._events()
        self._links()

    def _choice(self, row: np.void, e: int, u: int, target: int) -> None:
        """What the plan of this step says about a migration of session `u` to `target`."""
        was, plan, now = self.before[e, u], self.plans[e, u], self.sim.state.ue[e, u]
        row["medium"] = TOKEN if was["opening"] and plan["medium"] != DETOUR else plan["medium"]
        row["keep"], row["bits"], row["prefix"] = plan["keep"], plan["bits"], np.nan
        if row["medium"] == SPLIT:
            moves = now["phase"] in (PREPARING, INTERRUPTED) and now["medium"] == SPLIT
            # A balanced one is known once it has begun.
            length = now["prefix"] if moves else np.nan if plan["prefix"] < 0 else plan["prefix"]
            row["prefix"] = length / max(now["snapshot"] if moves else was["context"], 1.0)
        row["cache_bits"] = was["held"] * self.sim.serving.kv_bits_per_token(16)
        row["link_bps"] = self._way_bps(e, was["server"], target)
        sends = (self.before[e]["phase"] != IDLE) & (self.before[e]["bits_left"] > 0.0)
        sends[u] = False
        row["others"] = (sends & (self._origin(self.before[e]) == self._origin(was, was["server"]))).sum()

    def _origin(self, ue: np.ndarray, server: Any = None) -> Any:
        """The link that a session is sent over: that of a cell, or 0 for the pool."""
        own = ue["origin"] if server is None else server
        return np.zeros_like(own) if self.core.view.pool else own

    def _way_bps(self, e: int, source: int, target: int) -> float:
        cell = self.sim.state.cell[e]
        if self.core.view.pool:
            return float(cell["egress_bps"][0])
        return float(min(cell["egress_bps"][source], cell["ingress_bps"][target]))

    def _begin(self, e: int, u: int) -> None:
        was = self.before[e, u]
        row: Any = np.zeros((), PREPARATION)[()]
        row["env"], row["ue"], row["time_s"], row["target"] = e, u, self.now_s[e], self.plans[e, u]["target"]
        row["announced"], row["ahead_s"] = self.announced[e, u], self.ahead_s[e, u]
        row["behind"], row["end"] = row["target"] == was["radio"], OVER
        self._choice(row, e, u, int(row["target"]))
        self.under_way[e, u] = len(self.preparations)
        self.preparations.append(row)

    def _end(self, e: int, u: int, how: int) -> None:
        self.preparations[self.under_way[e, u]]["end"] = how
        self.under_way[e, u] = -1

    def _change(self, e: int, u: int) -> None:
        was, now = self.before[e, u], self.sim.state.ue[e, u]
        row: Any = np.zeros((), CHANGE)[()]
        row["env"], row["ue"], row["time_s"] = e, u, now["since_s"]
        row["source"], row["target"], row["lead_s"] = was["radio"], now["radio"], np.nan
        row["waits"] = was["streaming"] or was["prompt"] != NO_JOB
        row["way_bps"] = self._way_bps(e, was["radio"], now["radio"])
        made = self.preparations[self.under_way[e, u]] if self.under_way[e, u] >= 0 else None
        if made is not None and made["target"] == now["radio"]:
            row["lead_s"] = now["since_s"] - made["time_s"]
            for name, *_ in _CHOICE:
                row[name] = made[name]
        else:
            self._choice(row, e, u, int(now["radio"]))
        if made is not None:
            self._end(e, u, USED if made["target"] == now["radio"] else WRONG)
        self.changes.append(row)

    def _events(self) -> None:
        found = self.found
        for _, event in self.core.task.events():
            if event["kind"] == BACKFILLED:
                found.arrived += 1
            elif event["kind"] == RESUMED and event["source"] != event["target"]:
                found.moves += 1
                found.cut += bool(event["medium"] != TOKEN and (event["keep"] < 1.0))
                found.followed += bool(event["rest"])

    def _links(self) -> None:
        """Who has which weight where several sessions are sent from one cell."""
        ue = self.sim.state.ue
        sends = (ue["phase"] != IDLE) & (ue["bits_left"] > 0.0)
        view, found = self.core.view, self.found
        if not (sends.sum(axis=1) > 1).any():
            return
        in_s = np.minimum(view.handover_in_s, view.predicted_in_s)
        follows = np.where(ue["phase"] == INTERRUPTED, ue["then"], ue["phase"]) == FOLLOWING
        level = np.where(np.isfinite(in_s), np.minimum(np.digitize(in_s, _EDGES_S), 4), 5)
        level = np.where(follows, 6, np.where(ue["phase"] == INTERRUPTED, 0, level))
        for e in np.flatnonzero(sends.sum(axis=1) > 1):
            who = np.flatnonzero(sends[e])
            origin = self._origin(ue[e, who])
            for link in np.unique(origin):
                group = who[origin == link]
                weight = ue[e, group]["weight"]
                if len(group) < 2 or weight.max() <= 0.0:
                    continue
                np.add.at(found.share, level[e, group], weight / weight.mean())
                np.add.at(found.senders, level[e, group], 1)
                # Rests are last by their nature, so that they are no pairs.
                moving = ~follows[e, group]
                rank = level[e, group][moving]
                sooner = rank[:, None] < rank[None, :]
                more = np.sign(weight[moving][:, None] - weight[moving][None, :])
                found.first += [int((sooner & (more == sign)).sum()) for sign in (1, 0, -1)]

    def finish(self) -> Watch:
        """The records, with what only the whole episode tells."""
        found, interval_s = self.found, self.sim.interval_s
        found.changes = np.array(self.changes, CHANGE) if self.changes else np.empty(0, CHANGE)
        found.preparations = (np.array(self.preparations, PREPARATION) if self.preparations
                              else np.empty(0, PREPARATION))
        steps = len(self.costs)
        total = np.concatenate([np.zeros((1, *self.under_way.shape)), np.cumsum(np.array(self.costs), axis=0)])
        changes = found.changes
        order = np.lexsort((changes["time_s"], changes["ue"], changes["env"]))
        changes = found.changes = changes[order]
        same = np.zeros(len(changes), bool)  # the row before is of the same user
        same[1:] = (changes["env"][1:] == changes["env"][:-1]) & (changes["ue"][1:] == changes["ue"][:-1])
        time_s = changes["time_s"]
        half_s = np.where(same, (time_s + np.roll(time_s, 1)) / 2.0, 0.0)
        start = np.round(np.maximum(time_s - BEFORE_S, half_s) / interval_s).astype(int)
        end = np.where(np.roll(same, -1), np.roll(start, -1), steps)
        start, end = (np.clip(edge, 0, steps) for edge in (start, end))
        changes["cost"] = (total[end, changes["env"], changes["ue"]] - total[start, changes["env"], changes["ue"]])
        for i, row in enumerate(changes):
            near = ((changes["env"] == row["env"]) & (changes["source"] == row["source"])
                    & (np.abs(time_s - row["time_s"]) <= NEAR_S))
            changes["leaving"][i] = near.sum() - 1
        for row in found.preparations:
            later = ((changes["env"] == row["env"]) & (changes["ue"] == row["ue"])
                     & (time_s > row["time_s"]))
            row["right"] = changes["target"][later][0] == row["target"] if later.any() else np.nan
        return found
