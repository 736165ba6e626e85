"""What each combination of scorer, kept fraction and precision costs: sessions are handed over and read on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ...errors import ConfigError
from ..backend import KVBackend
from ..drift import Drift
from ..scorers.fact_oracle import FactOracle
from ..sessions.reference import Reference
from ..settings import KVSettings, TransferPlan
from .choices import ORACLE, PER_HEAD, PRECISIONS
from .points import Point


def sweep(
    backend: KVBackend,
    references: Sequence[Reference],
    context: int,
    horizon: int,
    scorers: Sequence[str] = ("window",),
    keeps: Sequence[float] = (1.0, 0.5, 0.25),
    precisions: Sequence[str] = ("fp16",),
    scripts: Sequence[object] = (),
) -> Iterator[Point]:
    """Hand sessions over at token `context`, let each read `horizon` tokens, and yield one point per combination.

    Args:
        references: scripts, each of at least context + 1 tokens.
        horizon: tokens that are judged, or what is left of the script.
        scorers: names of scorers, also `oracle`; `@head` behind one lets each layer and KV head choose.
        scripts: what the references were made from, for `oracle`.

    Raises:
        ConfigError: an unknown scorer or precision, a fraction outside (0, 1], too short a script, or an oracle
            without scripts that tell where their facts stand.
    """
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown:
        raise ConfigError(f"precision {unknown[0]!r} does not exist; use one of {', '.join(PRECISIONS)}")
    settings = [ranking(backend.settings, scorer, references, scripts) for scorer in scorers]
    plans = [[replace(PRECISIONS[precision], keep=keep) for precision in precisions] for keep in keeps]
    shortest = min(map(len, references), default=0)
    if shortest <= context:
        raise ConfigError(f"context = {context} leaves nothing to read of a script of {shortest} tokens; lower it")
    before, count = backend.settings, len(references)
    unharmed = read_on(backend, references, [context] * count, horizon)
    try:
        for (scorer, chosen), row in product(zip(scorers, settings, strict=True), plans):
            for precision, plan in zip(precisions, row, strict=True):
                backend.settings = chosen
                sizes, _, drift = hand_over(backend, references, [context] * count, horizon, [plan] * count)
                yield _point(scorer, plan.keep, precision, sizes, drift, unharmed)
    finally:
        backend.settings = before


def ranking(base: KVSettings, name: str, references: Sequence[Reference], scripts: Sequence[object]) -> KVSettings:
    """Settings that rank as a scorer's name in a sweep says.

    Args:
        name: one of SCORERS or ORACLE, with PER_HEAD behind it or not.
        references, scripts: what the oracle is told, in the same order.

    Raises:
        ConfigError: an unknown name, or an oracle without scripts that tell where their facts stand.
    """
    plain = name.removesuffix(PER_HEAD)
    scorer: object = plain
    if plain == ORACLE:
        scorer = FactOracle(references, scripts or [None] * len(references))
    return replace(base, scorer=scorer, scope="head" if name.endswith(PER_HEAD) else "sequence")


def hand_over(
    backend: KVBackend,
    references: Sequence[Reference],
    contexts: Sequence[int],
    horizon: int,
    plans: Sequence[TransferPlan],
) -> tuple[np.ndarray, np.ndarray, Drift]:
    """Hand one session per script over, each after its own context and by its own plan.

    Returns:
        Payload bytes [n], tokens sent [n], and the drift over the next `horizon` tokens.
    """
    sessions = [backend.open(*item) for item in zip(references, contexts, strict=True)]
    moves = backend.migrate(sessions, plans)
    drift = backend.measure(sessions, horizon)
    for session in sessions:
        backend.close(session)
    return np.array([move.payload_bytes for move in moves]), np.array([move.sent_tokens for move in moves]), drift


def read_on(backend: KVBackend, references: Sequence[Reference], contexts: Sequence[int], horizon: int) -> Drift:
    """What `hand_over` measures where nothing is handed over: the answers of the whole cache."""
    sessions = [backend.open(*item) for item in zip(references, contexts, strict=True)]
    drift = backend.measure(sessions, horizon)
    for session in sessions:
        backend.close(session)
    return drift


def wrong_answers(drift: Drift, unharmed: Drift) -> np.ndarray:
    """Answers that the whole cache gives right and the degraded one does not, int [n].

    The difference of two counts: an answer that only the degraded cache gives right hides one that it lost.
    """
    right, before = (x.hot_hits + x.cold_hits for x in (drift, unharmed))
    return np.maximum(before - right, 0)


def _point(scorer: str, keep: float, precision: str, sizes: np.ndarray, drift: Drift, unharmed: Drift) -> Point:
    tokens = drift.tokens.sum()
    hot, cold = drift.hot_total.sum(), drift.cold_total.sum()
    hits = drift.hot_hits.sum(), drift.cold_hits.sum()
    return Point(
        scorer=scorer,
        keep=keep,
        precision=precision,
        bytes=float(sizes.mean()),
        kl=float(drift.kl.sum() / tokens),
        js=float(drift.js.sum() / tokens),
        top1=float(drift.matches.sum() / tokens),
        dnll=float(drift.delta_nll.sum() / tokens),
        recall=float(sum(hits) / (hot + cold)) if hot + cold else None,
        recall_hot=float(hits[0] / hot) if hot else None,
        recall_cold=float(hits[1] / cold) if cold else None,
        wrong=float(wrong_answers(drift, unharmed).sum() / tokens) if hot + cold else None,
    )
