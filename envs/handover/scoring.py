"""The score of a step: every session's real KV cache follows what the simulator did to it, and its drift is measured.

A session whose cache is whole needs no forward pass: its drift is exactly 0, and whether it answers right was computed
once with its script. A session that was pruned or quantised runs every token it produces through its own cache, also
when the rest of that cache has followed, since tokens that were produced in between have not seen it. With
`scoring.answers: free` sessions read the answers that they give themselves; one that has answered in another way than a
session that never moved has a text of its own, and is followed also when its cache is whole.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError
from ...kvbackend.scorers.table import SCORERS
from .config import HandoverConfig, ScoringConfig
from .harm.scorer import TableScorer
from .scores import Scorer, Scores
from .world.simulator import Simulator
from .world.state import BACKFILLED, DETOUR, OPENED, REPAIRED, RESUMED

if TYPE_CHECKING:
    from ...kvbackend import KVBackend, Reference, Session

_RECALL = ("hot_hits", "hot_total", "cold_hits", "cold_total")


class KVScorer:
    """Follows E x U sessions with one KVBackend and a bank of scripts, prefilled once per process."""

    def __init__(self, config: HandoverConfig, num_envs: int) -> None:
        self.scale = config.serving.context_scale
        self.length = config.sessions.script_tokens
        bank = _bank(config.scoring, config.sessions.scripts, self.length)
        self.backend, self.references = bank.backend, bank.references
        self._recall_before = bank.recall_before
        shape = (num_envs, config.num_ues)
        self._script = np.zeros(shape, np.int64)
        self._at = np.zeros(shape, np.int64)
        self._own: dict[tuple[int, int], Session] = {}  # with a cache of their own, or a text of their own
        self.free = config.scoring.answers == "free"

    def reset(self, sim: Simulator, envs: np.ndarray) -> None:
        """Start every session of the environments `envs` anew, with a whole cache, where the simulator has put it."""
        ue, begun = sim.state.ue, set(envs.tolist())
        for key in [key for key in self._own if key[0] in begun]:
            self.backend.close(self._own.pop(key))
        self._script[envs] = ue["script"][envs]
        self._at[envs] = self._position(ue["context"][envs])

    def score(self, sim: Simulator) -> Scores:
        """Follow the step that `sim` has just made; sets ue.healthy to what the caches really are."""
        scores = Scores.zeros(self._at.shape)
        for batch in _rounds(sim):
            self._follow_events(sim, batch, scores)
        self._advance(self._position(sim.state.ue["context"]), scores)
        sim.state.ue["healthy"] = True
        for key, session in self._own.items():
            sim.state.ue["healthy"][key] = session.whole
        return scores

    def charged(self, scores: Scores) -> np.ndarray:
        """KL divergence that the reward charges for the step just scored [E, U] [nat]: that of its tokens."""
        return scores.kl

    @property
    def degraded(self) -> int:
        """Sessions whose cache is not whole now."""
        return sum(not session.whole for session in self._own.values())

    def save(self) -> dict[str, Any]:
        """Which script every session reads, where it stands, and the caches and texts of their own, as plain data.

        The rests that may still follow are in it.
        """
        own = {key: self.backend.save(session, self._script_of(key)) for key, session in self._own.items()}
        return {"script": self._script.copy(), "at": self._at.copy(), "own": own}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what `save` returned."""
        self._script[:], self._at[:] = saved["script"], saved["at"]
        self._own = {key: self.backend.reopen(self._script_of(key), session) for key, session in saved["own"].items()}

    def _script_of(self, key: tuple[int, int]) -> Reference:
        """What a session reads that never moved."""
        return self.references[self._script[key]]

    @property
    def positions(self) -> np.ndarray:
        """Tokens that each measured session has read, int64 [E, U]."""
        return self._at.copy()

    def _position(self, context: np.ndarray) -> np.ndarray:
        """Tokens of the measured model in a context of serving tokens."""
        return np.floor(np.asarray(context) / self.scale + 1e-6).astype(np.int64)

    def _follow_events(self, sim: Simulator, batch: list[tuple[int, np.void]], scores: Scores) -> None:
        """Bring the sessions of one round of events to the event, then do what it did; one event per session."""
        stop = self._at.copy()
        groups: dict[int, list[tuple[int, np.void]]] = {}
        for e, event in batch:
            kind, u = int(event["kind"]), int(event["ue"])
            stop[e, u] = self.length if kind == OPENED else self._position(event["context"])
            if kind != RESUMED or event["medium"] != DETOUR:
                groups.setdefault(kind, []).append((e, event))
        self._advance(stop, scores)
        for e, event in groups.get(OPENED, ()):
            self._open(sim, e, event)
        follow = {RESUMED: self._migrate, BACKFILLED: self._backfill, REPAIRED: self._repair}
        for kind, events in groups.items():
            if kind in follow:
                follow[kind](events)

    def _open(self, sim: Simulator, e: int, event: np.void) -> None:
        u = int(event["ue"])
        session = self._own.pop((e, u), None)
        if session is not None:
            self.backend.close(session)
        self._script[e, u] = sim.state.ue["script"][e, u]
        self._at[e, u] = self._position(event["context"])

    def _migrate(self, moved: list[tuple[int, np.void]]) -> None:
        """Prune, encode, decode and restore the caches of all sessions that resumed elsewhere."""
        from ...kvbackend import TransferPlan

        sessions, plans = [], []
        for e, event in moved:
            u = int(event["ue"])
            session = self._own.get((e, u))
            if session is None:
                session = self.backend.open(self._script_of((e, u)), int(self._at[e, u]))
            sessions.append(session)
            plans.append(TransferPlan(
                keep=float(event["keep"]), bits=int(event["bits"]),
                prefix_tokens=int(self._position(event["prefix"])),
                snapshot_tokens=int(self._position(event["snapshot"])), rest=bool(event["rest"])))
        # A rest that has not come by now will not come any more.
        self.backend.drop_rest([session for session in sessions if session.awaits_rest])
        self.backend.migrate(sessions, plans)
        for (e, event), session in zip(moved, sessions, strict=True):
            self._settle((e, int(event["ue"])), session)

    def _backfill(self, arrived: list[tuple[int, np.void]]) -> None:
        """Merge the rests that have arrived; where rounding to the measured model left none, there is nothing to do."""
        live = [(key, session) for key, session in self._sessions_of(arrived) if session.awaits_rest]
        self.backend.backfill([session for _, session in live])
        for key, session in live:
            self._settle(key, session)

    def _repair(self, repaired: list[tuple[int, np.void]]) -> None:
        """Rebuild caches in place; one that is whole, although its session moved lossily by the plan, stays so."""
        live = [(key, session) for key, session in self._sessions_of(repaired) if not session.whole]
        self.backend.repair([session for _, session in live])
        for key, session in live:
            self._settle(key, session)

    def _sessions_of(self, events: list[tuple[int, np.void]]) -> list[tuple[tuple[int, int], Session]]:
        """The sessions of these events that are followed on their own, with their places."""
        keys = [(e, int(event["ue"])) for e, event in events]
        return [(key, self._own[key]) for key in keys if key in self._own]

    def _settle(self, key: tuple[int, int], session: Session) -> None:
        """Follow a session on its own as long as its cache is not whole, or its text is its own."""
        if session.whole and session.reference is self._script_of(key):
            self._own.pop(key, None)
            self.backend.close(session)
        else:
            self._own[key] = session

    def _advance(self, stop: np.ndarray, scores: Scores) -> None:
        """Let every session produce its tokens up to position `stop` [E, U]."""
        count = stop - self._at
        if not count.any():
            return
        scores.measured += count
        whole = count.copy()
        live = [key for key in self._own if count[key]]
        if live:
            drift = self.backend.advance([self._own[key] for key in live], [int(count[key]) for key in live], self.free)
            at = tuple(np.array(live).T)
            whole[at] = 0
            for name in scores.names():
                if name != "measured":
                    getattr(scores, name)[at] += getattr(drift, "matches" if name == "top1" else name)
        scores.top1 += whole
        seen = self._recall_before[self._script, self._at + whole] - self._recall_before[self._script, self._at]
        for i, name in enumerate(_RECALL):
            getattr(scores, name)[:] += seen[..., i]
        self._at[:] = stop


