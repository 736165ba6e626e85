"""How the simulator's functions are compiled, and that what was compiled is kept (cache.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb

from .cache import keep

_OPTIONS: dict[str, Any] = {"_nrt": False}  # _nrt is no part of numba's type stubs


def borrowing(function: Callable[..., Any]) -> Any:
    """Compile a function that neither allocates nor returns an array, without counting references to those it is given.

    Its caller holds them. Counting took more than half of the simulator's time: an atomic operation for every array
    at every call, on counters that all threads share.
    """
    return keep(nb.njit(**_OPTIONS)(function))


def borrowing_as(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """`borrowing` for arguments of these types only, to which others are converted; compiled at once."""

    def compiled(function: Callable[..., Any]) -> Any:
        kernel = borrowing(function)
        if kernel is not function:
            kernel.compile(signature)
            kernel.disable_compile()
        return kernel

    return compiled


def owning(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, or that allocates."""
    return keep(nb.njit(function), long=True)


def owning_parallel(function: Callable[..., Any]) -> Any:
    """The same, its prange loops on numba's threads."""
    return keep(nb.njit(parallel=True)(function), long=True)
