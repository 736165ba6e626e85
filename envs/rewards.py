"""The reward: named terms, each a price times what the step cost, and their sum."""

from __future__ import annotations

import numpy as np

from .config import RewardConfig

TERMS = ("interruption", "drift", "detour", "traffic", "gpu", "waste", "pingpong")


def terms(flow: np.ndarray, kl: np.ndarray, price: RewardConfig) -> np.ndarray:
    """Reward terms of one step, float64 [E, U, len(TERMS)], all <= 0; a UE's reward is their sum.

    With `price.sharing` team, each term of every UE is the mean of that term over the UEs.

    Args:
        flow: FLOW [E, U], what the step did (kvroam.envs.sim.state).
        kl: KL divergence from the whole cache, summed over the step's tokens [E, U] [nat].
        price: weight per unit of each term.
    """
    wasted = flow["wasted_bits"] / 8e9 + flow["wasted_gpu_s"]
    amounts = {
        "interruption": flow["interruption_s"],
        "drift": kl,
        "detour": flow["detour_s"],
        "traffic": flow["bits_sent"] / 8e9,
        "gpu": flow["gpu_s"],
        "waste": wasted,
        "pingpong": flow["pingpongs"],
    }
    own = np.stack([-getattr(price, name) * amounts[name] for name in TERMS], axis=-1)
    return own if price.sharing == "individual" else np.repeat(own.mean(axis=1, keepdims=True), own.shape[1], axis=1)


def total(step_terms: np.ndarray) -> np.ndarray:
    """The reward of each UE: the terms added in the order of TERMS, float64 [E, U]."""
    reward = np.zeros(step_terms.shape[:-1])
    for i in range(step_terms.shape[-1]):
        reward += step_terms[..., i]
    return reward
