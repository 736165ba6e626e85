"""Bandwidth shares computed from what is under way: iterative water-filling, and a proportional-fair market.

Both are functions of arrays; the two policies move every session as a split (or as KV) at its handover and differ from
`split` and `cho` only in the weights that they give to the transfers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import IDLE, INTERRUPTED, MEDIA
from ...errors import require
from ..base import label
from .plans import checked_bits, prefill_pace, reactive_plans

_MARKET_ROUNDS, _TOLERANCE = 2000, 1e-9
# A preparation is this much less urgent per second that is left until its handover.
_PATIENCE_S = 0.1


def waterfilling_rates(bits, floor_s, links, capacity_bps) -> np.ndarray:
    """Rates that level the ends of the transfers: the worst as early as possible, then the next, and so on.

    A transfer gains nothing by ending before `floor_s` (its prefill ends then). On each link the level t solves
    sum_f bits_f / max(t, floor_f) = capacity; the link with the highest level is filled first, its transfers are
    fixed, and what they take is subtracted from the other links.

    Args:
        bits: what each transfer has to send, float [F] [bit].
        floor_s: instant before which it is not needed, float [F] [s].
        links: links that each transfer crosses, int [F, 2]; a second link of -1 is none.
        capacity_bps: of each link, float [L] [bit/s].

    Returns:
        Rates, float [F] [bit/s]: no link is overloaded; 0 for a transfer of 0 bit, or across a link of capacity 0.

    Raises:
        ValueError: an argument out of range, named.

    Source: ours; the water-filling principle (Cover and Thomas, Elements of Information Theory, section 9.4) with ends
    of transfers as the water, link by link.
    """
    bits, floor, links, room = _checked(bits, links, capacity_bps, floor_s=floor_s)
    rates = np.zeros(len(bits))
    crosses = (links[:, :, None] == np.arange(len(room))).any(axis=1)  # [F, L]
    open_ = (bits > 0.0) & (room[links.max(axis=1)] > 0.0) & np.where(links[:, 1] >= 0, room[links[:, 0]] > 0.0, True)
    while open_.any():
        levels = [_level(bits[open_ & crosses[:, k]], floor[open_ & crosses[:, k]], room[k]) for k in range(len(room))]
        fullest = int(np.argmax(levels))
        chosen = open_ & crosses[:, fullest]
        rates[chosen] = bits[chosen] / np.maximum(np.maximum(levels[fullest], floor[chosen]), 1e-12)
        room = np.maximum(room - rates[chosen] @ crosses[chosen], 1e-9 * room)
        open_ &= ~chosen
    return rates


def _level(bits: np.ndarray, floor: np.ndarray, capacity: float) -> float:
    """The t with sum bits / max(t, floor) = capacity; 0 when even the floors leave room; -1 for nobody."""
    if not bits.size:
        return -1.0
    order = np.argsort(floor, kind="stable")
    bits, floor = bits[order], floor[order]
    with np.errstate(divide="ignore"):
        late = np.append(np.cumsum((bits / floor)[::-1])[::-1][1:], 0.0)  # taken by those with later floors
    early = np.cumsum(bits)
    for k in range(len(bits)):
        if late[k] < capacity:
            level = early[k] / (capacity - late[k])
            if level <= (floor[k + 1] if k + 1 < len(bits) else np.inf):
                return float(level) if level > floor[k] else 0.0 if k == 0 else float(floor[k])
    raise AssertionError("unreachable: the last level has no upper limit")


def market_rates(budget, links, capacity_bps) -> np.ndarray:
    """Proportional-fair rates: the equilibrium of a market in which every transfer spends its budget on its links.

    Maximises sum_f budget_f log(rate_f) under the capacities. A transfer buys rate_f = budget_f / (sum of its links'
    prices); a link raises its price while more than its capacity is asked for, and lowers it while less is.

    Args:
        budget: of each transfer, float [F]; 0 buys nothing.
        links: links that each transfer crosses, int [F, 2]; a second link of -1 is none.
        capacity_bps: of each link, float [L] [bit/s].

    Returns:
        Rates, float [F] [bit/s], scaled down where rounding would overload a link.

    Raises:
        ValueError: an argument out of range, named.

    Source: Kelly, Maulloo, Tan, J. Oper. Res. Soc. 49 (1998): rate control with shadow prices; the multiplicative
    price update and its damping are ours.
    """
    budget, _, links, room = _checked(budget, links, capacity_bps)
    rates = np.zeros(len(budget))
    crosses = (links[:, :, None] == np.arange(len(room))).any(axis=1)
    active = (budget > 0.0) & ~(crosses & (room <= 0.0)).any(axis=1)
    if not active.any():
        return rates
    cross, money = crosses[active].astype(float), budget[active]
    used = cross.any(axis=0)
    cross, room = cross[:, used], room[used]
    price = (cross * (money / cross.sum(axis=1))[:, None]).sum(axis=0) / room
    for _ in range(_MARKET_ROUNDS):
        bought = money / (cross @ price)
        excess = bought @ cross / room
        # Half a step in the logarithm: a transfer's two links must not both answer the same demand in full.
        changed = price * np.sqrt(excess)
        if np.abs(changed - price).max() <= _TOLERANCE * price.max():
            break
        price = np.maximum(changed, 1e-15 * changed.max())
    bought = money / (cross @ price)
    overload = np.maximum(bought @ cross / room, 1.0)
    rates[active] = bought / np.where(cross > 0.0, overload, 1.0).max(axis=1)
    return rates


def _checked(amount, links, capacity_bps, floor_s=None):
    """The arguments as arrays, or a ValueError that names one."""
    amount, room = np.asarray(amount, np.float64), np.asarray(capacity_bps, np.float64)
    links = np.asarray(links, np.int64).reshape(-1, 2) if np.size(links) == 0 else np.asarray(links)
    floor = np.zeros_like(amount) if floor_s is None else np.asarray(floor_s, np.float64)
    require(links.ndim == 2 and links.shape == (amount.size, 2) and floor.shape == amount.shape,
            f"links has shape {links.shape} for {amount.size} transfers: it must be [F, 2]")
    require(bool((links[:, 0] >= 0).all() and (links < room.size).all()),
            f"links names a link outside 0 to {room.size - 1}")
    for name, array in (("bits or budget", amount), ("floor_s", floor), ("capacity_bps", room)):
        require(bool((array >= 0.0).all() and np.isfinite(array).all()), f"{name} must be finite and not negative")
    return amount, floor, links, room


def transfers(view: NetworkView, e: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transfers under way in environment `e`: UEs [F], links [F, 2] and capacities [L] as the functions here read."""
    ues = np.flatnonzero((view.phase[e] != IDLE) & (view.bits_left[e] > 0.0))
    egress, ingress = view.egress_bps[e], view.ingress_bps[e]
    if view.pool:
        return ues, np.tile([0, -1], (len(ues), 1)), egress[:1]
    links = np.stack([view.server_cell[e, ues], len(egress) + view.migration_target[e, ues]], axis=-1)
    return ues, links, np.concatenate([egress, ingress])


