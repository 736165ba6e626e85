"""GPU memory of the edge servers: who fits where.

Every session reserves its full length at 16 bit from the moment it is admitted, at its server and, while it migrates,
at the target too. So a session that was admitted never has to be evicted, and memory is never exceeded (ours; servers
that reserve less must preempt).
"""

from __future__ import annotations

import numpy as np

from ...sim.jit import kernel
from .state import IDLE


@kernel
def session_bytes(p):
    """KV cache of a session at its full length, 16 bit [byte]."""
    return p.kv_bits_16 / 8.0 * p.context_scale * p.context_end


@kernel
def free_bytes(ue, cell, c, p):
    """Memory of server `c` that nobody has reserved [byte]."""
    sessions = 0
    for u in range(ue.shape[0]):
        if ue[u].server == c or (ue[u].phase != IDLE and ue[u].target == c):
            sessions += 1
    return cell[c].memory_bytes - sessions * session_bytes(p)


@kernel
def has_room(ue, cell, c, p):
    """Whether one more session fits on server `c`."""
    return free_bytes(ue, cell, np.int64(c), p) >= session_bytes(p)


@kernel
def roomiest(ue, cell, p):
    """The server with the most free memory; the first of several."""
    best, most = 0, -np.inf
    for c in range(cell.shape[0]):
        free = free_bytes(ue, cell, c, p)
        if free > most:
            best, most = c, free
    return best
