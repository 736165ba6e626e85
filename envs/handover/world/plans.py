"""What a plan may say: every field of every plan is checked once, before anything moves."""

from __future__ import annotations

import numpy as np

from ...sim.jit import kernel
from ...sim.params import PLAN_BITS
from .state import ARRIVALS, CANCEL, MEDIA, PLAN, STAY

_FIELDS = PLAN.names or ()
_TARGET, _MEDIUM, _KEEP, _BITS, _WEIGHT, _PREFIX, _DELAY, _HANDOVER, _BACKFILL, _ARRIVAL, _REPAIR = range(len(_FIELDS))
_MEDIUMS, _ARRIVALS = len(MEDIA), len(ARRIVALS)


def check(plans: np.ndarray, cells: int, policy_trigger: bool, ue: np.ndarray) -> None:
    """Refuse plans that cannot be followed.

    Args:
        plans: PLAN [E, U].
        cells: number of cells; they are numbered from 0.
        policy_trigger: whether plans decide the handovers (actions.trigger is policy).
        ue: the sessions that they are for, UE [E, U].

    Raises:
        ValueError: a value outside its range, or the repair of a cache that is whole; the message names the first UE,
            the field, the value and the range.
    """
    fault = first_fault(plans, cells, policy_trigger, ue)
    if fault < 0:
        return
    row, field = divmod(fault, len(_FIELDS))
    e, u = divmod(row, plans.shape[1])
    value = plans[e, u][_FIELDS[field]]
    at = f"the plan of ue_{u} in environment {e}: {_FIELDS[field]} is {value}"
    if field == _HANDOVER and not policy_trigger:
        raise ValueError(f"{at}, but event A3 decides: leave it at {STAY}, or set actions.trigger to policy")
    if field == _REPAIR and value == 1:
        raise ValueError(f"{at}, but its cache is whole: there is nothing to rebuild; leave it at 0")
    raise ValueError(f"{at}: it must {_range(field, cells)}")


def _range(field: int, cells: int) -> str:
    """What the values of a field must do."""
    numbered = f"lie in [{{}}, {cells - 1}] (the {cells} cells are numbered from 0)"
    return {
        _TARGET: numbered.format(CANCEL),
        _MEDIUM: f"lie in [0, {_MEDIUMS - 1}] ({', '.join(MEDIA)})",
        _KEEP: "lie in (0, 1]",
        _BITS: f"be one of {', '.join(map(str, PLAN_BITS))}",
        _WEIGHT: "be finite and not negative",
        _PREFIX: "be at least -1 (-1 balances prefill and transfer)",
        _DELAY: "be finite and not negative",
        _HANDOVER: numbered.format(STAY),
        _BACKFILL: "be finite and not negative (0: what keep leaves out does not follow)",
        _ARRIVAL: f"lie in [0, {_ARRIVALS - 1}] ({', '.join(ARRIVALS)})",
        _REPAIR: "be 0 or 1",
    }[field]


@kernel
def first_fault(plans, cells, policy_trigger, ue):
    """The first field outside its range: (its environment * U + its UE) * fields + field; -1 when there is none.

    Args:
        plans: PLAN [E, U].
        cells: number of cells.
        policy_trigger: whether plans decide the handovers.
        ue: the sessions that they are for, UE [E, U].
    """
    highest = cells - 1 if policy_trigger else STAY
    for e in range(plans.shape[0]):
        for u in range(plans.shape[1]):
            it = plans[e, u]
            target, medium, bits, handover = it.target, it.medium, it.bits, it.handover
            keep, weight, delay_s, backfill = it.keep, it.weight, it.prefill_delay_s, it.backfill
            # In few comparisons, because it is done for every plan of every step; a sum is finite only if both are.
            if (target < CANCEL or target >= cells or medium < 0 or medium >= _MEDIUMS
                    or not (keep > 0.0 and keep <= 1.0) or it.prefix < -1 or handover < STAY or handover > highest
                    or not (weight >= 0.0 and delay_s >= 0.0 and backfill >= 0.0)
                    or not weight + delay_s + backfill < np.inf
                    or bits not in PLAN_BITS or it.arrival < 0 or it.arrival >= _ARRIVALS or it.repair < 0
                    or it.repair > (0 if ue[e, u].healthy else 1)):
                field = _fault(it, cells, highest, ue[e, u].healthy)
                if field >= 0:
                    return (e * plans.shape[1] + u) * len(_FIELDS) + field
    return -1


@kernel
def _fault(it, cells, highest, healthy):
    """The first field of one plan outside its range, for a session whose cache is `healthy` or not; -1: none."""
    if not CANCEL <= it.target < cells:
        return _TARGET
    if not 0 <= it.medium < _MEDIUMS:
        return _MEDIUM
    if not 0.0 < it.keep <= 1.0:
        return _KEEP
    if it.bits not in PLAN_BITS:
        return _BITS
    if not 0.0 <= it.weight < np.inf:
        return _WEIGHT
    if it.prefix < -1:
        return _PREFIX
    if not 0.0 <= it.prefill_delay_s < np.inf:
        return _DELAY
    if not STAY <= it.handover <= highest:
        return _HANDOVER
    if not 0.0 <= it.backfill < np.inf:
        return _BACKFILL
    if not 0 <= it.arrival < _ARRIVALS:
        return _ARRIVAL
    return -1 if 0 <= it.repair <= (0 if healthy else 1) else _REPAIR
