"""How a policy that says nothing about changes of cell acts where policies decide them (actions.trigger: policy)."""

from __future__ import annotations

import numpy as np

from ...envs.handover.config import ActionConfig
from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import STAY
from ..base import Policy


def follow_a3(view: NetworkView, plans: np.ndarray) -> np.ndarray:
    """Hand every UE over to the cell that its event A3 reports, once the time-to-trigger has run out.

    The strongest cell with offset, hysteresis and time-to-trigger (TS 38.331, 5.5.4.4), up to one decision interval
    later than the event itself. Plans that name a handover already keep it.

    Args:
        view: the network.
        plans: PLAN [E, U]; their `handover` is filled in.

    Returns:
        The same plans.
    """
    due = (view.handover_in_s <= 0.0) & (plans["handover"] == STAY)
    plans["handover"] = np.where(due, view.handover_cell, plans["handover"])
    return plans


class FollowingA3:
    """A policy for sessions, with `follow_a3` for the cells."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name

    def reset(self, view: NetworkView) -> None:
        """A new episode begins everywhere."""
        self.policy.reset(view)

    def act(self, view: NetworkView) -> np.ndarray:
        """The policy's plans, PLAN [E, U], and the handovers that are due."""
        return follow_a3(view, self.policy.act(view))


def in_charge(policy: Policy, config: ActionConfig) -> Policy:
    """The policy as it can act under `config.trigger`; one that decides handovers itself has `hands_over = True`."""
    if config.trigger == "a3" or getattr(policy, "hands_over", False):
        return policy
    return FollowingA3(policy)
