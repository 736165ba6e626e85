"""GPU memory of the edge servers: who fits where.

Every session reserves its full length at 16 bit from the moment it is admitted, at its server and, while it migrates,
at the target too; while the rest of its cache follows, also where that is; while it is rebuilt, once more. So a session
that was admitted never has to be evicted, and memory is never exceeded (ours; servers that reserve less must preempt).
"""

from __future__ import annotations

import numpy as np

from ...sim.jit import kernel
from .state import FOLLOWING, IDLE, INTERRUPTED, REPAIRING


@kernel
def session_bytes(p):
    """KV cache of a session at its full length, 16 bit [byte]."""
    return p.kv_bits_16 / 8.0 * p.context_scale * p.context_end


@kernel
def background(me):
    """What goes on for a session (a UE record) whether or not the radio is interrupted: a phase, IDLE when it moves."""
    return me.then if me.phase == INTERRUPTED else me.phase


@kernel
def second_server(me):
    """Server on which a session (a UE record) holds memory beside its own; -1 when there is none."""
    if me.phase == IDLE:
        return -1
    goes_on = background(me)
    if goes_on == FOLLOWING:
        return me.origin
    if goes_on == REPAIRING:
        return me.server
    return me.target if me.target != me.server else -1


@kernel
def free_bytes(ue, cell, c, p):
    """Memory of server `c` that nobody has reserved [byte]."""
    sessions = 0
    for u in range(ue.shape[0]):
        sessions += int(ue[u].server == c) + int(second_server(ue[u]) == c)
    return cell[c].memory_bytes - sessions * session_bytes(p)


@kernel
def has_room(ue, cell, c, p):
    """Whether one more session fits on server `c`."""
    return free_bytes(ue, cell, np.int64(c), p) >= session_bytes(p)


@kernel
def roomiest(ue, cell, near, hops, p):
    """The server with the most free memory among those that can forward to gNB `near`, or among all if none has room.

    The first of several.
    """
    best, most, reaches = 0, -np.inf, False
    for c in range(cell.shape[0]):
        free = free_bytes(ue, cell, c, p)
        can = hops[c, near] <= p.forwarding and free >= session_bytes(p)
        if (can and not reaches) or (can == reaches and free > most):
            best, most, reaches = c, free, can
    return best
