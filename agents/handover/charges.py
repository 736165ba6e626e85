"""What an episode costs without a language model: every cache drifts as the table says that was measured.

The reward's own terms and prices; only the drift is looked up (drift_table.py) instead of measured. A cache drifts by a
rate, in nats per measured token. A migration that keeps part of the tokens, or sends them coarsely, raises the rate to
the table's at least; of a cache whose prefix was rebuilt from token ids only the rest drifts; a new session is whole.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...envs.handover.config import PLAN_BITS, TERMS, HandoverConfig
from ...envs.handover.rewards import amounts
from ...envs.handover.world.simulator import Simulator
from ...envs.handover.world.state import DETOUR, OPENED, RESUMED
from ...envs.sim.jit import entry, kernel
from .drift_table import DRIFT


class DriftTable(NamedTuple):
    """drift_table.DRIFT for kernels."""

    keep: np.ndarray  # float64 [K], rising
    bits: np.ndarray  # int64 [B]
    kl: np.ndarray  # float64 [B, K] [nat per measured token]


def drift_arrays() -> DriftTable:
    """The table that was measured, as arrays."""
    keep = sorted({k for k, _ in DRIFT})
    return DriftTable(np.array(keep), np.array(PLAN_BITS, np.int64),
                      np.array([[DRIFT[k, b] for k in keep] for b in PLAN_BITS]))


@kernel
def drift_rate(table: DriftTable, keep, bits):
    """As drift_table.drift_per_token, of one keep ratio and precision [nat per measured token]."""
    row = 0
    while table.bits[row] != bits:
        row += 1
    kl, last = table.kl[row], table.keep.shape[0] - 1
    if keep <= table.keep[0]:
        return kl[0]
    i = 1
    while i < last and table.keep[i] < keep:
        i += 1
    part = min(1.0, (keep - table.keep[i - 1]) / (table.keep[i] - table.keep[i - 1]))
    return kl[i - 1] + part * (kl[i] - kl[i - 1])


@kernel
def follow_caches(ue, event, events, table: DriftTable, scale, at, rate, kl, share, least):
    """What the step just made did to the cache of every UE.

    Args:
        ue: UE [U], after the step.
        event: EVENT [M] of the step; `events` of them are valid.
        table: what was measured.
        scale: serving tokens that one measured token stands for.
        at: serving tokens read at the end of the step before [U]; brought up to date.
        rate: of the drift [U] [nat per measured token]; brought up to date.
        kl: written: drift of the step's tokens [U] [nat].
        share, least: written: the step took every rate r to share * max(r, least) [U].
    """
    kl[:] = 0.0
    share[:] = 1.0
    least[:] = 0.0
    for i in range(events):
        it = event[i]
        u = it.ue
        if it.kind == RESUMED:
            kl[u] += rate[u] * (it.context - at[u]) / scale
            at[u] = it.context
            if it.medium != DETOUR:
                rest = max(0.0, 1.0 - it.prefix / it.context)
                # What was produced on the way is sent uncut.
                added = drift_rate(table, it.keep if it.prefix < it.snapshot else 1.0, it.bits)
                rate[u] = rest * max(rate[u], added)
                least[u] = max(least[u], added / max(share[u], 1e-9))
                share[u] *= rest
        elif it.kind == OPENED:
            kl[u] += rate[u] * (ue[u].end - at[u]) / scale
            at[u], rate[u], share[u] = it.context, 0.0, 0.0
    for u in range(ue.shape[0]):
        kl[u] += rate[u] * (ue[u].context - at[u]) / scale
        at[u] = ue[u].context


class TableCharges:
    """Prices the steps of a simulator whose caches nobody measures.

    Args:
        config: the environment.
        num_envs: environments side by side.
    """

    def __init__(self, config: HandoverConfig, num_envs: int) -> None:
        shape = (num_envs, config.num_ues)
        self.prices = prices_of(config)
        self._floor, self._scale = config.reward.interruption * first_s(config), config.serving.context_scale
        self._table = drift_arrays()
        self._at, self._rate, self._kl = (np.zeros(shape) for _ in range(3))
        self._scratch = np.zeros((2, config.num_ues))

    def reset(self, sim: Simulator) -> None:
        """Every episode begins anew, with whole caches."""
        self._at[:], self._rate[:] = sim.state.ue["context"], 0.0

    def of_step(self, sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
        """Cost of the step that `sim` has just made, and the part of it that nobody can avoid, float64 [E] each.

        Means over the UEs, in the prices of config.reward.
        """
        state = sim.state
        _follow_all(state.ue, state.event, state.world, self._table, self._scale, self._at, self._rate, self._kl,
                    self._scratch)
        cost = (amounts(state.flow, self._kl) @ self.prices).mean(axis=1)
        return cost, self._floor * state.flow["handovers"].mean(axis=1)


def prices_of(config: HandoverConfig) -> np.ndarray:
    """The prices of the reward's terms, in their order, float64 [T]."""
    return np.array([getattr(config.reward, term.name) for term in TERMS])


def first_s(config: HandoverConfig) -> float:
    """What every handover takes whatever is done: the radio's interruption and the first token [s]."""
    return config.radio.interruption_s + 1.0 / config.serving.decode_tokens_per_s


@entry
def _follow_all(ue, event, world, table: DriftTable, scale, at, rate, kl, scratch):
    for e in range(ue.shape[0]):
        follow_caches(ue[e], event[e], world[e].events, table, scale, at[e], rate[e], kl[e], scratch[0], scratch[1])
