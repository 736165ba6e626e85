"""What an episode costs without a language model: every cache harms its answers as the tables say that were measured.

The reward's own terms and prices; only the drift and the wrong answers are looked up (drift_table.py) instead of
measured. A cache has a rate of harm, in price per measured token. A migration that keeps part of the tokens, or sends
them coarsely, raises the rate to the table's at least; of a cache whose prefix was rebuilt from token ids only the rest
harms; the rest of a cache that follows, a repair, or a new session take the harm away again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...sim.jit import entry, kernel
from ..config import PLAN_BITS, TERMS, HandoverConfig
from ..rewards import amounts
from ..world.simulator import Simulator
from ..world.state import BACKFILLED, DETOUR, OPENED, REPAIRED, RESUMED
from .drift_numbers import KL
from .drift_table import SCORER, harm_per_token

SCAR_NATS = 0.0015  # drift of a token after a rest has been merged, docs/kvbackend.md (kvroam.benchmarks.progressive)
_CERTAIN = 1e9  # above every rate
_ROUNDING = 0.02  # share of the rows that may be missing in a cache that is whole, tokens cut at whole numbers


class HarmTable(NamedTuple):
    """drift_table's two tables for kernels, priced."""

    keep: np.ndarray  # float64 [K], rising
    bits: np.ndarray  # int64 [B]
    harm: np.ndarray  # float64 [B, K] [price per measured token]
    scar: float  # [price per measured token]


def harm_table(config: HandoverConfig) -> HarmTable:
    """The tables that were measured, at the prices of a configuration."""
    keep = np.array(sorted({k for k, _ in KL[SCORER]}))
    price = config.reward
    harm = [harm_per_token(keep, bits, price.drift, price.wrong) for bits in PLAN_BITS]
    return HarmTable(keep, np.array(PLAN_BITS, np.int64), np.array(harm), price.drift * SCAR_NATS)


@kernel
def harm_rate(table: HarmTable, keep, bits):
    """Harm of a cache of that keep ratio and precision, interpolated over keep [price per measured token]."""
    row = 0
    while table.bits[row] != bits:
        row += 1
    harm, last = table.harm[row], table.keep.shape[0] - 1
    if keep <= table.keep[0]:
        return harm[0]
    i = 1
    while i < last and table.keep[i] < keep:
        i += 1
    part = min(1.0, (keep - table.keep[i - 1]) / (table.keep[i] - table.keep[i - 1]))
    return harm[i - 1] + part * (harm[i] - harm[i - 1])


