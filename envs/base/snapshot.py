"""A HandoverCore as plain data and back, so that environments pickle and a training goes on where it was killed.

What a configuration determines (scene, link curve, language model, scripts) is not in it and is loaded anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...kvbackend import Session
    from ..handover.scoring import KVScorer
    from .core import HandoverCore

_PLAIN = ("_seeds", "_episode", "_begun", "reward", "terms", "scores")


def save(core: HandoverCore) -> dict[str, Any]:
    """Everything that the next step of `core` depends on, as arrays and numbers of its own."""
    state = {name: getattr(core, name) for name in _PLAIN}
    state["_seeds"], state["_episode"] = list(core._seeds), list(core._episode)
    state["arguments"] = (core.config, core.num_envs, core.threads)
    state["sim"] = {name: array.copy() for name, array in core.sim.state._asdict().items()}
    state["view"] = {name: getattr(core.view, name).copy() for name in core.view.REMEMBERED} if core._begun else {}
    state["scorer"] = None if core.scorer is None else _save_scorer(core.scorer)
    return state


def load(core: HandoverCore, state: dict[str, Any]) -> None:
    """Make `core`, whose __init__ has not run, the one that `state` was saved from."""
    from ..handover.view import NetworkView

    core.__init__(*state["arguments"])  # type: ignore[misc]
    for name, array in state["sim"].items():
        getattr(core.sim.state, name)[...] = array
    for name in _PLAIN:
        setattr(core, name, state[name])
    if core._begun:
        core.view = NetworkView(core.sim, core.config.actions.candidates)
        for name, array in state["view"].items():
            getattr(core.view, name)[...] = array
    if core.scorer is not None:
        _load_scorer(core.scorer, state["scorer"])


def _save_scorer(scorer: KVScorer) -> dict[str, Any]:
    sessions = {key: _save_session(session) for key, session in scorer._degraded.items()}
    return {"script": scorer._script.copy(), "at": scorer._at.copy(), "degraded": sessions}


def _load_scorer(scorer: KVScorer, state: dict[str, Any]) -> None:
    scorer._script[:], scorer._at[:] = state["script"], state["at"]
    scorer._degraded = {key: _load_session(scorer, int(scorer._script[key]), session)
                        for key, session in state["degraded"].items()}


def _save_session(session: Session) -> dict[str, Any]:
    rows = session.rows
    assert rows is not None
    return {"length": session.length, "failed": sorted(session.failed), "positions": rows.positions.copy(),
            "own_start": rows.own_start, "kv": rows.kv.cpu().numpy().copy(),
            "queries": rows.queries.cpu().numpy().copy()}


def _load_session(scorer: KVScorer, script: int, state: dict[str, Any]) -> Session:
    import torch

    from ...kvbackend.sessions import Rows

    session = scorer.backend.open(scorer.references[script], state["length"])
    own = session.kv
    kv, queries = (torch.from_numpy(np.ascontiguousarray(state[name])).to(own.device) for name in ("kv", "queries"))
    session.degrade(Rows(kv, state["positions"], state["own_start"], queries))
    session.failed = set(state["failed"])
    return session
