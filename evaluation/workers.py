"""Units played by several processes side by side; the numbers are the same for any number of processes.

Processes are spawned, not forked: torch and numba do not survive a fork. A program of your own that asks for more than
one worker therefore needs `if __name__ == "__main__":`, as the documentation of multiprocessing explains.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import KvroamError
from ..experiment import Experiment, build_experiment, flat
from .units import Played, Stage, Unit

Tick = Callable[[Unit], Any]

# Steps after which a worker tells how far it is, and how long the others wait for such news [s].
_NEWS_STEPS, _NEWS_S = 20, 0.2


def play_here(units: Sequence[Unit], experiments: Mapping[str, Experiment[Any]], tick: Tick,
              ) -> Generator[tuple[Unit, Played]]:
    """Play the units one after the other in this process; each is yielded as soon as it is done."""
    stage = Stage(dict(experiments))
    for unit in units:
        yield unit, stage.play(unit, lambda unit=unit: tick(unit))  # type: ignore[misc]


def play_apart(units: Sequence[Unit], experiments: Mapping[str, Experiment[Any]], tick: Tick, workers: int,
               ) -> Generator[tuple[Unit, Played]]:
    """Play the units in `workers` processes with one torch thread each; yields them in the order in which they end.

    Args:
        units: their policies are texts or paths.
        experiments: the scenarios, by name.
        tick: called in this process, once for every step that a worker has made, with its unit.
        workers: processes, at least 1.

    Raises:
        KvroamError: what a worker raised, or one that was killed.
    """
    if not units:
        return
    context = multiprocessing.get_context("spawn")
    news = context.Queue()
    plain = {name: flat(experiment) for name, experiment in experiments.items()}
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(workers, len(units)), context, _begin, (plain, news))
    pending: dict[Future[Played], int] = {}
    try:
        pending |= {pool.submit(_play, k, unit): k for k, unit in enumerate(units)}
        heard: Counter[int] = Counter()
        while pending:
            ended, _ = wait(pending, _NEWS_S, FIRST_COMPLETED)
            _listen(news, units, heard, tick)
            for future in ended:
                k = pending.pop(future)
                yield units[k], future.result()
    except BrokenProcessPool as error:
        raise KvroamError("a worker process was killed, by the system where memory ran out: give fewer --workers; "
                          "the episodes that were finished are kept") from error
    finally:
        # Nobody waits for units that are under way when this is left early, such as by Ctrl-C. The pool itself waits
        # for its processes: a second one that did so could be told that they had ended a moment before they are known
        # to have.
        if pending:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        news.close()
        news.cancel_join_thread()


def _listen(news: Any, units: Sequence[Unit], heard: Counter[int], tick: Tick) -> None:
    """Pass on what the workers have told since the last time."""
    while True:
        try:
            k, steps = news.get_nowait()
        except queue.Empty:
            return
        heard[k] += steps
        for _ in range(steps):
            tick(units[k])


# Of a worker process: made by _begin, used by _play.
_stage: Stage | None = None
_news: Any = None


def _begin(plain: Mapping[str, Mapping[str, Any]], news: Any) -> None:
    """What a worker does first."""
    import torch

    global _stage, _news
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _stage = Stage({name: build_experiment(mapping) for name, mapping in plain.items()})
    _news = news


def _end_with_parent() -> None:
    """A worker would wait for ever for the next unit of a process that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _play(k: int, unit: Unit) -> Played:
    """Play a unit in a worker."""
    assert _stage is not None
    made = 0

    def tick() -> None:
        nonlocal made
        made += 1
        if made % _NEWS_STEPS == 0:
            _news.put((k, _NEWS_STEPS))

    played = _stage.play(unit, tick)
    if made % _NEWS_STEPS:
        _news.put((k, made % _NEWS_STEPS))
    return played
