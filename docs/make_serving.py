"""Write docs/serving.md, how fast models run on GPUs: `python docs/make_serving.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from kvroam.commands import Command
from kvroam.envs.sim import roofline
from kvroam.envs.sim.presets import GPUS, MODELS, Gpu, Model

PAGE = Path(__file__).with_name("serving.md")
CONTEXT, SESSIONS = 4096, 16

QWEN = "https://github.com/QwenLM/Qwen2.5/blob/010c37c/docs/source/benchmark/speed_benchmark.rst"
LLAMA_CPP = "https://github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference/tree/aa72e0e"
CTHO = "https://arxiv.org/abs/2603.28018"
GPUSTACK = "https://docs.gpustack.ai/2.3/zh/performance-lab/qwen3-14b/a100/"
GPUSTACK_H100 = "https://docs.gpustack.ai/2.3/ru/performance-lab/qwen3-14b/h100/"


class Published(NamedTuple):
    """One measured rate that the formulas are held against."""

    what: str
    gpu: str
    parameters: float
    weight_bits: float
    kv_bytes: float  # resident, on average over the run [byte]
    tokens_per_s: float
    source: str
    within: float  # the relative error that the test allows [1]


# Mean bits of AWQ weights: 16 for embedding and output, 4 + 20 / 128 for the rest (presets.py).
DECODE = [
    Published("Qwen2.5-7B bf16, vLLM", "a100", 7.61e9, 16, 1024 * 57344.0, 84.28, QWEN, 0.15),
    Published("Qwen2.5-7B bf16, vLLM, after 30,720 tokens", "a100", 7.61e9, 16, 31744 * 57344.0, 70.33, QWEN, 0.15),
    Published("Qwen2.5-14B bf16, vLLM", "a100", 14.8e9, 16, 1024 * 196608.0, 46.30, QWEN, 0.15),
    Published("Llama-3-8B f16, llama.cpp", "a6000", 8.03e9, 16, 512 * 131072.0, 40.25, LLAMA_CPP, 0.15),
    Published("Llama-3-8B f16, llama.cpp", "l40s", 8.03e9, 16, 512 * 131072.0, 43.42, LLAMA_CPP, 0.15),
    Published("Qwen2.5-7B AWQ, vLLM", "a100", 7.61e9, 5.9, 1024 * 57344.0, 148.10, QWEN, 0.15),
    Published("Qwen2.5-14B AWQ, vLLM", "a100", 14.8e9, 5.4, 1024 * 196608.0, 92.66, QWEN, 0.15),
    Published("Qwen2.5-32B AWQ, vLLM", "a100", 32.8e9, 4.7, 1024 * 262144.0, 51.92, QWEN, 0.15),
    Published("Llama-3-8B Q4_K_M, llama.cpp", "a6000", 8.03e9, 4.9, 512 * 131072.0, 102.22, LLAMA_CPP, 0.25),
    Published("Llama-3-8B Q4_K_M, llama.cpp", "l40s", 8.03e9, 4.9, 512 * 131072.0, 113.60, LLAMA_CPP, 0.25),
]
PREFILL = [
    Published("Qwen2.5-7B, slope a of p(L); GPU not named", "a100", 7.6e9, 16, 0.0, 1 / 9.4267e-5, CTHO, 0.002),
    Published("Llama-3-8B f16, llama.cpp, 512 tokens", "a6000", 8.03e9, 16, 0.0, 4511.02, LLAMA_CPP, 0.15),
    Published("Qwen3-14B, vLLM server, 2,000 in and 100 out", "a100", 14.8e9, 16, 0.0, 5967.13, GPUSTACK, 0.15),
]


def decode_tokens_per_s(row: Published) -> float:
    """What the formula says about a row of DECODE."""
    return 1.0 / roofline.iteration_s(
        roofline.weight_bytes(row.parameters, row.weight_bits), row.kv_bytes, GPUS[row.gpu].bandwidth_bytes_per_s,
        roofline.decode_efficiency(row.weight_bits), roofline.ITERATION_OVERHEAD_S)


def prefill_tokens_per_s(row: Published) -> float:
    """What the formula says about a row of PREFILL."""
    return 1.0 / roofline.prefill_s_per_token(row.parameters, GPUS[row.gpu].flops_per_s, roofline.PREFILL_EFFICIENCY)


def row_of(name: str, model: Model, gpu_name: str, gpu: Gpu) -> str:
    """One row of the table of models and GPUs."""
    kv, weights = model.kv_bytes_per_token, roofline.weight_bytes(model.parameters, model.weight_bits)
    per_s = 1.0 / roofline.prefill_s_per_token(model.parameters, gpu.flops_per_s, roofline.PREFILL_EFFICIENCY)
    took = [roofline.iteration_s(weights, sessions * CONTEXT * kv, gpu.bandwidth_bytes_per_s,
                                 roofline.decode_efficiency(model.weight_bits), roofline.ITERATION_OVERHEAD_S)
            for sessions in (1, SESSIONS)]
    room = roofline.kv_room_bytes(gpu.memory_bytes, weights)
    return (f"| {name} | {gpu_name} | {kv / 1024:.0f} | {weights / 1e9:.1f} | {per_s:,.0f} | {1e3 * took[0]:.1f} | "
            f"{1e3 * took[1]:.1f} | {room / 1e9:.1f} | {int(room / (kv * CONTEXT))} |")


def _against(rows: list[Published], formula) -> list[str]:
    lines = ["| what | GPU | published [token/s] | formula [token/s] | error |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        said = formula(row)
        lines.append(f"| [{row.what}]({row.source}) | {row.gpu} | {row.tokens_per_s:,.1f} | {said:,.1f} | "
                     f"{100 * (said / row.tokens_per_s - 1):+.1f} % |")
    return lines


def page() -> str:
    """The page."""
    return "\n".join([
        "# How fast a model runs on a GPU", "",
        "Made by `python docs/make_serving.py` from `kvroam.envs.sim.presets` and `kvroam.envs.sim.roofline`.", "",
        "Writing a token reads all weights and all KV caches from memory; reading a prompt is arithmetic. So:", "",
        "- prefill, per token: `2 P / (e_F F)`, and once per batch or chunk "
        f"{1e3 * roofline.PREFILL_OVERHEAD_S:g} ms;",
        "- one decode iteration, in which each session gets one token: `overhead + (W + KV) / (e_B B)`;",
        f"- memory for KV caches: {roofline.MEMORY_SHARE:g} of the GPU's, less `W`.", "",
        "P: parameters. F: dense 16-bit operations per second on tensor cores. B: memory bandwidth. W: bytes of the",
        "weights. KV: bytes of the caches of all sessions that decode.", "",
        "The constants are ours, chosen to meet the published rates below: "
        f"`e_F` {roofline.PREFILL_EFFICIENCY:g}; `e_B` {roofline.DECODE_EFFICIENCY:g}, "
        f"with 4-bit weights {roofline.DECODE_EFFICIENCY_QUANTISED:g}; "
        f"`overhead` {1e3 * roofline.ITERATION_OVERHEAD_S:g} ms.", "",
        "## Models and GPUs", "",
        f"Iterations are with 1 and with {SESSIONS} sessions of {CONTEXT:,} tokens each; the last column is how many",
        "of these fit into memory. Whether they fit is not asked in the other columns.", "",
        f"| model | GPU | KV [KiB/token] | weights [GB] | prefill [token/s] | iteration, 1 [ms] | "
        f"iteration, {SESSIONS} [ms] | KV room [GB] | sessions |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row_of(name, model, gpu_name, gpu) for name, model in MODELS.items() for gpu_name, gpu in GPUS.items()), "",
        "| GPU | B [GB/s] | F [TFLOP/s] | memory [GB] |", "| --- | --- | --- | --- |",
        *(f"| {name} | {gpu.bandwidth_bytes_per_s / 1e9:,.0f} | {gpu.flops_per_s / 1e12:g} | "
          f"{gpu.memory_bytes / 1e9:g} |" for name, gpu in GPUS.items()), "",
        "Source: NVIDIA's data sheets of RTX A6000, L40S, A100 80 GB SXM and H100 SXM. Advertised FLOP/s with sparsity",
        "are halved.", "",
        "## Against published rates", "",
        "Decoding, one session (`tests/envs/test_roofline.py` holds every row within 15 %, those of llama.cpp at",
        "4 bit, another format than AWQ, within 25 %):", "", *_against(DECODE, decode_tokens_per_s), "",
        "Prefill (within 15 %, the first row exactly, because the constant is made from it):", "",
        *_against(PREFILL, prefill_tokens_per_s), "",
        "What this does not tell:", "",
        "- For decoding on the H100 and for prefill on the L40S we found no rate that suits: those columns are the",
        "  formula, with the efficiencies of the other GPUs. Prefill on the H100 is optimistic: a vLLM server with",
        f"  Qwen3-14B takes [10,597 token/s]({GPUSTACK_H100}) (2,000 in and 100 out).",
        "- Llama.cpp reaches 53 token/s with Llama-3-8B f16 on the A100 (SXM), far below vLLM with a model of that",
        "  size; so its rates on GPUs with HBM are not used here.",
        "- The paper behind p(L) does not name its GPU. Its slope is 161 TFLOP/s, 51.7 % of an A100: our guess.",
        "- Attention makes a prefill slower than its slope in long contexts, and a long cache is read less efficiently",
        "  than weights: compare the second row of decoding with the first.",
        "- 4-bit weights are taken to be as fast in prefill as 16-bit ones.",
        "",
    ])


def execute(args: argparse.Namespace) -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")


command = Command("python docs/make_serving.py", __doc__, lambda parser: None, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
