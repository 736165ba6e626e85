"""What the world of Handover remembers: one record per UE, per cell and per environment, composed of envs.sim.records.

Arrays carry the environment as their first axis, so that environments advance side by side. `rsrp_dbm` and
`a3_since_s` are plain arrays because they have one more axis (the cell).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...sim.mobility import MapTables
from ...sim.params import PLAN_BITS
from ...sim.records import (
    CELL_CHANGE_PARAMS,
    CLOCK,
    DONE,
    LINK_PARAMS,
    LINKS,
    LOAD,
    MAP_PARAMS,
    MOTION,
    MOTION_PARAMS,
    NO_JOB,
    PROMPT,
    RADIO,
    RADIO_PARAMS,
    REQUEST,
    RUNNING,
    SERVER,
    SERVER_PARAMS,
    SESSION,
    SESSION_PARAMS,
    WAITING,
    codec_params,
)
from ...sim.streams import CONCERNS

__all__ = [
    "ANSWER",
    "ARRIVALS",
    "BACKFILLED",
    "BALANCED",
    "CANCEL",
    "CELL",
    "CONTINUE",
    "DETOUR",
    "DONE",
    "EVENT",
    "FLOW",
    "FOLLOWING",
    "FORWARD",
    "IDLE",
    "INTERRUPTED",
    "KV",
    "MEDIA",
    "MIGRATION",
    "NO_JOB",
    "OPENED",
    "PARAMS",
    "PLAN",
    "PREPARING",
    "REPAIRED",
    "REPAIRING",
    "RESUME",
    "RESUMED",
    "RUNNING",
    "SPLIT",
    "STAY",
    "TOKEN",
    "UE",
    "WAIT",
    "WAITING",
    "WORLD",
    "State",
    "Tables",
    "allocate",
]

# Phases of a session: at rest; being prepared elsewhere; out of service; resumed on a part of its cache while the rest
# follows; being rebuilt from token ids where it is. It decodes in all of them but INTERRUPTED.
IDLE, PREPARING, INTERRUPTED, FOLLOWING, REPAIRING = range(5)
# Media of a migration.
TOKEN, KV, SPLIT, DETOUR = 0, 1, 2, 3
MEDIA = ("token", "kv", "split", "detour")
# Values of Plan.target besides a cell number.
CONTINUE, CANCEL = -1, -2
# Value of Plan.handover besides a cell number.
STAY = -1
# Value of Plan.prefix besides a number of tokens.
BALANCED = -1
# Values of Plan.arrival: what to do at a handover whose preparation is not finished.
WAIT, RESUME, FORWARD = 0, 1, 2
ARRIVALS = ("wait", "resume", "forward")
# Kinds of event.
RESUMED, OPENED, BACKFILLED, REPAIRED = 1, 2, 3, 4

PLAN = np.dtype([
    ("target", "i4"),  # cell to prepare now; CONTINUE: no new preparation; CANCEL: drop the one under way
    ("medium", "i4"),  # TOKEN, KV, SPLIT or DETOUR
    ("keep", "f8"),  # share of the transferred tokens that is kept, (0, 1]
    ("bits", "i4"),  # wire precision, one of PLAN_BITS
    ("weight", "f8"),  # bandwidth weight of the transfer; 0 waits
    ("prefix", "i4"),  # SPLIT: serving tokens rebuilt from token ids; -1 balances prefill against transfer
    ("prefill_delay_s", "f8"),  # a waiting prefill job starts not earlier than this after the interval does [s]
    ("handover", "i4"),  # trigger policy: cell that the UE changes to at the start of the interval; STAY
    # Bandwidth weight of the rows that `keep` leaves out, which follow once the session has resumed. 0 when a migration
    # begins: they are dropped; 0 while they follow: they wait.
    ("backfill", "f8"),
    ("arrival", "i4"),  # at a handover whose preparation is not finished: WAIT, RESUME on what is there, or FORWARD
    ("repair", "i4"),  # 1: rebuild a cache that is not whole from token ids, at its own server, while it streams
])

# One UE: its session's move to another server. The phase says how the session stands with its user.
MIGRATION = [
    ("phase", "i4"), ("then", "i4"),  # then: phase that an interruption of the radio alone ends in; IDLE: it moves
    ("stranded", "b1"),  # its user is out of its server's reach, and no server in reach has room for it
    ("origin", "i4"), ("target", "i4"),  # cells that its cache is sent from and to
    ("medium", "i4"), ("keep", "f8"), ("bits", "i4"), ("weight", "f8"),
    ("prefix", "f8"), ("snapshot", "f8"), ("shipped", "f8"),  # serving tokens: rebuilt, at the start, accounted for
    ("density", "f8"),  # share of the context's tokens that the cache had at the start
    ("bits_left", "f8"), ("bits_sent", "f8"), ("bits_late", "f8"),  # of the transfer; late: arrived after the handover
    ("rest_bits", "f8"), ("rest_weight", "f8"),  # left out of the first part, to follow [bit]; its bandwidth weight
    ("job", "i4"), ("job_s", "f8"),  # prefill at the target, GPU time it took so far
    ("start_s", "f8"), ("job_since_s", "f8"), ("job_left_s", "f8"),  # not before; queued since; GPU time left (chunked)
    # absolute times: radio handover, the new cell serves the UE again, the session can decode again (inf: not known)
    ("handover_s", "f8"), ("reattach_s", "f8"), ("resume_s", "f8"),
    ("felt_s", "f8"),  # of this interruption, so far: time in which its user waited for tokens
    ("rlf", "b1"),  # the radio link failed in this interruption
    ("path", "i4"),  # Xn hops that the last token of this answer was forwarded over
]

UE = np.dtype([*MOTION, *RADIO, *SESSION, *REQUEST, *PROMPT, *MIGRATION], align=True)

CELL = np.dtype([*SERVER, *LINKS, *LOAD])

# events, answers: how many are valid; period: of the varying capacities.
WORLD = np.dtype([*CLOCK, ("events", "i4"), ("answers", "i4"), ("period", "i8")])

# What one step did to one UE; every field is an amount of this step.
FLOW = np.dtype([
    ("interruption_s", "f8"), ("unavoidable_s", "f8"),  # a user waits, no service; of that, what no policy can avoid
    ("late_s", "f8"), ("slow_s", "f8"),  # waiting for a first token, and for the others, beyond the objectives
    ("outage_s", "f8"),  # radio link failed, or SINR below Q_out
    ("tokens", "f8"), ("latency_s", "f8"), ("detour_s", "f8"),  # detour: delay added to streams by forwarding
    ("forwarded_bits", "f8"),  # payload of forwarded tokens, times the hops
    ("bits_sent", "f8"), ("gpu_s", "f8"), ("wasted_bits", "f8"), ("wasted_gpu_s", "f8"),
    ("prompt_tokens", "f8"), ("prompt_gpu_s", "f8"),  # read, and computed, for the users' own prompts
    ("handovers", "i4"), ("pingpongs", "i4"), ("refused", "i4"),  # refused: migrations that found no memory
    ("rlf", "i4"), ("handover_failures", "i4"),  # radio-link failures, and those among them by a lost command
])

EVENT = np.dtype([
    ("kind", "i4"), ("ue", "i4"), ("time_s", "f8"), ("context", "f8"),
    ("medium", "i4"), ("keep", "f8"), ("bits", "i4"), ("prefix", "f8"), ("snapshot", "f8"),
    ("rest", "b1"),  # the rows that `keep` leaves out may follow
    ("source", "i4"), ("target", "i4"), ("interruption_s", "f8"), ("felt_s", "f8"), ("ttft_s", "f8"),
    ("handed_over", "b1"),
    ("rlf", "b1"),  # the radio link failed in this interruption
])

# One answer that was finished in this step: its UE, when, time to first token, tokens, and time from the first of them
# to the last.
ANSWER = np.dtype([("ue", "i4"), ("time_s", "f8"), ("ttft_s", "f8"), ("tokens", "f8"), ("duration_s", "f8")])

PARAMS = np.dtype([
    *MAP_PARAMS, *MOTION_PARAMS, *RADIO_PARAMS, *CELL_CHANGE_PARAMS, *SESSION_PARAMS, *SERVER_PARAMS, *LINK_PARAMS,
    *codec_params(len(PLAN_BITS)),
])


class State(NamedTuple):
    """All that changes: E environments, U UEs, C cells."""

    ue: np.ndarray  # UE [E, U]
    cell: np.ndarray  # CELL [E, C]
    world: np.ndarray  # WORLD [E]
    keys: np.ndarray  # uint64 [E, concerns]
    rsrp_dbm: np.ndarray  # float64 [E, U, C], layer-3 filtered
    a3_since_s: np.ndarray  # float64 [E, U, C], when the entering condition began to hold; inf: it does not
    flow: np.ndarray  # FLOW [E, U], of the last step
    event: np.ndarray  # EVENT [E, M], of the last step; world.events of them are valid, in order of time
    answer: np.ndarray  # ANSWER [E, N], of the last step; world.answers of them are valid, in order of time


class Tables(NamedTuple):
    """All that does not change: the city, and the requests that sessions may follow."""

    city: MapTables
    trace: np.ndarray  # float64 [N, 2], gap before a request [s] and tokens of its answer; empty: generated sessions
    hops: np.ndarray  # int64 [C, C], Xn hops from gNB to gNB


def allocate(envs: int, ues: int, cells: int, events_per_ue: int, answers_per_ue: int) -> State:
    """An empty State for `envs` environments of `ues` UEs and `cells` cells, so many events and answers in one step."""
    return State(
        ue=np.zeros((envs, ues), UE),
        cell=np.zeros((envs, cells), CELL),
        world=np.zeros(envs, WORLD),
        keys=np.zeros((envs, len(CONCERNS)), np.uint64),
        rsrp_dbm=np.zeros((envs, ues, cells)),
        a3_since_s=np.full((envs, ues, cells), np.inf),
        flow=np.zeros((envs, ues), FLOW),
        event=np.zeros((envs, ues * events_per_ue), EVENT),
        answer=np.zeros((envs, ues * answers_per_ue), ANSWER),
    )
