"""The scorer that several runners share, as an actor of Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from ...envs.handover.config import HandoverConfig
from ...errors import KvroamError
from .scoring import Hall, Scored, Step


class ScorerActor:
    """A Hall in a process of its own: what comes while it computes is its next batch."""

    def __init__(self) -> None:
        self._hall = Hall()
        self._waiting: dict[str, tuple[Step, asyncio.Future[Scored]]] = {}
        self._steps = self._batches = 0

    async def join(self, client: str, config: HandoverConfig, num_envs: int) -> None:
        """As of Hall; a step that its predecessor still waits for is dropped."""
        _, waiting = self._waiting.pop(client, (None, None))
        if waiting is not None:
            waiting.cancel()
        self._hall.join(client, config, num_envs)

    async def reset(self, client: str, envs: np.ndarray, step: Step) -> None:
        """As of Hall."""
        self._hall.reset(client, envs, step)

    async def score(self, client: str, step: Step) -> Scored:
        """Score one step of one client, together with those of others that wait.

        Raises:
            KvroamError: the client has not joined, since this actor died and began anew.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._work)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[client] = (step, answer)
        return await answer

    async def save(self, client: str) -> dict[str, Any]:
        """As of Hall."""
        return self._hall.save(client)

    async def restore(self, client: str, saved: dict[str, Any]) -> None:
        """As of Hall."""
        self._hall.restore(client, saved)

    async def counts(self) -> tuple[int, int]:
        """Steps that were scored, and in how many batches."""
        return self._steps, self._batches

    def _work(self) -> None:
        batch, self._waiting = self._waiting, {}
        try:
            found = self._hall.score({client: step for client, (step, _) in batch.items()})
        except KeyError as error:
            self._fail(batch, KvroamError(f"{error} has not joined this scorer: it began anew"))
        except Exception as error:
            self._fail(batch, error)
        else:
            self._steps, self._batches = self._steps + len(batch), self._batches + 1
            for client, (_, answer) in batch.items():
                if not answer.done():
                    answer.set_result(found[client])

    @staticmethod
    def _fail(batch: dict[str, tuple[Step, asyncio.Future[Scored]]], error: Exception) -> None:
        for _, answer in batch.values():
            if not answer.done():
                answer.set_exception(error)


def start_scorers(count: int, run: str) -> list[str]:
    """Start that many; they live as long as this process, and begin anew where they die.

    With GPUs in the cluster they share these.

    Args:
        count: how many.
        run: what their names begin with.

    Returns:
        Their names, for `asking`.
    """
    gpus = min(1.0, ray.cluster_resources().get("GPU", 0.0) / count) if count else 0.0
    names = [f"{run}-scorer-{i}" for i in range(count)]
    for name in names:
        _kept[name] = ray.remote(ScorerActor).options(name=name, num_cpus=1, num_gpus=gpus, max_restarts=-1).remote()
    return names


def stop_scorers(names: list[str]) -> None:
    """End them."""
    for name in names:
        ray.kill(_kept.pop(name))


_kept: dict[str, Any] = {}


def asking(name: str) -> Callable[..., Any]:
    """What a DistantScorer asks by."""
    actor = ray.get_actor(name)

    def ask(method: str, *args: Any) -> Any:
        return ray.get(getattr(actor, method).remote(*args))

    return ask
