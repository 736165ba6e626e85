"""The policy that knows nothing: uniform among the choices that can have an effect; of any task with such masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..envs.sim.jit import allocating
from ..envs.sim.streams import POLICY, uniform


class RandomPolicy:
    """Uniform MultiDiscrete actions under the masks, drawn from the policy stream of each environment.

    The choice of an agent at a step of an episode is a function of that episode's seed alone: it does not depend on
    what other environments run beside it, nor on what was drawn before.

    Args:
        sizes: number of choices of each part of an action.
        masks: view -> which choices can have an effect, bool [E, agents, sum of sizes].
        decode: (actions, int [E, agents, parts]; view) -> plans.
    """

    name = "random"
    decides_handovers = True

    def __init__(self, sizes: Sequence[int], masks: Callable[[Any], np.ndarray],
                 decode: Callable[[np.ndarray, Any], np.ndarray]) -> None:
        self._sizes, self._masks, self._decode = np.array(sizes, np.int64), masks, decode

    def reset(self, view: Any) -> None:
        """Nothing to remember."""

    def act(self, view: Any) -> np.ndarray:
        """Random plans, [E, agents]."""
        step = np.rint(view.time_s / view.interval_s).astype(np.int64)
        return self._decode(_choices(view.sim.state.keys[:, POLICY], step, self._masks(view), self._sizes), view)


@allocating
def _choices(keys, step, mask, sizes):
    """Actions, int64 [E, agents, parts]: one draw per agent (who), part (what) and step (count)."""
    actions = np.zeros((mask.shape[0], mask.shape[1], len(sizes)), np.int64)
    for e in range(mask.shape[0]):
        for u in range(mask.shape[1]):
            start = 0
            for part in range(len(sizes)):
                end = start + sizes[part]
                allowed = mask[e, u, start:end].sum()
                nth = min(int(uniform(keys[e], u, part, step[e]) * allowed), allowed - 1)
                for i in range(start, end):
                    if mask[e, u, i]:
                        if nth == 0:
                            actions[e, u, part] = i - start
                            break
                        nth -= 1
                start = end
    return actions
