"""What a simulated world remembers, concern by concern: lists of fields from which it composes flat records.

A kernel works on any record that has the fields it uses, so a world takes the lists of the laws it has and adds its
own: `np.dtype([*MOTION, *RADIO])` walks, is measured and changes cell, with or without sessions. The parameters of a
world are one flat record too, composed in the same way and filled by `parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Fields = list[tuple[Any, ...]]

# A prefill job of a server.
NO_JOB, WAITING, RUNNING, DONE = 0, 1, 2, 3

# One UE: where it is, and where it goes (mobility.py).
MOTION: Fields = [
    ("x", "f8"), ("y", "f8"), ("vx", "f8"), ("vy", "f8"),  # [m], smoothed [m/s]
    ("speed", "f8"), ("departs_in_s", "f8"),  # [m/s], time until it starts to move [s]
    ("row", "i4"), ("col", "i4"), ("destination", "i4"), ("leg", "i4"), ("group", "i4"),
    ("sample", "i4"),  # of the trace that it follows
]
# One UE: its link and its next change of cell (radio.py, cell_change.py, link_monitoring.py).
RADIO: Fields = [
    ("radio", "i4"), ("previous", "i4"), ("since_s", "f8"),  # serving cell, the one before, time of the last change
    ("active", "b1"),  # something is sent to it: it takes a share of its cell, and adds to its load
    ("fire_s", "f8"), ("fire_cell", "i4"), ("phase_s", "f8"),  # next A3 handover; offset of the measurement instant
    ("sinr_db", "f8"), ("air_s", "f8"),  # time on the air of one token [s]
    # SINR at the monitoring load; expiry of T310 and instant of re-establishment (inf: none)
    ("monitor_db", "f8"), ("t310_s", "f8"), ("reconnect_s", "f8"),
]
# One UE: its LLM session (sessions.py), the request being served, and the prompt before it.
SESSION: Fields = [
    ("server", "i4"), ("session", "i4"), ("script", "i4"), ("turn", "i4"),
    ("context", "f8"), ("end", "f8"),  # serving tokens now, and where the script ends
    # what the answer still needs while it streams [tokens], and what the user still thinks while it does not [s]
    ("streaming", "b1"), ("answer_left", "f8"), ("pause_left_s", "f8"),
    ("held", "f8"),  # tokens of the context whose KV the cache has; fewer than the context after pruning
    ("unranked", "f8"),  # tokens of prompts that are not ranked yet
    ("healthy", "b1"),  # the cache is whole, as far as the scorer knows
]
REQUEST: Fields = [
    # when it was made, time to its first token (inf: not yet), and the tokens of its answer so far
    ("requests", "i4"), ("asked_s", "f8"), ("ttft_s", "f8"), ("answer_tokens", "f8"),
]
PROMPT: Fields = [
    ("opening", "b1"),  # no cache yet: the prompt is the whole context
    ("prompt", "i4"), ("prompt_tokens", "f8"), ("prompt_since_s", "f8"), ("prompt_left_s", "f8"),  # a job of its server
]

# One cell: its radio, its ends of the backhaul, its server.
LOAD: Fields = [("load", "f8")]  # share of the radio resources in use
LINKS: Fields = [
    ("egress_bps", "f8"), ("ingress_bps", "f8"),
    ("egress_nominal_bps", "f8"), ("ingress_nominal_bps", "f8"),  # what a varying capacity varies around
]
SERVER: Fields = [
    ("speed", "f8"),  # 1 = nominal
    ("memory_bytes", "f8"),  # for KV caches
    ("busy_until", "f8"),  # end of the running prefill batch; -inf when idle
]

# One environment.
CLOCK: Fields = [("time_s", "f8"), ("step", "i8")]


def _numbers(*names: str) -> Fields:
    return [(name, "f8") for name in names]


def _counts(*names: str) -> Fields:
    return [(name, "i8") for name in names]


MAP_PARAMS: Fields = _numbers("origin_x", "origin_y", "pitch_m")
MOTION_PARAMS: Fields = [
    *_numbers("dt", "convoy_gap_s", "vehicle_low", "vehicle_high", "walk_low", "walk_high"),
    *_counts("vehicles", "convoy", "trace_starts"),
]
RADIO_PARAMS: Fields = _numbers(
    "tx_power_dbm", "noise_dbm", "subcarriers_db", "bandwidth_hz", "idle_load", "load_per_ue", "token_payload_bits",
    "max_air_s", "filter_a", "measurement_noise_db", "sinr_low_db", "sinr_step_db")
CELL_CHANGE_PARAMS: Fields = [
    *_numbers("a3_offset_db", "hysteresis_db", "time_to_trigger_s", "radio_interruption_s", "pingpong_window_s",
              "q_out_db", "q_in_db", "t310_s", "reestablishment_s", "monitoring_load"),
    *_counts("policy_trigger"),  # 1: event A3 is a report, and somebody else decides
]
SESSION_PARAMS: Fields = [
    *_numbers("context_low", "context_high", "context_end", "context_scale", "answer_median", "answer_sigma",
              "prompt_median", "prompt_sigma", "think_s", "think_shape", "ttft_objective_s", "tpot_objective_s"),
    *_counts("scripts"),
]
SERVER_PARAMS: Fields = [
    # iteration_s: one decode iteration with no cache resident; kv_token_s: what each resident token adds to it;
    # ranking: tokens of prefill that a server spends on ranking every token that it reads or writes
    *_numbers("prefill_a", "prefill_b", "iteration_s", "kv_token_s", "restore_bps", "attach_token_s", "kv_bits_16",
              "ranking", "cycle_s", "speed_spread", "decode_slowdown", "chunk_tokens", "memory_bytes", "memory_spread"),
    *_counts("chunked"),
]
LINK_PARAMS: Fields = [
    *_numbers("capacity_bps", "capacity_spread", "hop_s", "variation", "variation_period_s"),
    *_counts("pool", "forwarding"),  # forwarding: most Xn hops that tokens are forwarded over
]


def codec_params(codecs: int) -> Fields:
    """Fields of a table of `codecs` ways to send a KV cache: precision [bit], and one token on the wire [bit]."""
    return [("codec_bits", "i8", (codecs,)), ("codec_wire_bits", "f8", (codecs,))]


def parameters(dtype: np.dtype, *concerns: Mapping[str, Any]) -> np.ndarray:
    """One record of parameters from the values of each concern, `dtype` [1].

    Raises:
        ValueError: a field without a value, or with two, or a value without a field.
    """
    names = [name for values in concerns for name in values]
    if sorted(names) != sorted(dtype.names or ()):
        raise ValueError(f"parameters {sorted(names)} do not fill the fields {sorted(dtype.names or ())}: "
                         "give every field one value")
    record = np.zeros(1, dtype)
    for values in concerns:
        for name, value in values.items():
            record[name] = value
    return record
