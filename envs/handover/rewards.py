"""The reward: named terms, each a price times what the step cost, and their sum."""

from __future__ import annotations

import numpy as np

from ..sim.jit import kernel
from .config import RewardConfig

TERMS = ("interruption", "drift", "detour", "traffic", "gpu", "waste", "pingpong")


def terms(flow: np.ndarray, kl: np.ndarray, price: RewardConfig) -> np.ndarray:
    """Reward terms of one step, float64 [E, U, len(TERMS)], all <= 0; a UE's reward is their sum.

    With `price.sharing` team, each term of every UE is the mean of that term over the UEs.

    Args:
        flow: FLOW [E, U], what the step did (kvroam.envs.handover.world.state).
        kl: KL divergence from the whole cache, summed over the step's tokens [E, U] [nat].
        price: weight per unit of each term.
    """
    own = np.empty((*kl.shape, len(TERMS)))
    _price(flow.reshape(-1), kl.reshape(-1), tuple(float(getattr(price, name)) for name in TERMS),
           own.reshape(-1, len(TERMS)))
    return own if price.sharing == "individual" else np.repeat(own.mean(axis=1, keepdims=True), own.shape[1], axis=1)


def total(step_terms: np.ndarray) -> np.ndarray:
    """The reward of each UE: the terms added in the order of TERMS, float64 [E, U] (or [...] of [..., len(TERMS)])."""
    reward = np.empty(step_terms.shape[:-1])
    _add(step_terms.reshape(-1, step_terms.shape[-1]), reward.reshape(-1))
    return reward


@kernel
def _price(flow, kl, price, out):
    """Write the terms of every UE, in the order of TERMS."""
    for u in range(flow.shape[0]):
        did, row = flow[u], out[u]
        row[0] = -price[0] * did.interruption_s
        row[1] = -price[1] * kl[u]
        row[2] = -price[2] * did.detour_s
        row[3] = -price[3] * (did.bits_sent / 8e9)
        row[4] = -price[4] * did.gpu_s
        row[5] = -price[5] * (did.wasted_bits / 8e9 + did.wasted_gpu_s)
        row[6] = -price[6] * did.pingpongs


@kernel
def _add(step_terms, out):
    for row in range(out.shape[0]):
        reward = 0.0
        for i in range(step_terms.shape[1]):
            reward += step_terms[row, i]
        out[row] = reward