class _Shared(ABC):
    """Reactive transfers that get the rates of a rule as weights.

    Args:
        medium: split or kv.
        bits: precision of the transferred KV.
    """

    title: str

    def __init__(self, medium: str = "split", bits: int = 16) -> None:
        require(medium in ("kv", "split"), f"medium is {medium!r}: choose kv or split")
        self.medium, self.bits = MEDIA.index(medium), checked_bits(bits)
        self.name = label(self.title, medium=(medium, "split"), bits=(bits, 16))

    def reset(self, view: NetworkView) -> None:  # noqa: B027
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        plans = reactive_plans(view, self.medium, bits=self.bits)
        crowded = ((view.phase != IDLE) & (view.bits_left > 0.0)).sum(axis=1) > 1
        for e in np.flatnonzero(crowded):
            ues, links, capacity = transfers(view, int(e))
            rates = self.rates(view, int(e), ues, links, capacity)
            # Around 1, as those of the transfers that begin within the interval.
            plans["weight"][e, ues] = rates / rates.mean()
        return plans

    @abstractmethod
    def rates(self, view: NetworkView, e: int, ues: np.ndarray, links: np.ndarray, capacity: np.ndarray) -> np.ndarray:
        """Rates of the transfers under way in environment `e`, float [F] [bit/s]."""


class WaterFilling(_Shared):
    """Transfers that end as level as possible, none earlier than its server is free and its UE reachable."""

    title = "water-filling"

    def rates(self, view, e, ues, links, capacity) -> np.ndarray:
        """Water-filling over what is left."""
        wait = prefill_pace(view)[2][e, view.migration_target[e, ues]]
        return waterfilling_rates(view.bits_left[e, ues], wait, links, capacity)


class Market(_Shared):
    """Transfers that buy their bandwidth; the budget is the root of what is left, and less for preparations.

    On one link, budgets in proportion to sqrt(bits) minimise the sum of the remaining times (ours).
    """

    title = "market"

    def rates(self, view, e, ues, links, capacity) -> np.ndarray:
        """Equilibrium of the market."""
        left = np.where(view.phase[e, ues] == INTERRUPTED, 0.0, np.minimum(view.handover_in_s[e, ues], 10.0))
        return market_rates(np.sqrt(view.bits_left[e, ues]) / (1.0 + left / _PATIENCE_S), links, capacity)
