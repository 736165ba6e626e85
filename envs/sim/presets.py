"""Language models that an edge server may serve: published shapes, and speeds that are measured or estimated."""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """One served model: its KV cache and its speed on one data-centre GPU."""

    layers: int
    kv_heads: int
    head_dim: int
    prefill_s_per_token: float  # a of p(L) = a L + b [s]
    prefill_overhead_s: float  # b of p(L) = a L + b [s]
    decode_tokens_per_s: float  # one session, undisturbed [token/s]


# Qwen2.5-7B-Instruct: layers, heads and p(L) from arXiv 2603.28018, section V; 7.6e9 parameters; decode rate ours.
_MEASURED = Preset(28, 4, 128, 9.4267e-5, 2.4e-3, 30.0)
_MEASURED_PARAMETERS, _MEASURED_BITS = 7.6e9, 16


def _estimate(layers: int, kv_heads: int, head_dim: int, parameters: float, weight_bits: int = 16) -> Preset:
    """A model of which only the shape is published: its speeds are our estimate from those of Qwen2.5-7B.

    Prefill is bound by arithmetic, so a grows with the parameters; decoding is bound by reading the weights, so the
    rate falls with their bytes; b is the same.
    """
    size = parameters / _MEASURED_PARAMETERS
    return _MEASURED._replace(
        layers=layers, kv_heads=kv_heads, head_dim=head_dim,
        prefill_s_per_token=_MEASURED.prefill_s_per_token * size,
        decode_tokens_per_s=_MEASURED.decode_tokens_per_s / (size * weight_bits / _MEASURED_BITS))


# Shapes and parameters: the models' published config.json and cards. Qwen3-32B is served with 4-bit weights (AWQ), as
# in arXiv 2608.16477; its cache of 256 KiB per token is the one stated there.
PRESETS: dict[str, Preset] = {
    "qwen2.5-7b": _MEASURED,
    "llama-3-8b": _estimate(32, 8, 128, 8.0e9),
    "qwen3-14b": _estimate(40, 8, 128, 14.8e9),
    "qwen3-32b": _estimate(64, 8, 128, 32.8e9, weight_bits=4),
}