class ResumeScorer(KVScorer):
    """`scoring.drift: resume`: a session that arrives is charged at once with KL over `scoring.horizon` tokens.

    Or over what is left of its script. The tokens that follow are still fed through the cache and counted in the
    metrics, but not charged again. A session that moves twice within the horizon is charged twice: each charge is the
    price of one arrival. An arrival is charged as its first part is: a rest that follows, or a repair, refunds nothing.
    """

    def __init__(self, config: HandoverConfig, num_envs: int) -> None:
        super().__init__(config, num_envs)
        self.horizon = config.scoring.horizon
        self._charge = np.zeros((num_envs, config.num_ues))

    def score(self, sim: Simulator) -> Scores:
        """Follow the step that `sim` has just made, and note what its arrivals cost."""
        self._charge = np.zeros(self._charge.shape)
        return super().score(sim)

    def charged(self, scores: Scores) -> np.ndarray:
        """KL over the horizon of the sessions that arrived in this step [E, U] [nat]."""
        return self._charge.copy()

    def _migrate(self, moved: list[tuple[int, np.void]]) -> None:
        super()._migrate(moved)
        keys = [(e, int(event["ue"])) for e, event in moved]
        live = [key for key in keys if key in self._own]
        if live:
            drift = self.backend.measure([self._own[key] for key in live], self.horizon)
            self._charge[tuple(np.array(live).T)] += drift.kl


