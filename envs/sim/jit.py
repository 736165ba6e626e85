"""How the simulator's functions are compiled, and that what was compiled is kept (cache.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb

from ...compat import numba_options
from .cache import keep

# With error model numpy a division by zero gives an infinity instead of an exception that every caller must look for.
_COUNTED: dict[str, Any] = {"error_model": "numpy"}
_UNCOUNTED = _COUNTED | numba_options()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that neither allocates nor returns an array, without counting references to those it is given.

    Its caller holds them. Counting took more than half of the simulator's time: an atomic operation for every array
    at every call, on counters that all threads share.
    """
    return keep(nb.njit(**_UNCOUNTED)(function))


def inlined(function: Callable[..., Any]) -> Any:
    """`kernel` that becomes part of its caller before that is compiled: once instead of twice, with one caller."""
    return keep(nb.njit(inline="always", **_UNCOUNTED)(function))


def kernel_as(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """`kernel` for arguments of these types only, to which others are converted; compiled at once."""

    def compiled(function: Callable[..., Any]) -> Any:
        made = kernel(function)
        if made is not function:
            made.compile(signature)
            made.disable_compile()
        return made

    return compiled


def entry(function: Callable[..., Any]) -> Any:
    """`kernel` for a function that Python calls: it compiles all that it calls, and says so before the first time."""
    return keep(nb.njit(**_UNCOUNTED)(function), long=True)


def allocating(function: Callable[..., Any]) -> Any:
    """Compile a function that allocates arrays."""
    return keep(nb.njit(**_COUNTED)(function))


def parallel_entry(function: Callable[..., Any]) -> Any:
    """`entry` whose prange loops run on numba's threads; it may allocate."""
    return keep(nb.njit(parallel=True, **_COUNTED)(function), long=True)
