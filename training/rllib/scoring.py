"""One language model that scores the steps of many environments, wherever these are; knows nothing of Ray.

A `Hall` follows the sessions of all who have joined it, and scores the steps that wait at one time in one batch.
A `DistantScorer` is the end of an environment: HandoverTask takes it for its own scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ...envs.handover.config import HandoverConfig
from ...envs.handover.scores import Scorer, Scores
from ...envs.handover.scoring import make_scorer
from ...envs.handover.world.state import EVENT

_UE = np.dtype([("script", "i8"), ("context", "f8"), ("healthy", "b1")])


class Step(NamedTuple):
    """What a scorer has to know of a step of E environments with U UEs."""

    script: np.ndarray  # int64 [E, U], which script every session reads
    context: np.ndarray  # float64 [E, U] [serving tokens]
    happened: np.ndarray  # int64 [E], events of every environment
    events: np.ndarray  # EVENT [sum of them], environment after environment


class Scored(NamedTuple):
    """What a scorer says of it."""

    scores: Scores
    charge: np.ndarray  # float64 [E, U], KL divergence that the reward charges [nat]
    healthy: np.ndarray  # bool [E, U], the cache is whole


def step_of(sim: Any) -> Step:
    """The step that a simulator has just made."""
    ue, count = sim.state.ue, np.asarray(sim.state.world["events"], np.int64)
    inside = np.arange(sim.state.event.shape[1]) < count[:, None]
    return Step(ue["script"].astype(np.int64), ue["context"].astype(np.float64), count.copy(), sim.state.event[inside])


class DistantScorer:
    """Scores by asking a Hall that is elsewhere.

    Args:
        ask: calls a method of `Hall` by its name there, and returns its answer; `score` is asked for one client.
        client: a name that no other environment has; who joins under it again takes the place of the one before.
        config: the environment.
        num_envs: environments side by side.
    """

    def __init__(self, ask: Callable[..., Any], client: str, config: HandoverConfig, num_envs: int) -> None:
        self._ask, self._client = ask, client
        self._charge = np.zeros((num_envs, config.num_ues))
        ask("join", client, config, num_envs)

    def reset(self, sim: Any, envs: np.ndarray) -> None:
        """The sessions of the environments `envs` begin anew, with whole caches."""
        self._ask("reset", self._client, np.asarray(envs), step_of(sim))

    def score(self, sim: Any) -> Scores:
        """Follow the step that `sim` has just made; sets ue.healthy to what the caches really are."""
        scored = self._ask("score", self._client, step_of(sim))
        sim.state.ue["healthy"] = scored.healthy
        self._charge = np.array(scored.charge)
        # Arrays that came through shared memory cannot be written to.
        return Scores(**{name: np.array(getattr(scored.scores, name)) for name in Scores.names()})

    def charged(self, scores: Scores) -> np.ndarray:
        """KL divergence that the reward charges for the step just scored [E, U] [nat]."""
        return self._charge

    def save(self) -> Any:
        """What the next step depends on, as the local scorer saves it."""
        return self._ask("save", self._client)

    def restore(self, saved: Any) -> None:
        """Take over what `save` returned, here or of a local scorer."""
        self._ask("restore", self._client, saved)


class Hall:
    """Follows the sessions of all clients, with one model and one bank of scripts for those with equal settings."""

    def __init__(self) -> None:
        self._rooms: dict[Any, _Room] = {}
        self._of: dict[str, _Room] = {}

    def join(self, client: str, config: HandoverConfig, num_envs: int) -> None:
        """Follow the sessions of `num_envs` environments from their next reset on.

        Raises:
            ConfigError: these settings do not ask for a language model that exists.
        """
        kind = (config.scoring, config.sessions.scripts, config.sessions.script_tokens, config.serving.context_scale,
                config.num_ues)
        if client in self._of:
            self._of.pop(client).leave(client)
        if kind not in self._rooms:
            self._rooms[kind] = _Room(config)
        self._of[client] = self._rooms[kind]
        self._of[client].join(client, num_envs)

    def reset(self, client: str, envs: np.ndarray, step: Step) -> None:
        """The sessions of a client's environments `envs` begin anew, where `step` says."""
        self._of[client].reset(client, envs, step)

    def score(self, steps: Mapping[str, Step]) -> dict[str, Scored]:
        """Score one step of each of these clients, those with equal settings in one batch."""
        found: dict[str, Scored] = {}
        for room in dict.fromkeys(self._of[client] for client in steps):
            found |= room.score({client: step for client, step in steps.items() if self._of[client] is room})
        return found

    def save(self, client: str) -> dict[str, Any]:
        """What a client's next step depends on, as a scorer of its own would save it."""
        return self._of[client].save(client)

    def restore(self, client: str, saved: dict[str, Any]) -> None:
        """Take over what `save` returned."""
        self._of[client].restore(client, saved)