def ranking_tokens(scoring: ScoringConfig) -> float:
    """Tokens of prefill that the servers spend on ranking each token that they read or write, as it comes.

    A stated policy of theirs (ours): a ranking is then ready whenever a session must move in a part of its cache. It is
    charged with scoring.mode none as well; a name that no scorer has is refused where scorers are made.
    """
    return SCORERS[scoring.scorer]().prefill_per_token if scoring.scorer in SCORERS else 0.0


def make_scorer(config: HandoverConfig, num_envs: int) -> Scorer | None:
    """The scorer that `config.scoring` asks for; None for mode none."""
    if config.scoring.mode == "none":
        return None
    if config.scoring.mode == "table":
        return TableScorer(config, num_envs)
    return (ResumeScorer if config.scoring.drift == "resume" else KVScorer)(config, num_envs)


@dataclass(frozen=True)
class _Bank:
    backend: KVBackend
    references: list[Reference]
    recall_before: np.ndarray  # int64 [scripts, length + 1, 4]: answers judged before each position, whole cache


@functools.lru_cache(maxsize=2)
def _bank(scoring: ScoringConfig, count: int, length: int) -> _Bank:
    """The backend and the prefilled scripts, shared by all environments of a process."""
    from ...kvbackend import KVBackend, KVSettings
    from ...kvbackend.embedded.scripts import script_bank

    if scoring.model != "embedded":
        raise ConfigError(f"scoring.model is {scoring.model!r}: session scripts exist for the embedded model only; "
                          "use embedded here, or kvroam.kvbackend on its own for other models")
    settings = KVSettings(scorer=scoring.scorer, window=scoring.window, pool=scoring.pool, sinks=scoring.sinks,
                          recent=scoring.recent, scope=scoring.scope)
    backend = KVBackend.load("embedded", None if scoring.device == "auto" else scoring.device, settings)
    try:
        scripts = script_bank(count, length, scoring.script_seed, scoring.situation)
    except ConfigError as error:
        raise ConfigError(f"sessions.script_tokens is {length}, scoring.situation {scoring.situation!r}: "
                          f"{error}") from error
    references = backend.references(scripts)
    if scoring.answers == "free":
        references = backend.self_answered(references)
    return _Bank(backend, references, np.stack([_recall_before(r) for r in references]))


def _recall_before(reference: Reference) -> np.ndarray:
    """Answers that the whole cache has been asked for and got right before each position, int64 [S + 1, 4]."""
    from ...kvbackend.drift import count_recall

    judged = np.zeros((len(reference) + 1, len(_RECALL)), np.int64)
    failed: set[int] = set()
    for i, row in enumerate(reference.marks.rows):
        judged[row + 1] += count_recall(reference.marks, i, [reference.correct[i]], failed)
    return np.cumsum(judged, axis=0)


def _rounds(sim: Simulator) -> list[list[tuple[int, np.void]]]:
    """The step's events such that no session occurs twice in a round, in order of time."""
    rounds: list[list[tuple[int, np.void]]] = []
    seen: dict[tuple[int, int], int] = {}
    for e in np.flatnonzero(sim.state.world["events"]):
        for event in sim.state.event[e, : sim.state.world["events"][e]]:
            key = (int(e), int(event["ue"]))
            nth = seen[key] = seen.get(key, -1) + 1
            if nth == len(rounds):
                rounds.append([])
            rounds[nth].append((int(e), event))
    return rounds
