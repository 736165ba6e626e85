"""What a plan may say: every field of every plan is checked once, before anything moves."""

from __future__ import annotations

import numpy as np

from ...sim.jit import kernel
from ...sim.params import PLAN_BITS
from .state import CANCEL, MEDIA, PLAN, STAY

_FIELDS = PLAN.names or ()
_TARGET, _MEDIUM, _KEEP, _BITS, _WEIGHT, _PREFIX, _DELAY, _HANDOVER = range(len(_FIELDS))
_MEDIUMS = len(MEDIA)


def check(plans: np.ndarray, cells: int, policy_trigger: bool) -> None:
    """Refuse plans that cannot be followed.

    Args:
        plans: PLAN [E, U].
        cells: number of cells; they are numbered from 0.
        policy_trigger: whether plans decide the handovers (actions.trigger is policy).

    Raises:
        ValueError: a value outside its range; the message names the first UE, the field, the value and the range.
    """
    fault = first_fault(plans, cells, policy_trigger)
    if fault < 0:
        return
    row, field = divmod(fault, len(_FIELDS))
    e, u = divmod(row, plans.shape[1])
    value = plans[e, u][_FIELDS[field]]
    at = f"the plan of ue_{u} in environment {e}: {_FIELDS[field]} is {value}"
    if field == _HANDOVER and not policy_trigger:
        raise ValueError(f"{at}, but event A3 decides: leave it at {STAY}, or set actions.trigger to policy")
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
    }[field]


@kernel
def first_fault(plans, cells, policy_trigger):
    """The first field outside its range: (its environment * U + its UE) * fields + field; -1 when there is none.

    Args:
        plans: PLAN [E, U].
        cells: number of cells.
        policy_trigger: whether plans decide the handovers.
    """
    highest = cells - 1 if policy_trigger else STAY
    for e in range(plans.shape[0]):
        for u in range(plans.shape[1]):
            it = plans[e, u]
            target, medium, bits, handover = it.target, it.medium, it.bits, it.handover
            keep, weight, delay_s = it.keep, it.weight, it.prefill_delay_s
            # In few comparisons, because it is done for every plan of every step; a sum is finite only if both are.
            if (target < CANCEL or target >= cells or medium < 0 or medium >= _MEDIUMS
                    or not (keep > 0.0 and keep <= 1.0) or it.prefix < -1 or handover < STAY or handover > highest
                    or not (weight >= 0.0 and delay_s >= 0.0 and weight + delay_s < np.inf)
                    or bits not in PLAN_BITS):
                field = _fault(it, cells, highest)
                if field >= 0:
                    return (e * plans.shape[1] + u) * len(_FIELDS) + field
    return -1


@kernel
def _fault(it, cells, highest):
    """The first field of one plan outside its range; -1 when there is none."""
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
    return _HANDOVER if not STAY <= it.handover <= highest else -1
