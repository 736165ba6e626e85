"""Handovers that the policy decides (actions.trigger: policy): at the start of the interval, as its plan says.

Event A3 is then what it is in the standard: the UE's report to the network, which decides.
"""

from __future__ import annotations

import numpy as np

from ...sim import cell_change
from ...sim.jit import kernel
from . import handovers, link_failure


@kernel
def obey(ue, plan, a3_since_s, cell, hops, p, now_s, flow):
    """Change the cell of every UE whose plan names another one than it is in; the plan's medium and cut apply.

    A UE whose radio link has failed cannot be told, and a command below Q_out is lost, as with event A3.
    """
    for u in range(ue.shape[0]):
        new_cell = plan[u].handover
        if new_cell < 0 or new_cell == ue[u].radio or ue[u].reconnect_s < np.inf:
            continue
        if ue[u].monitor_db < p.q_out_db:
            flow[u].handover_failures += 1
            link_failure.fail(ue, u, a3_since_s, p, now_s, flow)
            continue
        cell_change.forget_events(ue, u, a3_since_s)
        handovers.change_cell(ue, u, plan[u], new_cell, cell, hops, p, now_s, now_s, flow)
