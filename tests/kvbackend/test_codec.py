"""Payloads: exact sizes, exact round trips, and the refusal of everything malformed."""

import hashlib
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from kvroam.errors import PayloadError
from kvroam.kvbackend import codec
from kvroam.kvbackend.codec import Expected, Header, pack, unpack

EXPECTED = Expected("m" * 32, "t" * 32, layers=2, kv_heads=2, head_dim=8)
PREAMBLE = 10


def make_header(count: int, bits: int, dtype: str = "float16", **changes) -> Header:
    base = Header(
        model=EXPECTED.model, tokenizer=EXPECTED.tokenizer, tokens="d", n_ctx=200, prefix=0, count=count, bits=bits,
        dtype=dtype, layers=2, kv_heads=2, head_dim=8, keep=0.5, snapshot=200,
    )  # fmt: skip
    return replace(base, **changes)


def make_rows(count: int, seed: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(seed)
    positions = np.sort(rng.choice(200, count, replace=False))
    kv = torch.from_numpy(rng.standard_normal((count, 2, 2, 2, 8)).astype(np.float32))
    return positions, kv.half().float()


def reseal(blob: bytes) -> bytes:
    """The same bytes with a checksum that fits, as an attacker or a faulty writer would make."""
    return blob[:-32] + hashlib.sha256(blob[:-32]).digest()


def with_body(header: Header, tensors: dict[str, torch.Tensor]) -> bytes:
    text = json.dumps(header.__dict__).encode()
    blob = struct.pack("<4sHI", b"KVRM", 1, len(text)) + text + safetensors.torch.save(tensors)
    return blob + hashlib.sha256(blob).digest()


@pytest.mark.parametrize(("bits", "dtype"), [(32, "float32"), (16, "float16")])
@pytest.mark.parametrize("count", [1, 33])
def test_full_precision_round_trip_is_exact(bits, dtype, count):
    positions, kv = make_rows(count)
    header, where, back = unpack(pack(make_header(count, bits, dtype), positions, kv), EXPECTED)
    assert header.count == count and np.array_equal(where, positions)
    assert torch.equal(back.float(), kv)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_payload_of_a_prefix_alone_is_a_header(bits):
    blob = pack(make_header(0, bits, prefix=200), np.arange(0), torch.zeros(0, 2, 2, 2, 8))
    header, where, back = unpack(blob, EXPECTED)
    assert header.prefix == 200 and where.size == 0 and back.shape == (0, 2, 2, 2, 8)
    with pytest.raises(PayloadError, match="no tokens"):
        unpack(pack(make_header(0, bits), np.arange(0), torch.zeros(0, 2, 2, 2, 8)), EXPECTED)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("count", [1, 31, 32, 70])
def test_quantisation_error_is_at_most_half_a_step(bits, count):
    positions, kv = make_rows(count)
    _, _, back = unpack(pack(make_header(count, bits), positions, kv), EXPECTED)
    error = (back - kv).abs().numpy()
    keys, values = kv[:, :, 0].numpy(), kv[:, :, 1].numpy()
    # float16 scales and zeros are off by up to 2**-11 of themselves, the zero then shifts every code.
    slack = 2.0**-10 * np.abs(kv.numpy()).max() * 3
    span = values.max(-1) - values.min(-1)
    assert (error[:, :, 1] <= span[..., None] / (2**bits - 1) / 2 + slack).all()
    for start in range(0, count, 32):
        group = keys[start : start + 32]
        step = (group.max(0) - group.min(0)) / (2**bits - 1)
        assert (error[start : start + 32, :, 0] <= step / 2 + slack).all()


def test_keys_are_scaled_per_channel_and_values_per_token():
    positions, kv = make_rows(64)
    kv[:, :, 0, :, 3] *= 1000.0  # an outlier channel of the keys
    kv[5, :, 1] *= 1000.0  # an outlier token of the values
    _, _, back = unpack(pack(make_header(64, 4), positions, kv), EXPECTED)
    error = (back - kv).abs()
    assert float(error[:, :, 0, :, [0, 1, 2, 4, 5, 6, 7]].max()) < 0.5
    assert float(error[torch.arange(64) != 5, :, 1].max()) < 0.5


def test_constant_channels_survive_quantisation():
    kv = torch.full((40, 2, 2, 2, 8), 0.375)
    _, _, back = unpack(pack(make_header(40, 4), np.arange(40), kv), EXPECTED)
    assert torch.equal(back, kv)


@pytest.mark.parametrize(("bits", "dtype"), [(32, "float32"), (16, "float16"), (8, "float16"), (4, "float16")])
def test_payload_size_is_what_bytes_per_token_says(bits, dtype):
    """By hand for 2 layers, 2 heads, 8 dimensions: 64 numbers a token; int4 packs them into 32 bytes."""
    by_hand = {32: 256 + 4, 16: 128 + 4, 8: 64 + 2 * 2 * 4 * (1 + 8 / 32) + 4, 4: 32 + 2 * 2 * 4 * (1 + 8 / 32) + 4}
    sizes = [len(pack(make_header(n, bits, dtype), *make_rows(n))) for n in (64, 192)]
    assert codec.bytes_per_token(2, 2, 8, bits) == by_hand[bits]
    assert (sizes[1] - sizes[0]) / 128 == pytest.approx(by_hand[bits], abs=0.1)


def test_int4_packs_two_codes_per_byte():
    body = pack(make_header(64, 4), *make_rows(64))
    size = struct.unpack_from("<I", body, 6)[0]
    tensors = safetensors.torch.load(body[PREAMBLE + size : -32])
    assert tensors["k"].numel() == tensors["v"].numel() == 64 * 2 * 2 * 8 // 2


def test_every_flip_and_truncation_is_refused():
    blobs = [pack(make_header(20, bits, dtype), *make_rows(20))
             for bits, dtype in ((32, "float32"), (16, "float16"), (8, "float16"), (4, "float16"))]  # fmt: skip
    rng = np.random.default_rng(0)
    for i in range(4000):
        blob = bytearray(blobs[i % 4])
        if i % 3 == 0:
            broken = bytes(blob[: rng.integers(0, len(blob))])
        elif i % 3 == 1:
            blob[rng.integers(0, len(blob))] ^= 1 << int(rng.integers(0, 8))
            broken = bytes(blob)
        else:
            at = rng.integers(0, len(blob))
            broken = bytes(blob[:at]) + rng.bytes(int(rng.integers(1, 40))) + bytes(blob[at:])
        with pytest.raises(PayloadError) as caught:
            unpack(broken, EXPECTED)
        assert "\n" not in str(caught.value)


def test_altered_payloads_with_a_valid_checksum_raise_nothing_but_payload_errors():
    blobs = [pack(make_header(20, bits), *make_rows(20)) for bits in (16, 8, 4)]
    rng = np.random.default_rng(1)
    refused = 0
    for i in range(3000):
        blob = bytearray(blobs[i % 3])
        # The header and the tensor table, where structure is.
        for _ in range(int(rng.integers(1, 4))):
            blob[rng.integers(0, 700)] = rng.integers(0, 256)
        try:
            _, positions, kv = unpack(reseal(bytes(blob)), EXPECTED)
        except PayloadError:
            refused += 1
        else:
            assert (np.diff(positions) > 0).all() and bool(kv.isfinite().all())
    assert refused > 2000


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "x" * 32},
        {"tokenizer": "x" * 32},
        {"layers": 3},
        {"kv_heads": 1},
        {"head_dim": 16},
        {"bits": 5},
        {"bits": 32},
        {"dtype": "float64"},
        {"dtype": "bfloat16"},
        {"count": 21},
        {"count": -1},
        {"count": True},
        {"count": 20.0},
        {"n_ctx": 10},
        {"n_ctx": -5},
        {"prefix": 150},
        {"prefix": -1},
        {"keep": "half"},
    ],
)
def test_inconsistent_headers_are_refused(changes):
    positions, kv = make_rows(20)
    with pytest.raises(PayloadError):
        unpack(
            with_body(
                replace(make_header(20, 16), **changes), {"pos": torch.from_numpy(positions).int(), "kv": kv.half()}
            ),
            EXPECTED,
        )