@dataclass(eq=False)
class _Room:
    """One scorer, and which of its environments belong to whom."""

    config: HandoverConfig
    rows: dict[str, np.ndarray] = field(default_factory=dict)  # int64 [E of the client]
    free: list[int] = field(default_factory=list)
    size: int = 0
    _sim: Any = field(init=False, default=None)  # what a scorer reads of a simulator

    def __post_init__(self) -> None:
        self._resize(1)

    def _resize(self, size: int) -> None:
        """Room for `size` environments; all sessions go on."""
        saved = self._scorer.save() if self.size else None
        if saved is not None:
            self._scorer.reset(self._sim, np.arange(self.size))
        before = self._sim.state.ue if self.size else None
        scorer = make_scorer(self.config, size)
        assert scorer is not None
        self._scorer: Scorer = scorer
        self._sim = SimpleNamespace(state=SimpleNamespace(
            ue=np.zeros((size, self.config.num_ues), _UE), world=np.zeros(size, [("events", "i8")]),
            event=np.zeros((size, 1), EVENT)))
        if saved is not None and before is not None:
            self._sim.state.ue[: self.size] = before
            more = ((0, size - self.size), (0, 0))
            scorer.restore({**saved, "script": np.pad(saved["script"], more), "at": np.pad(saved["at"], more)})
        self.free += range(self.size, size)
        self.size = size

    def join(self, client: str, num_envs: int) -> None:
        """Give a client rows."""
        if len(self.free) < num_envs:
            self._resize(self.size + num_envs - len(self.free))
        self.rows[client] = np.array([self.free.pop(0) for _ in range(num_envs)])

    def leave(self, client: str) -> None:
        """Forget a client's sessions."""
        rows = self.rows.pop(client)
        self._sim.state.ue[rows] = np.zeros((), _UE)
        self._scorer.reset(self._sim, rows)
        self.free += rows.tolist()

    def _take(self, rows: np.ndarray, step: Step) -> None:
        ue = self._sim.state.ue
        ue["script"][rows], ue["context"][rows] = step.script, step.context

    def reset(self, client: str, envs: np.ndarray, step: Step) -> None:
        """Sessions begin anew."""
        rows = self.rows[client]
        self._take(rows[envs], Step(step.script[envs], step.context[envs], step.happened[envs], step.events))
        self._scorer.reset(self._sim, rows[envs])

    def score(self, steps: Mapping[str, Step]) -> dict[str, Scored]:
        """All at once; sessions of the other clients stand still, so nothing is computed for them."""
        state = self._sim.state
        state.world["events"] = 0
        most = max(1, *(int(step.happened.max()) for step in steps.values()))
        if most > state.event.shape[1]:
            state.event = np.zeros((self.size, most), EVENT)
        for client, step in steps.items():
            rows = self.rows[client]
            self._take(rows, step)
            state.world["events"][rows] = step.happened
            for row, events in zip(rows, np.split(step.events, np.cumsum(step.happened)[:-1]), strict=True):
                state.event[row, : len(events)] = events
        scores = self._scorer.score(self._sim)
        charge = self._scorer.charged(scores)
        return {client: Scored(Scores(**{name: getattr(scores, name)[rows] for name in Scores.names()}), charge[rows],
                               state.ue["healthy"][rows])
                for client in steps for rows in (self.rows[client],)}

    def save(self, client: str) -> dict[str, Any]:
        """The part of one client."""
        saved, rows = self._scorer.save(), self.rows[client]
        place = {int(row): e for e, row in enumerate(rows)}
        return {"script": saved["script"][rows], "at": saved["at"][rows],
                "own": {(place[e], u): session for (e, u), session in saved["own"].items() if e in place}}

    def restore(self, client: str, part: dict[str, Any]) -> None:
        """Put one client's part back; the sessions of all are opened anew."""
        saved, rows = self._scorer.save(), self.rows[client]
        self._scorer.reset(self._sim, np.arange(self.size))
        saved["script"][rows], saved["at"][rows] = part["script"], part["at"]
        others = {key: session for key, session in saved["own"].items() if key[0] not in rows}
        mine = {(int(rows[e]), u): session for (e, u), session in part["own"].items()}
        self._scorer.restore({**saved, "own": others | mine})
        # Contexts that are not known here would let sessions of this client run on while others are scored.
        scale = self.config.serving.context_scale
        self._sim.state.ue["script"][rows] = part["script"]
        self._sim.state.ue["context"][rows] = np.asarray(part["at"]) * scale
