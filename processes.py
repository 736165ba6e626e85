"""Worker processes: started afresh, one torch thread each, and none of them outlives its work or its parent.

They are spawned, not forked: torch and numba do not survive a fork. A program of your own that asks for workers
therefore needs `if __name__ == "__main__":`, as the documentation of multiprocessing explains.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")


def _nothing() -> None:
    pass


@contextmanager
def pool(workers: int, begin: Callable[..., None] = _nothing, *given: Any) -> Iterator[ProcessPoolExecutor]:
    """Some processes for one piece of work.

    An exception in the block, such as Ctrl-C, ends those that are still busy; otherwise the block waits for them. A
    worker that is killed raises concurrent.futures.process.BrokenProcessPool in the block.

    Args:
        workers: how many, at least 1.
        begin: what each does first.
        given: its arguments.
    """
    others = set(multiprocessing.active_children())
    found = ProcessPoolExecutor(workers, CONTEXT, _begin, (begin, given))
    try:
        yield found
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        # The pool itself waits for its processes: a second one that did so could be told that they had ended a moment
        # before they are known to have.
        found.shutdown(wait=True, cancel_futures=True)


def _begin(begin: Callable[..., None], given: tuple[Any, ...]) -> None:
    import torch

    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    begin(*given)


def _end_with_parent() -> None:
    """A worker would wait for ever for the next job of a process that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
