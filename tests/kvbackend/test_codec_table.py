"""The codec table: what it says is what payloads hold, and a new row is all that a new width needs."""

import copy
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kvroam.envs.sim.params import ServingConfig
from kvroam.envs.sim.presets import MODELS
from kvroam.errors import ConfigError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.codecs import packing, quantise, table
from kvroam.kvbackend.codecs.table import CODECS, Codec, codec

from .plain import PLAIN


def test_rows_are_those_that_were_published():
    assert [row.bits for row in CODECS] == [32, 16, 8, 4, 2]
    assert [row.name for row in CODECS] == ["fp32", "fp16", "int8", "int4", "int2"]
    assert [row.bits for row in CODECS if row.lossless] == [32, 16]
    assert [row.bits for row in CODECS if row.in_plans] == [16, 8, 4]
    assert all(codec(row.bits) is row and row.description for row in CODECS)


@pytest.mark.parametrize("bits", [0, 3, -16, 64, float("nan"), None, "16"])
def test_unknown_widths_are_refused_with_the_choices(bits):
    with pytest.raises(ValueError, match=f"bits = {bits} .*32, 16, 8, 4, 2"):
        codec(bits)
    with pytest.raises(ConfigError, match="32, 16, 8, 4, 2"):
        TransferPlan(bits=bits)


@pytest.mark.parametrize(("bits", "expected"), [(32, 917504), (16, 458752), (8, 247296), (4, 132608), (2, 75264)])
def test_bits_of_a_token_of_qwen_7b_by_hand(bits, expected):
    """28 layers, 4 KV heads, 128 dimensions: 28,672 numbers; 112 heads with 32 + 128 bits of scales below 16 bits."""
    assert codec(bits).wire_bits_per_token(28, 4, 128) == expected


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("preset", list(MODELS))
def test_the_simulator_counts_the_same_bits(preset, bits):
    serving = ServingConfig(preset=preset)
    shape = serving.layers, serving.kv_heads, serving.head_dim
    assert codec(bits).wire_bits_per_token(*shape) == serving.kv_bits_per_token(bits)


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2])
def test_a_long_payload_grows_by_the_bits_that_the_table_says(model, bits):
    """Positions take four bytes more; counts are multiples of 64, so that no group of scales is cut."""
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    session = backend.open(np.arange(400), 384)
    sizes = [len(backend.encode(session, TransferPlan(bits=bits, budget_tokens=count))) for count in (64, 320)]
    shape = backend.llm.geometry
    said = codec(bits).wire_bits_per_token(shape.layers, shape.kv_heads, shape.head_dim) / 8 + 4
    assert abs((sizes[1] - sizes[0]) / 256 - said) < 8 * (1 + shape.layers) / 256
    assert backend.bytes_per_token(bits) == said


@pytest.mark.parametrize(("bits", "back"), [(row.bits, row.lossless) for row in CODECS])
def test_lossless_means_that_a_served_cache_comes_back(model, tokens, bits, back):
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    session = backend.open(tokens, 100)
    assert backend.migrate([session], [TransferPlan(bits=bits)])[0].whole == back


def test_the_table_needs_neither_torch_nor_numpy():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'numpy', 'transformers')))"
    )
    path = str(Path(table.__file__))
    assert subprocess.run([sys.executable, "-I", "-c", code, path], check=False).returncode == 0


def round_trip(backend, tokens, bits):
    """A handover of everything at this width, and its payload's size; the cache before and after."""
    session = backend.open(tokens, 128)
    before = session.kv.clone()
    payload = backend.encode(session, TransferPlan(bits=bits))
    restored = backend.restore(payload, session.reference)
    return before.float(), restored.kv.float(), len(payload)


def test_a_row_is_all_that_a_width_of_a_known_packing_needs(model, tokens, monkeypatch):
    """One bit: each number becomes the least or the greatest of its group, whichever is closer."""
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN)
    with pytest.raises(ConfigError, match="bits = 1"):
        TransferPlan(bits=1)
    row = Codec(1, "int1", "one bit", "kivi", ("float16",), head_bits=32.0, channel_bits=1.0)
    monkeypatch.setattr(table, "CODECS", (*CODECS, row))
    before, after, size = round_trip(backend, tokens, 1)
    shape = backend.llm.geometry
    assert size == pytest.approx(128 * (row.wire_bits_per_token(shape.layers, shape.kv_heads, shape.head_dim) / 8 + 4),
                                 abs=600)  # fmt: skip
    values = before[:, :, 1].numpy()
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    closer = np.where(values - low < high - values, low, high)
    undecided = np.abs(values - (low + high) / 2) < 1e-2
    assert np.abs(np.where(undecided, 0.0, after[:, :, 1].numpy() - closer)).max() < 1e-2


def test_a_new_packing_is_a_pair_of_functions(model, tokens, monkeypatch):
    """24 bits: float32 without its lowest byte."""

    def write(body, header, layer, rows):
        sent = (layer if rows is None else layer.index_select(0, rows)).float().reshape(-1).tolist()
        body[:] = b"".join(struct.pack("<f", number)[1:] for number in sent)
        return True

    def read(body, header, wanted, device, place):
        pieces = (bytes(body[i : i + 3]) for i in range(0, len(body), 3))
        numbers = torch.tensor([struct.unpack("<f", b"\0" + piece)[0] for piece in pieces])
        layer = numbers.view(header.count, 2, header.kv_heads, header.head_dim).to(wanted)
        return layer if place is None else place.copy_(layer)

    row = Codec(24, "fp24", "three bytes", "three", ("float32",))
    monkeypatch.setattr(table, "CODECS", (*CODECS, row))

    def size_of(header):
        return header.count * 6 * header.kv_heads * header.head_dim

    monkeypatch.setitem(packing.PACKINGS, "three", packing.Packing(size_of, quantise.dtype, write, read))
    backend = KVBackend(copy.deepcopy(model), settings=PLAIN, cache_dtype=torch.float32)
    before, after, size = round_trip(backend, tokens, 24)
    assert 128 * backend.bytes_per_token(24) < size < 128 * backend.bytes_per_token(24) + 600
    cut = (before.numpy().view(np.int32) & ~0xFF).view(np.float32)
    assert np.array_equal(after.numpy(), cut) and not torch.equal(before, after)
