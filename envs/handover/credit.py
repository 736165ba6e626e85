"""Whose decision a cost follows from: the same rewards, dealt out so that a policy can learn from them.

The reward says what each UE suffers. Two things in it hide what its own decision did: what nobody can avoid, and what
the prefills of others cost it. Both sums stay what they are; the first is left out, the second goes to those who asked
for the prefills. For training only: results are computed from the reward.
"""

from __future__ import annotations

import numpy as np

from .config import RewardConfig
from .world.state import State


def credited(state: State, reward: np.ndarray, price: RewardConfig) -> np.ndarray:
    """Rewards of the last step to learn from, float64 [E, U].

    Without the radio's own interruptions and the time without a link, which no decision changes. What tokens are slow,
    and first tokens late, at a server that works on prefills for migrations or repairs is charged to those, in
    proportion to the GPU time that each took in the step.

    Args:
        state: after the step.
        reward: float64 [E, U].
        price: of the environment; with sharing "team" nothing is dealt out, only left out.
    """
    flow, ue = state.flow, state.ue
    unavoidable = price.interruption * flow["unavoidable_s"] + price.outage * flow["outage_s"]
    if price.sharing == "team":
        return reward + unavoidable.mean(axis=1, keepdims=True)
    found = reward + unavoidable
    if not flow["gpu_s"].any():
        return found
    envs, cells = reward.shape[0], state.cell.shape[1]
    first = np.arange(envs)[:, None] * cells
    suffers, asks = (first + ue["server"]).ravel(), (first + ue["target"]).ravel()

    def by_server(at: np.ndarray, amount: np.ndarray) -> np.ndarray:
        return np.bincount(at, amount.ravel(), minlength=envs * cells)

    cost = price.slow * flow["slow_s"] + price.late * flow["late_s"]
    asked = by_server(asks, flow["gpu_s"])
    busy = np.maximum(asked + by_server(suffers, flow["prompt_gpu_s"]), 1e-12)
    share = asked / busy  # of the cost at each server that is charged to those who asked
    per_second = by_server(suffers, cost) / busy
    found += cost * share[suffers].reshape(cost.shape)
    found -= flow["gpu_s"] * per_second[asks].reshape(cost.shape)
    return found
