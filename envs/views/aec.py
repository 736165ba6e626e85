"""The PettingZoo AEC view of any task: agents act one after the other, and the world moves on once all have."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pettingzoo.utils.conversions import parallel_to_aec_wrapper
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from .parallel import ParallelView


class AECView(parallel_to_aec_wrapper):
    """A parallel view by PettingZoo's own conversion; a wrong action is refused when it is given.

    Args:
        as for the parallel view.
    """

    parallel: ClassVar[type[ParallelView]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(self.parallel(*args, **kwargs))

    def step(self, action: np.ndarray | None) -> None:
        """Take the action of `agent_selection`; None for an agent that is done.

        Raises:
            ValueError: an action outside the space, or None from an agent that is not done, or one that is done acts.
        """
        agent = self.agent_selection
        done = self.terminations[agent] or self.truncations[agent]
        if done and action is not None:
            raise ValueError(f"{agent} is done: its only action is None")
        if not done and not self.action_space(agent).contains(np.asarray(action)):
            raise ValueError(f"action {action!r} of {agent} is outside {self.action_space(agent)}")
        super().step(None if action is None else np.asarray(action))


def in_order(view: AECView) -> OrderEnforcingWrapper:
    """The AEC view, which then refuses calls in the wrong order."""
    return OrderEnforcingWrapper(view)
