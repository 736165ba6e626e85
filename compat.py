"""What kvroam uses of other libraries beyond their public interfaces: probed once, with a public way beside it.

Nothing is imported before it is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def numba_accepts(option: str) -> bool:
    """Whether numba compiles a function with the option set to False."""
    import numba

    options: dict[str, Any] = {option: False}
    try:
        numba.njit("int64()", **options)(lambda: 0)
    except Exception:  # which one depends on the version; any says that the option is not known
        return False
    return True


def numba_options() -> dict[str, Any]:
    """Options for a kernel that owns no array: cached, and without counting references where numba can leave it.

    Counting is an atomic operation for every array at every call, on counters that all threads share; results are the
    same. `_nrt` is no part of numba's public interface.
    """
    return {"cache": True, "_nrt": False} if numba_accepts("_nrt") else {"cache": True}
