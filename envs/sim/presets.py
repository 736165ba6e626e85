"""Language models that an edge server may serve, and the GPUs that it may have: published numbers."""

from __future__ import annotations

from typing import NamedTuple


class Model(NamedTuple):
    """The shape of one served model; its speed on a GPU follows from it (roofline.py)."""

    layers: int
    kv_heads: int
    head_dim: int
    parameters: float  # all of them, embeddings included [1]
    weight_bits: float  # of one weight in GPU memory, on average [bit]

    @property
    def kv_bytes_per_token(self) -> float:
        """The 16-bit KV cache of one token in GPU memory [byte] (arXiv 2603.28018, eq. 1)."""
        return 2.0 * self.layers * self.kv_heads * self.head_dim * 2.0


# Shapes and parameters: the models' published config.json and cards. Qwen3-32B is served with 4-bit weights (AWQ), as
# in arXiv 2608.16477, and its cache of 256 KiB per token is the one stated there. Its 4.7 bit: AWQ keeps a 16-bit scale
# and a 4-bit zero point for every 128 weights, and leaves the 1.56e9 weights of embedding and output at 16 bit.
MODELS: dict[str, Model] = {
    "qwen2.5-7b": Model(28, 4, 128, 7.6e9, 16.0),
    "llama-3-8b": Model(32, 8, 128, 8.0e9, 16.0),
    "qwen3-14b": Model(40, 8, 128, 14.8e9, 16.0),
    "qwen3-32b": Model(64, 8, 128, 32.8e9, 4.7),
}


class Gpu(NamedTuple):
    """What the maker of a GPU publishes about it."""

    bandwidth_bytes_per_s: float  # of its memory [byte/s]
    flops_per_s: float  # fp16 or bf16 on tensor cores, dense: half of what is advertised with sparsity [1/s]
    memory_bytes: float  # [byte]


# NVIDIA's data sheets: RTX A6000, L40S, A100 80 GB SXM, H100 SXM.
GPUS: dict[str, Gpu] = {
    "a6000": Gpu(768e9, 154.8e12, 48e9),
    "l40s": Gpu(864e9, 362e12, 48e9),
    "a100": Gpu(2039e9, 312e12, 80e9),
    "h100": Gpu(3350e9, 989e12, 80e9),
}
