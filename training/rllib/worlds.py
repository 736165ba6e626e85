"""Which environments each runner plays; knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from ...errors import ConfigError
from ...experiment import TrainConfig
from ..algorithm import side_by_side


class Share(NamedTuple):
    """Environments of one world that one runner plays."""

    world: int
    first: int  # of the world's environments
    envs: int


def counts(worlds: Sequence[Any], options: TrainConfig) -> list[int]:
    """Environments of each of these worlds, as many as the other engine makes of it."""
    if not options.decisions:
        return [options.num_envs] * len(worlds)
    return [side_by_side(config, options.num_envs) for config in worlds]


def deal(envs: Sequence[int], runners: int) -> list[list[Share]]:
    """The shares of each runner: the environments of all worlds, one after the other, in equal parts.

    Args:
        envs: how many each world has.
        runners: among how many they are dealt.

    Raises:
        ConfigError: there are fewer environments than runners.
    """
    total = sum(envs)
    if total < runners:
        raise ConfigError(f"train.runners is {runners}: there are {total} environments to share; raise train.num_envs "
                          "or set fewer runners")
    begins = [0, *accumulate(envs)]
    edges = [total * r // runners for r in range(runners + 1)]
    dealt = []
    for start, stop in pairwise(edges):
        spans = ((w, begin, max(start, begin), min(stop, end)) for w, (begin, end) in enumerate(pairwise(begins)))
        dealt.append([Share(w, low - begin, high - low) for w, begin, low, high in spans if low < high])
    return dealt
