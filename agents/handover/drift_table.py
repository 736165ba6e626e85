"""Measured drift of a cache that was pruned and quantised, for policies that must weigh it beforehand.

The rows `window` (the default scorer, embedded model) of docs/sweep.csv, which `python -m kvroam.kvbackend.sweep --out
docs` measures; tests/agents/test_planner.py holds this table against that file.
"""

from __future__ import annotations

import numpy as np

from ...errors import require

# (keep, bits): mean KL from the whole cache over the tokens that follow [nat per measured token].
DRIFT = {
    (1.0, 16): 0.0, (1.0, 8): 2.6e-05, (1.0, 4): 0.0072,
    (0.75, 16): 0.176, (0.75, 8): 0.176, (0.75, 4): 0.182,
    (0.5, 16): 0.377, (0.5, 8): 0.376, (0.5, 4): 0.381,
    (0.25, 16): 0.731, (0.25, 8): 0.731, (0.25, 4): 0.737,
    (0.1, 16): 1.049, (0.1, 8): 1.049, (0.1, 4): 1.050,
    (0.05, 16): 1.343, (0.05, 8): 1.343, (0.05, 4): 1.342,
}


def drift_per_token(keep, bits) -> np.ndarray:
    """KL per measured token of a cache with that keep ratio and precision, interpolated over keep.

    Args:
        keep: float or array, (0, 1]; below the smallest measured ratio its value is taken.
        bits: int or array, precisions of the table [bit].

    Returns:
        Float array [nat].

    Raises:
        ValueError: a precision that was not measured.
    """
    keep, bits = np.broadcast_arrays(np.asarray(keep, np.float64), np.asarray(bits))
    result = np.zeros(keep.shape)
    measured = sorted({b for _, b in DRIFT})
    require(bool(np.isin(bits, measured).all()), f"bits is {bits}: drift was measured for {measured} only")
    for precision in measured:
        ratios = sorted(k for k, b in DRIFT if b == precision)
        found = np.interp(keep, ratios, [DRIFT[k, precision] for k in ratios])
        result = np.where(bits == precision, found, result)
    return result


# keep: wrong answers where the whole cache is right, per measured token [1]. To be replaced by measured ones.
_WRONG = {0.1: 0.025, 0.25: 0.0177, 0.5: 0.011, 0.75: 0.005, 1.0: 0.0}


def wrong_per_token(keep, bits) -> np.ndarray:
    """Wrong answers per measured token of a cache with that keep ratio and precision, interpolated over keep.

    Args and errors as in `drift_per_token`.
    """
    keep, _ = np.broadcast_arrays(np.asarray(keep, np.float64), np.asarray(bits))
    return np.interp(keep, list(_WRONG), list(_WRONG.values()))
