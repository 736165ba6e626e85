"""The upper bound of pruning: a scorer that is told where a script's facts stand and when they will be asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError
from ..sessions.reference import Reference
from .base import Scorer
from .view import View


class FactOracle(Scorer):
    """Ranks by what no scorer can know at a handover, so that recall above it is chance; for sweeps only.

    First come the separator and the value of every fact that the script asks for later, the soonest first, then those
    of the other facts, then everything else by recency. Words of a key are not needed: by the first layer the separator
    behind them knows which key it ends (measured in docs/pruning.md).

    Args:
        references: what the scripts were prefilled to, in the same order.
        scripts: with `answer` and `fact` [S] as in the embedded model's `Script`.

    Raises:
        ConfigError: a script does not tell where its facts stand.
    """

    def __init__(self, references: Sequence[Reference], scripts: Sequence[Any]) -> None:
        self._known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        for reference, script in zip(references, scripts, strict=True):
            fact = getattr(script, "fact", None)
            if fact is None:
                raise ConfigError(
                    "scorer 'oracle' must know where the facts of a script stand, and a plain text does not tell; "
                    "leave --text out, or choose another scorer"
                )
            self._known[reference.key] = (np.asarray(fact), np.asarray(script.answer))

    def score(self, view: View) -> np.ndarray:
        """Scores float64 [..., n] of the rows of a view.

        Raises:
            ConfigError: the view's script is not one that the oracle was told about.
        """
        known = self._known.get(view.session.reference.key)
        if known is None:
            raise ConfigError("scorer 'oracle' does not know this script; make one with the references that it ranks")
        scores = oracle_scores(*known, view.stop)[np.clip(view.positions, 0, view.stop - 1)]
        return np.broadcast_to(scores, (*view.lead, len(view.keys)))


def oracle_scores(fact: np.ndarray, answer: np.ndarray, stop: int) -> np.ndarray:
    """The oracle's score of each token before `stop`, float64 [stop].

    Args:
        fact: int [S], number of the fact whose separator or value stands here, -1 elsewhere.
        answer: int [S], above 0 where it stands as an answer, 0 in a statement.
        stop: the handover [tokens].

    Returns:
        In (2, 3] for facts asked later, [1, 2) for other facts, [0, 1) for other tokens.
    """
    scores = np.arange(stop) / (stop + 1.0)
    stated = (fact[:stop] >= 0) & (answer[:stop] == 0)
    scores[stated] += 1.0
    for name in np.unique(fact[:stop][stated]):
        asked = np.flatnonzero((fact[stop:] == name) & (answer[stop:] > 0))
        if asked.size:
            scores[stated & (fact[:stop] == name)] = 2.0 + 1.0 / (1.0 + asked[0])
    return scores
