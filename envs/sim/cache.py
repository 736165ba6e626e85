"""Compiled kernels that are kept between runs, and dropped when any source that went into them has changed.

numba keeps what it compiled of a function and looks at that function's file only. But compiled code holds the code of
every function that it calls: after a change in one file, a kernel of another file would go on running the old code.
So the names of the kept files have a digest of all sources that a kernel may come from: those of envs/sim, those of
the folder of envs that the kernel is in, and the two files outside envs that kernels take constants from. Kernels of a
task's policies (agents/TASK) may call those of the task, so there both folders count. That holds wherever numba keeps
them: beside the source, in NUMBA_CACHE_DIR, or in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

from ...compat import numba_caching

_SIM = Path(__file__).parent
_ENVS = _SIM.parent
# What kernels take from outside envs: options of the compiler, and the widths that plans may name.
_OUTSIDE = (_ENVS.parent / "compat.py", _ENVS.parent / "kvbackend" / "codecs" / "table.py")
_DAMAGED = (EOFError, ValueError, pickle.UnpicklingError)
_log = logging.getLogger(__name__)
_CACHING: Any = numba_caching()


def keep(kernel: Any, long: bool = False) -> Any:
    """Let numba keep what it compiles of `kernel` (what njit returns), which is returned.

    Args:
        kernel: a function that numba compiles; one that it does not (NUMBA_DISABLE_JIT) is left as it is.
        long: whether the user should be told before it is compiled, because it takes so long.
    """
    if _CACHING is None or not hasattr(kernel, "enable_caching"):
        return kernel
    try:
        kernel._cache = _KernelCache(kernel.py_func, long)
    except RuntimeError:
        # No folder can be written: numba compiles in memory.
        kernel._cache = _NoCache(long)
    return kernel


def digest(source: Path) -> str:
    """16 hexadecimal digits for all sources that a kernel in the file `source` may come from."""
    source, package = source.absolute(), _ENVS.parent
    parts = source.relative_to(package).parts[:-1] if source.is_relative_to(package) else ()
    if len(parts) < 2:
        return _digest(_SIM)
    room, task = parts[:2]
    return _digest(*{_ENVS / task, package / room / task})


@functools.cache
def _digest(*folders: Path) -> str:
    total = hashlib.sha256()
    for root in sorted({_SIM, *folders}):
        for path in sorted(root.rglob("*.py")):
            total.update(path.relative_to(_ENVS.parent).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    for path in filter(Path.exists, _OUTSIDE):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


class _KernelImpl(_CACHING.CompileResultCacheImpl if _CACHING else object):  # type: ignore[misc]
    """Names the kept files after the sources."""

    def __init__(self, py_func: Any) -> None:
        self.stamp = digest(Path(py_func.__code__.co_filename))
        super().__init__(py_func)

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        """The name that numba gives, and the digest of the sources."""
        return f"{super().get_filename_base(fullname, abiflags)}-{self.stamp}"


class _KernelCache(_CACHING.FunctionCache if _CACHING else object):  # type: ignore[misc]
    """numba's own cache under those names; a file that is damaged or cannot be written does no harm."""

    _impl_class = _KernelImpl

    def __init__(self, py_func: Any, long: bool) -> None:
        super().__init__(py_func)
        self._long = long

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept for these types, or None."""
        found = None
        with contextlib.suppress(OSError, *_DAMAGED):
            found = super().load_overload(sig, target_context)
        if found is None and self._long:
            _say_that_it_takes_time()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for these types, and drop what older sources left in the same folder."""
        try:
            try:
                super().save_overload(sig, data)
            except _DAMAGED:
                self.flush()
                super().save_overload(sig, data)
        except OSError as error:
            _say_that_nothing_is_kept(str(error))
        else:
            _drop_older(Path(self.cache_path), self._impl.stamp)


class _NoCache(_CACHING.NullCache if _CACHING else object):  # type: ignore[misc]
    """Where no folder can be written."""

    def __init__(self, long: bool) -> None:
        self._long = long

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Nothing."""
        if self._long:
            _say_that_it_takes_time()
            _say_that_nothing_is_kept("no folder can be written")


@functools.cache
def _drop_older(folder: Path, stamp: str) -> None:
    """Once per folder and process; another process that still runs the older sources has loaded them."""
    for path in (*folder.glob("*.nbi"), *folder.glob("*.nbc")):
        if f"-{stamp}." not in path.name:
            with contextlib.suppress(OSError):
                path.unlink()


@functools.cache
def _say_that_it_takes_time() -> None:
    """Once, and not again in the processes that this one starts."""
    if multiprocessing.parent_process() is None:
        _log.warning("kvroam: compiling the simulator, once for this version and these settings; "
                     "this takes about half a minute")


@functools.cache
def _say_that_nothing_is_kept(reason: str) -> None:
    if multiprocessing.parent_process() is None:
        _log.warning("kvroam: what was compiled cannot be kept for the next run (%s); set NUMBA_CACHE_DIR to a folder "
                     "that can be written", reason)
