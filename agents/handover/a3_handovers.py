"""Handovers of a policy that says nothing about them, where policies decide them (actions.trigger: policy)."""

from __future__ import annotations

import numpy as np

from ...envs.handover.config import HandoverConfig
from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import STAY
from ..base import Policy


def add_a3_handovers(view: NetworkView, plans: np.ndarray) -> np.ndarray:
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


class WithA3Handovers:
    """A policy for the sessions, and `add_a3_handovers` for the cells."""

    decides_handovers = True

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name

    def reset(self, view: NetworkView) -> None:
        """A new episode begins everywhere."""
        self.policy.reset(view)

    def act(self, view: NetworkView) -> np.ndarray:
        """The policy's plans, PLAN [E, U], and the handovers that are due."""
        return add_a3_handovers(view, self.policy.act(view))


def able_to_hand_over(policy: Policy, config: HandoverConfig) -> Policy:
    """The policy, with the handovers of event A3 where policies decide them and this one has none of its own.

    A policy that writes `plans["handover"]` itself says so by `decides_handovers = True`.
    """
    if config.actions.trigger == "a3" or getattr(policy, "decides_handovers", False):
        return policy
    return WithA3Handovers(policy)
