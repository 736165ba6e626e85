"""How fast a model runs on a GPU: a prefill is bound by arithmetic, a decode iteration by reading memory.

The roofline model (Williams, Waterman, Patterson, 2009) with constant efficiencies. They are ours: chosen so that
published rates are met. docs/serving.md shows how well, and `python docs/make_serving.py` makes that page.
"""

from __future__ import annotations

from .jit import kernel

# Share of its arithmetic that a GPU reaches in a prefill [1]. p(L) of arXiv 2603.28018 for Qwen2.5-7B has
# a = 9.4267e-5 s per token: 2 x 7.6e9 / a = 161 TFLOP/s, which is 51.7 % of an A100. The paper does not name its GPU.
PREFILL_EFFICIENCY = 0.517
PREFILL_OVERHEAD_S = 2.4e-3  # b of the same p(L) [s]
# Share of its bandwidth that a GPU reaches in a decode iteration, and what an iteration takes besides [1], [s].
DECODE_EFFICIENCY = 0.8
DECODE_EFFICIENCY_QUANTISED = 0.6  # kernels that must unpack 4-bit weights are slower
ITERATION_OVERHEAD_S = 2e-3
# Share of its memory that a server uses, as vLLM by default [1]. What the weights leave of it is for KV caches.
MEMORY_SHARE = 0.9


@kernel
def weight_bytes(parameters, weight_bits):
    """Bytes of a model's weights in GPU memory, `weight_bits` each on average [byte]."""
    return parameters * weight_bits / 8.0


@kernel
def prefill_s_per_token(parameters, flops_per_s, efficiency):
    """What a prefill takes for every token: 2 operations per parameter [s].

    Attention itself is left out: in a context of n tokens it adds 2 n x layers x width operations per token on average,
    for Qwen2.5-7B 1 % at 1,000 tokens and 5 % at 4,000.
    """
    return 2.0 * parameters / (efficiency * flops_per_s)


@kernel
def iteration_s(weight_bytes, resident_kv_bytes, bandwidth_bytes_per_s, efficiency, overhead_s):
    """One decode iteration, in which every session that decodes gets one token [s].

    It reads all weights once, whatever the number of sessions, and the whole KV cache of each of them. Bound by
    memory: that holds as long as far fewer sessions decode than flops_per_s / bandwidth_bytes_per_s.

    Args:
        weight_bytes: of the model [byte].
        resident_kv_bytes: of all sessions that decode in this iteration [byte].
        bandwidth_bytes_per_s: of the GPU's memory [byte/s].
        efficiency: share of it that is reached [1].
        overhead_s: what an iteration takes besides: launches, sampling, scheduling [s].
    """
    return overhead_s + (weight_bytes + resident_kv_bytes) / (efficiency * bandwidth_bytes_per_s)


@kernel
def decode_efficiency(weight_bits):
    """The share of its bandwidth that a GPU reaches in a decode iteration with weights of so many bits [1]."""
    return DECODE_EFFICIENCY if weight_bits >= 8.0 else DECODE_EFFICIENCY_QUANTISED


@kernel
def kv_room_bytes(memory_bytes, weight_bytes):
    """GPU memory that is left for KV caches; 0 where not even the weights fit [byte]."""
    return max(0.0, MEMORY_SHARE * memory_bytes - weight_bytes)
