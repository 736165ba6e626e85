"""The state of the world as structured arrays: one record per UE, per cell and per environment.

Arrays carry the environment as their first axis, so that environments advance side by side. `rsrp_dbm` and
`a3_since_s` are plain arrays because they have one more axis (the cell).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Phases of a session (design: idle, preparing, interrupted; `resumed` is the step from interrupted to idle).
IDLE, PREPARING, INTERRUPTED = 0, 1, 2
# Media of a migration.
TOKEN, KV, SPLIT, DETOUR = 0, 1, 2, 3
MEDIA = ("token", "kv", "split", "detour")
# A prefill job at the target.
NO_JOB, WAITING, RUNNING, DONE = 0, 1, 2, 3
# Values of Plan.target besides a cell number.
CONTINUE, CANCEL = -1, -2
# Value of Plan.handover besides a cell number.
STAY = -1
# Kinds of event.
RESUMED, OPENED = 1, 2

PLAN = np.dtype([
    ("target", "i4"),  # cell to prepare now; CONTINUE: no new preparation; CANCEL: drop the one under way
    ("medium", "i4"),  # TOKEN, KV, SPLIT or DETOUR
    ("keep", "f8"),  # share of the transferred tokens that is kept, (0, 1]
    ("bits", "i4"),  # wire precision: 16, 8 or 4
    ("weight", "f8"),  # bandwidth weight of the transfer; 0 waits
    ("prefix", "i4"),  # SPLIT: serving tokens rebuilt from token ids; -1 balances prefill against transfer
    ("hold", "f8"),  # a waiting prefill job does not start earlier than this after the start of the interval [s]
    ("handover", "i4"),  # trigger policy: cell that the UE changes to at the start of the interval; STAY
])

UE = np.dtype([
    # mobility
    ("x", "f8"), ("y", "f8"), ("vx", "f8"), ("vy", "f8"),  # [m], smoothed [m/s]
    ("speed", "f8"), ("hold_s", "f8"),  # [m/s], time until it starts to move [s]
    ("row", "i4"), ("col", "i4"), ("destination", "i4"), ("leg", "i4"), ("group", "i4"),
    ("sample", "i4"),  # of the trace that it follows
    # radio
    ("radio", "i4"), ("previous", "i4"), ("since_s", "f8"),  # serving cell, the one before, time of the last change
    ("fire_s", "f8"), ("fire_cell", "i4"), ("phase_s", "f8"),  # next A3 handover; offset of the measurement instant
    ("sinr_db", "f8"), ("air_s", "f8"),  # time on the air of one token [s]
    # radio-link failure: SINR at the monitoring load; expiry of T310 and instant of re-establishment (inf: none)
    ("monitor_db", "f8"), ("t310_s", "f8"), ("reconnect_s", "f8"), ("rlf", "b1"),  # rlf: in this interruption
    # session
    ("server", "i4"), ("session", "i4"), ("script", "i4"), ("turn", "i4"),
    ("context", "f8"), ("end", "f8"),  # serving tokens now, and where the script ends
    ("streaming", "b1"), ("left", "f8"),  # tokens left in the answer, or seconds left to think
    # the request being served: when it was made, when its answer began (inf: not yet), what it has had so far
    ("requests", "i4"), ("asked_s", "f8"), ("ttft_s", "f8"), ("answer_tokens", "f8"), ("answer_s", "f8"),
    ("opening", "b1"),  # no cache yet: the prompt is the whole context
    ("prompt", "i4"), ("prompt_tokens", "f8"), ("prompt_since_s", "f8"), ("prompt_left_s", "f8"),  # a job of its server
    ("healthy", "b1"),  # the cache is whole, as far as the scorer knows
    # migration
    ("phase", "i4"), ("target", "i4"), ("medium", "i4"), ("keep", "f8"), ("bits", "i4"), ("weight", "f8"),
    ("prefix", "f8"), ("snapshot", "f8"), ("shipped", "f8"),  # serving tokens: rebuilt, at the start, accounted for
    ("bits_left", "f8"), ("bits_sent", "f8"), ("bits_late", "f8"),  # of the transfer; late: arrived after the handover
    ("job", "i4"), ("job_s", "f8"),  # prefill at the target, GPU time it took so far
    ("start_s", "f8"), ("job_since_s", "f8"), ("job_left_s", "f8"),  # not before; queued since; GPU time left (chunked)
    # absolute times: radio handover, the new cell serves the UE again, the session can decode again (inf: not known)
    ("handover_s", "f8"), ("reattach_s", "f8"), ("resume_s", "f8"),
])

CELL = np.dtype([
    ("speed", "f8"),  # of the server, 1 = nominal
    ("egress_bps", "f8"), ("ingress_bps", "f8"),
    ("egress_nominal_bps", "f8"), ("ingress_nominal_bps", "f8"),  # what a varying capacity varies around
    ("memory_bytes", "f8"),  # of the server, for KV caches
    ("busy_until", "f8"),  # end of the running prefill batch; -inf when idle
    ("load", "f8"),  # share of the radio resources in use
])

WORLD = np.dtype([("time_s", "f8"), ("step", "i8"), ("events", "i4"), ("answers", "i4"), ("period", "i8")])

# What one step did to one UE; every field is an amount of this step.
FLOW = np.dtype([
    ("interruption_s", "f8"), ("tokens", "f8"), ("latency_s", "f8"), ("detour_s", "f8"),
    ("bits_sent", "f8"), ("gpu_s", "f8"), ("wasted_bits", "f8"), ("wasted_gpu_s", "f8"),
    ("prompt_tokens", "f8"), ("prompt_gpu_s", "f8"),  # read, and computed, for the users' own prompts
    ("handovers", "i4"), ("pingpongs", "i4"), ("refused", "i4"),  # refused: migrations that found no memory
    ("rlf", "i4"), ("handover_failures", "i4"),  # radio-link failures, and those among them by a lost command
])

EVENT = np.dtype([
    ("kind", "i4"), ("ue", "i4"), ("time_s", "f8"), ("context", "f8"),
    ("medium", "i4"), ("keep", "f8"), ("bits", "i4"), ("prefix", "f8"), ("snapshot", "f8"),
    ("source", "i4"), ("target", "i4"), ("interruption_s", "f8"), ("ttft_s", "f8"), ("handed_over", "b1"),
    ("rlf", "b1"),  # the radio link failed in this interruption
])

# One answer that was finished in this step: its UE, when, time to first token, tokens, and what they took in all.
ANSWER = np.dtype([("ue", "i4"), ("time_s", "f8"), ("ttft_s", "f8"), ("tokens", "f8"), ("duration_s", "f8")])

PARAMS = np.dtype([(name, "f8") for name in (
    "dt", "tx_power_dbm", "noise_dbm", "subcarriers_db", "bandwidth_hz", "idle_load", "load_per_ue",
    "token_payload_bits", "max_air_s", "filter_a", "measurement_noise_db", "a3_offset_db", "hysteresis_db",
    "time_to_trigger_s", "radio_interruption_s", "pingpong_window_s", "convoy_gap_s", "vehicle_low", "vehicle_high",
    "walk_low", "walk_high", "context_low", "context_high", "context_end", "context_scale", "answer_median",
    "answer_sigma", "think_s", "prefill_a", "prefill_b", "decode_rate", "restore_bps", "kv_bits_16", "kv_bits_8",
    "kv_bits_4", "cycle_s", "speed_spread", "decode_slowdown", "capacity_bps", "capacity_spread", "hop_s",
    "think_shape", "prompt_median", "prompt_sigma", "chunk_tokens", "memory_bytes", "memory_spread", "variation",
    "variation_period_s", "origin_x", "origin_y", "pitch_m", "sinr_low_db", "sinr_step_db",
    "q_out_db", "q_in_db", "t310_s", "reestablishment_s", "monitoring_load")]
    + [("chunked", "i8"), ("vehicles", "i8"), ("convoy", "i8"), ("scripts", "i8"), ("pool", "i8"),
       ("policy_trigger", "i8"), ("trace_starts", "i8")])


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
    """All that does not change: the scene and the link-level table."""

    gain_db: np.ndarray  # float32 [H, W, C]
    next_direction: np.ndarray  # uint8 [D, H, W]
    destinations: np.ndarray  # int16 [D, 2]
    efficiency: np.ndarray  # float32 [N], bit/s/Hz over a uniform SINR grid
    quantiles: np.ndarray  # float32 [65536], of the standard normal (streams.normal_quantiles)
    tracks: np.ndarray  # float64 [U, T, 2], positions from a trace at every decision instant [m]; empty without one
    trace: np.ndarray  # float64 [N, 2], gap before a request [s] and tokens of its answer; empty: generated sessions


def allocate(envs: int, ues: int, cells: int, events_per_ue: int, answers_per_ue: int) -> State:
    """An empty State for `envs` environments of `ues` UEs and `cells` cells, so many events and answers in one step."""
    return State(
        ue=np.zeros((envs, ues), UE),
        cell=np.zeros((envs, cells), CELL),
        world=np.zeros(envs, WORLD),
        keys=np.zeros((envs, 5), np.uint64),
        rsrp_dbm=np.zeros((envs, ues, cells)),
        a3_since_s=np.full((envs, ues, cells), np.inf),
        flow=np.zeros((envs, ues), FLOW),
        event=np.zeros((envs, ues * events_per_ue), EVENT),
        answer=np.zeros((envs, ues * answers_per_ue), ANSWER),
    )
