"""Edge servers: what a prefill takes, in a batch or chunk by chunk, and how fast sessions decode beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .jit import kernel
from .params import ComputeConfig, ServingConfig

IDLE_SERVER = -np.inf
RANKED_AT_ONCE = 16.0  # tokens of a prompt that are ranked in one decode iteration of its session


@kernel
def next_cycle(now_s, cycle_s):
    """The first instant of the scheduling cycle that is not before `now_s` [s]."""
    return max(now_s, math.ceil(now_s / cycle_s - 1e-9) * cycle_s)


@kernel
def prefill_time(tokens, p, speed):
    """p(L) = a L + b of a batch padded to `tokens` (arXiv 2603.28018, eq. 3), on a server of relative `speed` [s]."""
    return p.prefill_a * tokens / speed + p.prefill_b


@kernel
def chunks(tokens, p):
    """Chunks that `tokens` are cut into; fewer than one token is one chunk."""
    return max(1.0, math.ceil(tokens / p.chunk_tokens))


@kernel
def work_s(tokens, p, speed):
    """GPU time of a job that is prefilled chunk by chunk: a per token, b per chunk [s]."""
    return p.prefill_a * tokens / speed + p.prefill_b * chunks(tokens, p)


@kernel
def share_of_iteration_s(me, p):
    """What a session that decodes (a UE record) adds to each iteration of its server [s].

    Its cache is read, and its newest token is ranked; tokens of prompts are ranked a few at a time behind the stream.
    """
    ranked = 1.0 + RANKED_AT_ONCE if me.unranked > 0.0 else 1.0
    return p.kv_token_s * me.held + p.ranking * ranked * p.prefill_a


@kernel
def wire_bits(p, bits):
    """KV cache of one token on the wire at a precision of the codec table [bit]; NaN where the table has none."""
    for k in range(p.codec_bits.shape[0]):
        if p.codec_bits[k] == bits:
            return p.codec_wire_bits[k]
    return np.nan


def memory_bytes(serving: ServingConfig, compute: ComputeConfig) -> float:
    """GPU memory of a server of nominal size for KV caches [byte]."""
    return serving.kv_room_bytes if compute.kv_memory_bytes is None else compute.kv_memory_bytes


def server_params(serving: ServingConfig, compute: ComputeConfig, ranking: float = 0.0) -> dict[str, Any]:
    """SERVER_PARAMS of a model and the servers that it runs on.

    Args:
        serving: the model and its GPU.
        compute: the servers.
        ranking: tokens of prefill that a server spends to rank each token of a cache, so that it can be pruned.
    """
    return dict(
        prefill_a=serving.prefill_s_per_token, prefill_b=serving.prefill_overhead_s,
        iteration_s=1.0 / serving.decode_tokens_per_s,
        kv_token_s=serving.kv_read_s_per_token if compute.decode == "shared" else 0.0,
        restore_bps=serving.restore_bytes_per_s, attach_token_s=serving.attach_s_per_token, ranking=ranking,
        kv_bits_16=serving.kv_bits_per_token(16), cycle_s=compute.cycle_s, speed_spread=compute.speed_spread,
        decode_slowdown=compute.decode_slowdown, chunk_tokens=compute.chunk_tokens,
        memory_bytes=memory_bytes(serving, compute), memory_spread=compute.memory_spread,
        chunked=int(compute.prefill == "chunked"),
    )


def codec_values(codecs: Sequence[int], bits_per_token: Callable[[int], float]) -> dict[str, Any]:
    """The table of codecs (records.codec_params).

    Args:
        codecs: their precisions [bit].
        bits_per_token: KV cache of one token on the wire at a precision [bit].
    """
    return dict(codec_bits=codecs, codec_wire_bits=[bits_per_token(bits) for bits in codecs])
