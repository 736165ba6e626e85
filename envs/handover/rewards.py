"""What a step costs each UE: the amounts that `reward` prices, in the order of RewardConfig's terms."""

from __future__ import annotations

import numpy as np

from ..base.declare import indices
from ..sim.jit import kernel
from .config import TERMS

NAMES = tuple(term.name for term in TERMS)
_TERM = indices("Terms", NAMES)


def amounts(flow: np.ndarray, kl: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """What each UE caused in one step, float64 [E, U, len(NAMES)], in the units that the prices are per.

    Args:
        flow: FLOW [E, U], what the step did (kvroam.envs.handover.world.state).
        kl: KL divergence from the whole cache, summed over the step's tokens [E, U] [nat].
        wrong: answers that the whole cache would have got right [E, U].
    """
    out = np.empty((*kl.shape, len(NAMES)))
    write_amounts(flow.reshape(-1), kl.reshape(-1), wrong.reshape(-1), out.reshape(-1, len(NAMES)))
    return out


@kernel
def write_amounts(flow, kl, wrong, out):
    """The same for N UEs, FLOW [N], `kl` [N] and `wrong` [N], written into `out` [N, len(NAMES)]."""
    for u in range(flow.shape[0]):
        did, row = flow[u], out[u]
        row[_TERM.interruption] = did.interruption_s
        row[_TERM.late] = did.late_s
        row[_TERM.slow] = did.slow_s
        row[_TERM.outage] = did.outage_s
        row[_TERM.drift] = kl[u]
        row[_TERM.wrong] = wrong[u]
        row[_TERM.detour] = did.detour_s
        row[_TERM.traffic] = (did.bits_sent + did.forwarded_bits) / 8e9
        row[_TERM.gpu] = did.gpu_s
        row[_TERM.waste] = did.wasted_bits / 8e9 + did.wasted_gpu_s
        row[_TERM.pingpong] = did.pingpongs