@kernel
def follow_caches(ue, event, events, table: HarmTable, scale, at, rate, harm, share, least):
    """What the step just made did to the cache of every UE.

    Args:
        ue: UE [U], after the step.
        event: EVENT [M] of the step; `events` of them are valid.
        table: what was measured.
        scale: serving tokens that one measured token stands for.
        at: serving tokens read at the end of the step before [U]; brought up to date.
        rate: of the harm [U] [price per measured token]; brought up to date.
        harm: written: of the step's tokens [U] [price].
        share, least: written: the step took every rate r to share * max(r, least) [U].
    """
    harm[:] = 0.0
    share[:] = 1.0
    least[:] = 0.0
    for i in range(events):
        it = event[i]
        u = it.ue
        if it.kind == OPENED:
            harm[u] += rate[u] * (ue[u].end - at[u]) / scale
            at[u], rate[u], share[u] = it.context, 0.0, 0.0
            continue
        harm[u] += rate[u] * (it.context - at[u]) / scale
        at[u] = it.context
        if it.kind == RESUMED and it.medium != DETOUR:
            rest = max(0.0, 1.0 - it.prefix / it.context)
            # What was produced on the way is sent uncut.
            added = harm_rate(table, it.keep if it.prefix < it.snapshot else 1.0, it.bits)
            rate[u] = rest * max(rate[u], added)
            least[u] = max(least[u], added / max(share[u], 1e-9))
            share[u] *= rest
        elif it.kind == BACKFILLED:
            # What was lost before this migration is still missing.
            held = ue[u].held / ue[u].context
            rest = max(0.0, 1.0 - it.prefix / it.context)
            rate[u] = table.scar + rest * harm_rate(table, 1.0 if held > 1.0 - _ROUNDING else held, it.bits)
            share[u], least[u] = rate[u] / _CERTAIN, _CERTAIN
        elif it.kind == REPAIRED:
            rate[u], share[u] = 0.0, 0.0
    for u in range(ue.shape[0]):
        harm[u] += rate[u] * (ue[u].context - at[u]) / scale
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
        self._floor, self._scale = config.reward.interruption, config.serving.context_scale
        self._table = harm_table(config)
        self._at, self._rate, self._harm, self._nothing = (np.zeros(shape) for _ in range(4))
        self._scratch = np.zeros((2, config.num_ues))

    def reset(self, sim: Simulator, envs: Any = slice(None)) -> None:
        """The episodes of the environments `envs` begin anew, with whole caches; default: all."""
        self._at[envs], self._rate[envs] = sim.state.ue["context"][envs], 0.0

    def save(self) -> tuple[np.ndarray, np.ndarray]:
        """How far every session has read, and the rate of harm of its cache."""
        return self._at.copy(), self._rate.copy()

    def restore(self, saved: tuple[np.ndarray, np.ndarray]) -> None:
        """Take over what `save` returned."""
        self._at[:], self._rate[:] = saved

    def of_step(self, sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
        """Cost of the step that `sim` has just made, and the part of it that nobody can avoid, float64 [E] each.

        Means over the UEs, in the prices of config.reward.
        """
        state, harm = sim.state, self.harm_of_step(sim)
        priced = amounts(state.flow, self._nothing, self._nothing) @ self.prices + harm
        return priced.mean(axis=1), self._floor * state.flow["unavoidable_s"].mean(axis=1)

    def harm_of_step(self, sim: Simulator) -> np.ndarray:
        """Price of the drift and the wrong answers of that step, float64 [E, U]; to be asked once per step."""
        state = sim.state
        _follow_all(state.ue, state.event, state.world, self._table, self._scale, self._at, self._rate, self._harm,
                    self._scratch)
        return self._harm


class TableAmounts:
    """What the steps of a simulator cost before it is priced: amounts of the reward's terms, to be priced afterwards.

    KL and wrong answers are followed apart, each by its own table. TableCharges follows their price: where a cache was
    harmed twice, once worse in KL and once worse in answers, it charges slightly less.

    Args:
        config: the environment; its prices do not matter.
        num_envs: environments side by side.
    """

    def __init__(self, config: HandoverConfig, num_envs: int) -> None:
        self._each = [TableCharges(replace(config, reward=replace(config.reward, drift=nats, wrong=wrong)), num_envs)
                      for nats, wrong in ((1.0, 0.0), (0.0, 1.0))]

    def reset(self, sim: Simulator, envs: Any = slice(None)) -> None:
        """The episodes of the environments `envs` begin anew, with whole caches; default: all."""
        for one in self._each:
            one.reset(sim, envs)

    def save(self) -> list[Any]:
        """What the next step depends on."""
        return [one.save() for one in self._each]

    def restore(self, saved: list[Any]) -> None:
        """Take over what `save` returned."""
        for one, kept in zip(self._each, saved, strict=True):
            one.restore(kept)

    def harm_of_step(self, sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
        """KL [nat] and wrong answers of that step, float64 [E, U] each; to be asked once per step."""
        nats, wrong = (one.harm_of_step(sim).copy() for one in self._each)
        return nats, wrong

    def of_step(self, sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
        """Amounts of the step that `sim` has just made, float64 [E, T], means over the UEs in the order of TERMS; and
        the seconds of interruption among them that nobody can avoid, float64 [E]."""
        nats, wrong = self.harm_of_step(sim)
        flow = sim.state.flow
        return amounts(flow, nats, wrong).mean(axis=1), flow["unavoidable_s"].mean(axis=1)


def prices_of(config: HandoverConfig) -> np.ndarray:
    """The prices of the reward's terms, in their order, float64 [T]."""
    return np.array([getattr(config.reward, term.name) for term in TERMS])


@entry
def _follow_all(ue, event, world, table: HarmTable, scale, at, rate, harm, scratch):
    for e in range(ue.shape[0]):
        follow_caches(ue[e], event[e], world[e].events, table, scale, at[e], rate[e], harm[e], scratch[0], scratch[1])
