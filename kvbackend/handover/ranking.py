"""Ranking as a handover needs it: the scorer of the settings looks at a session, or a press looks into the model."""

import numpy as np

from ..model.forward import LanguageModel
from ..scorers.base import Scorer
from ..scorers.press import PressScorer
from ..scorers.view import View
from ..sessions.session import Session
from ..settings import KVSettings


def rank(llm: LanguageModel, settings: KVSettings, session: Session, stop: int) -> np.ndarray:
    """Scores of a session's rows before `stop`, float64 [n], or [L, Hkv, n] where heads choose for themselves.

    Raises:
        PayloadError: the cache holds NaN or infinity.
        ConfigError: a press fails on this model.
    """
    scorer = settings.ranking
    if not isinstance(scorer, Scorer):
        scorer = PressScorer(scorer, llm)
    return scorer.score(View(session, stop, llm.scaling, settings.scope, llm))
