"""How the simulator's functions are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb

from ...compat import numba_options

# With error model numpy a division by zero gives an infinity instead of an exception that every caller must look for.
OPTIONS: dict[str, Any] = {"error_model": "numpy", **numba_options()}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that neither allocates nor returns an array, without counting references to those it is given.

    Its caller holds them. Counting took more than half of the simulator's time: an atomic operation for every array
    at every call, on counters that all threads share.
    """
    return nb.njit(**OPTIONS)(function)
