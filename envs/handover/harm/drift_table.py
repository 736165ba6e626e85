"""Measured harm of a cache that was pruned and quantised, for policies that must weigh it beforehand.

The embedded model's, by `python -m kvroam.kvbackend.sweep --out docs`; `python docs/make_drift_table.py` then writes
the numbers into `drift_numbers.py`, and tests/agents/test_planner.py holds them against docs/sweep.csv.
"""

from __future__ import annotations

import numpy as np

from ....errors import ConfigError, require
from .drift_numbers import KL, WRONG

SCORER = "reconstruction@head"  # the default of scoring.scorer and scoring.scope


def drift_per_token(keep, bits, scorer: str = SCORER) -> np.ndarray:
    """KL per measured token of a cache with that keep ratio and precision, interpolated over keep.

    Args:
        keep: float or array, (0, 1]; below the smallest measured ratio its value is taken.
        bits: int or array, precisions of the table [bit].
        scorer: what ranked the tokens.

    Returns:
        Float array [nat].

    Raises:
        ValueError: a scorer or a precision that was not measured.
    """
    return _interpolated(KL, keep, bits, scorer)


def wrong_per_token(keep, bits, scorer: str = SCORER) -> np.ndarray:
    """Answers per measured token that such a cache gives wrong and the whole one right; arguments as above.

    How often a session asks is part of it: the sessions of the sweep ask about once in 30 tokens.
    """
    return _interpolated(WRONG, keep, bits, scorer)


def harm_per_token(keep, bits, drift_price, wrong_price, scorer: str = SCORER) -> np.ndarray:
    """Price of one measured token of such a cache: its drift [price per nat] and its wrong answers [price each]."""
    return drift_price * drift_per_token(keep, bits, scorer) + wrong_price * wrong_per_token(keep, bits, scorer)


def _interpolated(tables, keep, bits, scorer: str) -> np.ndarray:
    require(scorer in tables, f"scorer is {scorer!r}: harm was measured for {', '.join(tables)} only")
    table = tables[scorer]
    keep, bits = np.broadcast_arrays(np.asarray(keep, np.float64), np.asarray(bits))
    result = np.zeros(keep.shape)
    measured = sorted({b for _, b in table})
    if not np.isin(bits, measured).all():
        raise ConfigError(f"bits is {bits}: harm was measured for {measured} only")
    for precision in measured:
        ratios = sorted(k for k, b in table if b == precision)
        found = np.interp(keep, ratios, [table[k, precision] for k in ratios])
        result = np.where(bits == precision, found, result)
    return result