@pytest.mark.parametrize(
    "positions",
    [[3, 2, 5], [2, 2, 5], [-1, 2, 5], [2, 5, 200]],
    ids=["unsorted", "repeated", "negative", "beyond n_ctx"],
)
def test_impossible_positions_are_refused(positions):
    body = {"pos": torch.tensor(positions, dtype=torch.int32), "kv": make_rows(3)[1].half()}
    with pytest.raises(PayloadError, match="positions"):
        unpack(with_body(make_header(3, 16), body), EXPECTED)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    _, kv = make_rows(3)
    kv[1, 0, 1, 0, 2] = bad
    with pytest.raises(PayloadError):
        pack(make_header(3, 16), np.arange(3), kv)
    body = {"pos": torch.arange(3, dtype=torch.int32), "kv": kv.half()}
    with pytest.raises(PayloadError, match="NaN or infinity"):
        unpack(with_body(make_header(3, 16), body), EXPECTED)


def test_numbers_beyond_half_precision_are_refused_at_the_source():
    _, kv = make_rows(3)
    kv[0] = 1e6
    for bits in (16, 8, 4):
        with pytest.raises(PayloadError, match="bits = 32"):
            pack(make_header(3, bits), np.arange(3), kv)


def test_deeply_nested_header_is_refused():
    text = b"[" * 200_000
    blob = struct.pack("<4sHI", b"KVRM", 1, len(text)) + text
    with pytest.raises(PayloadError, match="JSON"):
        unpack(blob + hashlib.sha256(blob).digest(), EXPECTED)


def test_other_versions_and_other_files_are_refused():
    blob = bytearray(pack(make_header(3, 16), *make_rows(3)))
    with pytest.raises(PayloadError, match="magic"):
        unpack(b"PK" + bytes(blob[2:]), EXPECTED)
    blob[4] = 9
    with pytest.raises(PayloadError, match="version 9"):
        unpack(reseal(bytes(blob)), EXPECTED)
    with pytest.raises(PayloadError, match="too short"):
        unpack(b"", EXPECTED)


def test_missing_and_surplus_tensors_are_refused():
    positions, kv = make_rows(3)
    body = {"pos": torch.from_numpy(positions).int(), "kv": kv.half()}
    for broken in ({"pos": body["pos"]}, body | {"extra": torch.zeros(1)}, body | {"kv": kv}):
        with pytest.raises(PayloadError, match="tensors"):
            unpack(with_body(make_header(3, 16), broken), EXPECTED)
