"""How fast models run on GPUs: closed forms by hand, published rates, and that compiled code may call it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from kvroam.envs.sim import roofline
from kvroam.envs.sim.jit import kernel
from kvroam.envs.sim.params import ServingConfig
from kvroam.envs.sim.presets import GPUS, MODELS

PAGE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "make_serving.py"))


def test_weights_and_prefill_by_hand() -> None:
    assert roofline.weight_bytes(8e9, 16.0) == 16e9
    assert roofline.weight_bytes(32e9, 4.0) == 16e9
    # 2 x 10e9 operations at half of 200 TFLOP/s: 200 us.
    assert roofline.prefill_s_per_token(10e9, 200e12, 0.5) == pytest.approx(2e-4)


def test_an_iteration_reads_weights_once_and_every_cache_by_hand() -> None:
    # 16 GB and 4 caches of 1 GB at 80 % of 1 TB/s: 25 ms; and 2 ms besides.
    assert roofline.iteration_s(16e9, 4 * 1e9, 1e12, 0.8, 2e-3) == pytest.approx(27e-3)
    alone, together = (roofline.iteration_s(16e9, n * 1e9, 1e12, 0.8, 2e-3) for n in (1, 4))
    assert together - alone == pytest.approx(3e9 / 0.8e12)


def test_four_bit_weights_read_less_efficiently() -> None:
    assert roofline.decode_efficiency(16.0) == roofline.decode_efficiency(8.0) == roofline.DECODE_EFFICIENCY
    assert roofline.decode_efficiency(4.7) == roofline.DECODE_EFFICIENCY_QUANTISED < roofline.DECODE_EFFICIENCY


def test_what_the_weights_leave_is_for_caches_and_never_less_than_nothing() -> None:
    assert roofline.kv_room_bytes(80e9, 16e9) == pytest.approx(56e9)
    assert roofline.kv_room_bytes(48e9, 64e9) == 0.0


@pytest.mark.parametrize("row", PAGE["DECODE"], ids=lambda row: f"{row.what} {row.gpu}")
def test_decoding_is_as_fast_as_published(row) -> None:
    assert PAGE["decode_tokens_per_s"](row) == pytest.approx(row.tokens_per_s, rel=row.within)


@pytest.mark.parametrize("row", PAGE["PREFILL"], ids=lambda row: f"{row.what} {row.gpu}")
def test_prefill_is_as_fast_as_published(row) -> None:
    assert PAGE["prefill_tokens_per_s"](row) == pytest.approx(row.tokens_per_s, rel=row.within)


@pytest.mark.parametrize(("name", "kib"), [("qwen2.5-7b", 56), ("llama-3-8b", 128), ("qwen3-14b", 160),
                                           ("qwen3-32b", 256)])
def test_models_have_the_published_cache_and_the_shape_that_is_served(name, kib) -> None:
    model, serving = MODELS[name], ServingConfig(preset=name)
    assert model.kv_bytes_per_token == kib * 1024 == serving.kv_bits_per_token(16) / 8
    assert model[:3] == (serving.layers, serving.kv_heads, serving.head_dim)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gpu", GPUS)
def test_a_server_is_as_fast_as_the_roofline_says_unless_it_is_told_otherwise(name, gpu) -> None:
    model, device, serving = MODELS[name], GPUS[gpu], ServingConfig(preset=name, gpu=gpu)
    weights = model.parameters * model.weight_bits / 8
    bytes_per_s = roofline.decode_efficiency(model.weight_bits) * device.bandwidth_bytes_per_s
    assert 1 / serving.decode_tokens_per_s == pytest.approx(roofline.ITERATION_OVERHEAD_S + weights / bytes_per_s)
    assert serving.kv_read_s_per_token == pytest.approx(model.kv_bytes_per_token / bytes_per_s)
    assert serving.prefill_s_per_token == pytest.approx(
        2 * model.parameters / (roofline.PREFILL_EFFICIENCY * device.flops_per_s))
    assert serving.kv_room_bytes == pytest.approx(roofline.MEMORY_SHARE * device.memory_bytes - weights)
    assert ServingConfig(preset=name, gpu=gpu, decode_tokens_per_s=7.0).decode_tokens_per_s == 7.0


def test_every_model_fits_every_gpu_and_no_gpu_advertises_more_than_dense_arithmetic() -> None:
    for model in MODELS.values():
        for gpu in GPUS.values():
            weights = roofline.weight_bytes(model.parameters, model.weight_bits)
            assert roofline.kv_room_bytes(gpu.memory_bytes, weights) > 4096 * model.kv_bytes_per_token
    # The A6000 of arXiv 2608.16477 is slower than an A100 in both respects.
    assert GPUS["a6000"].flops_per_s < GPUS["a100"].flops_per_s / 2
    assert GPUS["a6000"].bandwidth_bytes_per_s < GPUS["a100"].bandwidth_bytes_per_s / 2


def test_compiled_code_can_call_it() -> None:
    @kernel
    def both(parameters, weight_bits):
        weights = roofline.weight_bytes(parameters, weight_bits)
        return roofline.iteration_s(weights, 0.0, 1e12, roofline.decode_efficiency(weight_bits), 0.0)

    assert both(8e9, 16.0) == pytest.approx(16e9 / 0.8e12)


def test_the_page_is_what_the_code_would_write() -> None:
    written = (Path(PAGE["__file__"]).parent / "serving.md").read_text(encoding="utf-8")
    assert written == PAGE["page"](), "run: python docs/make_serving.py"
