"""Units played by several processes side by side; the numbers are the same for any number of processes."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import KvroamError
from ..experiment import Experiment, build_experiment, flat
from ..processes import CONTEXT, pool
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
    news = CONTEXT.Queue()
    plain = {name: flat(experiment) for name, experiment in experiments.items()}
    try:
        with pool(min(workers, len(units)), _begin, plain, news) as processes:
            pending = {processes.submit(_play, k, unit): k for k, unit in enumerate(units)}
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
    global _stage, _news
    _stage = Stage({name: build_experiment(mapping) for name, mapping in plain.items()})
    _news = news


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
