"""From amounts to rewards: price times amount, term by term, and their sum."""

from __future__ import annotations

import numpy as np

from ..sim.jit import kernel


def priced(amounts: np.ndarray, prices: np.ndarray, team: bool = False) -> np.ndarray:
    """Reward terms, float64 [E, A, T]: minus price times amount.

    Args:
        amounts: what each agent caused in the step [E, A, T], in the units that the prices are per.
        prices: per unit of each term [T].
        team: every agent gets the mean over the agents of its environment, term by term.
    """
    terms = amounts * -prices
    return np.repeat(terms.mean(axis=1, keepdims=True), terms.shape[1], axis=1) if team else terms


def total(terms: np.ndarray) -> np.ndarray:
    """The sum of the terms, added in their order, float64 [...] of [..., T]."""
    reward = np.empty(terms.shape[:-1])
    _add(terms.reshape(-1, terms.shape[-1]), reward.reshape(-1))
    return reward


@kernel
def _add(terms, out):
    for row in range(out.shape[0]):
        reward = 0.0
        for i in range(terms.shape[1]):
            reward += terms[row, i]
        out[row] = reward
