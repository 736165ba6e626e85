"""Compiled quantisation against numpy, number by number, and against torch, byte by byte."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import PayloadError
from kvroam.kvbackend import threads
from kvroam.kvbackend.codecs import quantise
from kvroam.kvbackend.codecs import quantise_kernels as kernels
from kvroam.kvbackend.codecs.header import Header
from kvroam.kvbackend.codecs.table import KEY_GROUP

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def header_of(layer: torch.Tensor, bits: int) -> Header:
    count, _, heads, dim = layer.shape
    return Header("", "", "", count, 0, count, bits, "float16", 1, heads, dim, 1.0, count)


def body_of(layer: torch.Tensor, bits: int, rows: torch.Tensor | None = None) -> tuple[bytes, bool]:
    header = header_of(layer, bits)
    header = header if rows is None else replace(header, count=len(rows), n_ctx=len(rows), snapshot=len(rows))
    body = bytearray(b"\xff" * quantise.layer_bytes(header))
    finite = quantise.write(memoryview(body), header, layer, rows)
    return bytes(body), finite


def back_from(body: bytes, layer: torch.Tensor, bits: int, dtype: torch.dtype) -> torch.Tensor:
    return quantise.read(memoryview(body), header_of(layer, bits), dtype, torch.device("cpu"), None)


def plain_numpy(layer: np.ndarray, bits: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Parts of the body and what they decode to, in float32, one range after the other, as KIVI says."""
    count, _, heads, dim = layer.shape
    top, groups = np.float32(2**bits - 1), -(-count // KEY_GROUP)
    scales, zeros = np.zeros((2, groups, heads, dim), np.float16)
    value_scales, value_zeros = np.zeros((2, count, heads), np.float16)
    codes, back = np.zeros((2, count, heads, dim), np.uint8), np.zeros_like(layer)

    def one_range(numbers):
        low, high = numbers.min() + np.float32(0.0), numbers.max()
        scale, zero = np.float16((high - low) / top), np.float16(low)
        step = np.float32(scale) if scale > 0 else np.float32(1.0)
        chosen = np.clip(np.rint((numbers - np.float32(zero)) / step), 0, top)
        return scale, zero, chosen, np.float32(zero) + chosen * np.float32(scale)

    for head in range(heads):
        for first in range(0, count, KEY_GROUP):
            for channel in range(dim):
                at = np.s_[first : first + KEY_GROUP, 0, head, channel]
                where = first // KEY_GROUP, head, channel
                scales[where], zeros[where], chosen, back[at] = one_range(layer[at])
                codes[0, first : first + KEY_GROUP, head, channel] = chosen
        for token in range(count):
            found = one_range(layer[token, 1, head])
            value_scales[token, head], value_zeros[token, head], codes[1, token, head], back[token, 1, head] = found
    size = -(-count * heads * dim * bits // 8)
    packed = np.zeros((2, size), np.uint8)
    for kind in range(2):
        for i, code in enumerate(codes[kind].reshape(-1)):
            packed[kind, i % size] |= code << (bits * (i // size))
    return [scales, zeros, value_scales, value_zeros, packed[0], packed[1]], back


def numbers_like(shape, seed: int) -> np.ndarray:
    """Normal numbers, of which some are 0, -0, equal to their neighbours, subnormal in float16, or outliers."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    kind = rng.integers(0, 12, shape)
    x[kind == 0], x[kind == 1] = 0.0, -0.0
    x[kind == 2] *= 1e-6
    x[kind == 3] *= 3000.0
    x[:, :, :, 0] = rng.choice([0.0, -0.0, 0.375, 2.0**-24])
    return x


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "heads", "dim"), [(1, 1, 3), (31, 2, 5), (32, 1, 8), (33, 3, 4), (70, 2, 24)])
def test_bytes_and_numbers_are_those_of_plain_numpy(bits, dtype, count, heads, dim):
    layer = torch.from_numpy(numbers_like((count, 2, heads, dim), count)).to(dtype)
    parts, back = plain_numpy(layer.float().numpy(), bits)
    body, finite = body_of(layer, bits)
    assert finite and body == b"".join(part.tobytes() for part in parts)
    assert torch.equal(back_from(body, layer, bits, torch.float32), torch.from_numpy(back))
    for wanted in (torch.float16, torch.bfloat16):
        assert torch.equal(back_from(body, layer, bits, wanted), torch.from_numpy(back).to(wanted))


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_makes_the_same_of_it_where_the_cache_is_on_another_device(bits, dtype):
    layer = torch.from_numpy(numbers_like((75, 2, 2, 16), 3)).to(dtype)
    parts = quantise.encode_layer(layer, bits)
    raw = torch.cat([part.reshape(-1).view(torch.uint8) for part in parts])
    body, _ = body_of(layer, bits)
    assert body == raw.numpy().tobytes()
    assert torch.equal(quantise.decode_layer(raw, 75, 2, 16, bits), back_from(body, layer, bits, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_rows_may_be_chosen_and_lie_anywhere_in_memory(dtype):
    kv = torch.from_numpy(numbers_like((50, 3, 2, 16), 1)).view(50, 3, 2, 2, 8).to(dtype)
    rows = torch.tensor([49, 0, 3, 3, 17])
    places = [kv[:, 1], kv[:, 1].transpose(2, 3).contiguous().transpose(2, 3), kv[:, 1].clone()]
    expected = body_of(kv[:, 1].index_select(0, rows), 4)
    assert all(body_of(layer, 4, rows) == expected for layer in places)
    assert body_of(kv[:1, 1].expand(5, 2, 2, 8), 4) == body_of(kv[:1, 1].repeat(5, 1, 1, 1), 4)
    for wrong in (-1, 50):
        with pytest.raises(IndexError):
            body_of(kv[:, 1], 4, torch.tensor([wrong]))


def test_memory_may_begin_at_an_odd_address_and_the_target_lie_anywhere():
    layer = torch.from_numpy(numbers_like((40, 2, 2, 8), 1)).half()
    header, (body, _) = header_of(layer, 4), body_of(layer, 4)
    shifted = memoryview(bytearray(len(body) + 1))[1:]
    assert quantise.write(shifted, header, layer, None) and shifted == body
    back = back_from(body, layer, 4, torch.float16)
    turned = torch.empty(40, 2, 8, 2, dtype=torch.float16).transpose(2, 3)
    for source, place in ((shifted, torch.empty_like(layer)), (memoryview(body), turned)):
        assert quantise.read(source, header, torch.float16, torch.device("cpu"), place) is place
        assert torch.equal(place, back)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("count", [1, 33, 100, 129])
def test_threads_do_not_change_bytes(bits, count, monkeypatch):
    monkeypatch.setattr(threads, "_LEAST", 1)
    layer = torch.from_numpy(numbers_like((count, 2, 1, 5), 0)).half()
    one = body_of(layer, bits)
    torch.set_num_threads(3)
    try:
        assert body_of(layer, bits) == one
        back = back_from(one[0], layer, bits, torch.float16)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(back, back_from(one[0], layer, bits, torch.float16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("-nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [(0, 0, 0, 0), (39, 0, 1, 7), (0, 1, 0, 3), (39, 1, 1, 7)])
def test_a_number_that_is_not_finite_is_noticed_anywhere(dtype, bad, where):
    layer = torch.from_numpy(numbers_like((40, 2, 2, 8), 2)).to(dtype)
    assert body_of(layer, 4)[1]
    layer[where] = bad
    assert not body_of(layer, 4)[1]


@pytest.mark.parametrize("wanted", DTYPES)
def test_scales_that_are_not_finite_are_refused(wanted):
    layer = torch.from_numpy(numbers_like((40, 2, 1, 8), 2)).half()
    body = bytearray(body_of(layer, 4)[0])
    scales = quantise.layer_bytes(header_of(layer, 4)) - 2 * 40 * 8 // 2
    for at in range(0, scales, 2):
        for bad in (b"\x00\x7c", b"\x00\xfc", b"\x01\x7e"):
            spoilt = bytes(body[:at]) + bad + bytes(body[at + 2 :])
            with pytest.raises(PayloadError, match="NaN or infinity"):
                back_from(spoilt, layer, 4, wanted)


def test_numbers_beyond_the_receivers_type_are_refused():
    """Scale and zero are numbers of float16, and what the highest code makes of them is not."""
    layer = torch.zeros(1, 2, 1, 2)
    body = bytearray(body_of(layer, 4)[0])
    assert len(body) == 14  # 2 scales, 2 zeros, a value's scale and zero, a byte of each code
    body[8:10], body[13] = np.float16(60000.0).tobytes(), 0x0F
    back = back_from(bytes(body), layer, 4, torch.float32)
    assert back[0, 1, 0].tolist() == [15 * 60000.0, 0.0]
    with pytest.raises(PayloadError, match="float16"):
        back_from(bytes(body), layer, 4, torch.float16)


def test_every_float16_is_converted_as_numpy_does():
    halves = np.arange(1 << 16, dtype=np.uint16)
    halves = halves[np.isfinite(halves.view(np.float16))]
    wide = halves.view(np.float16).astype(np.float32)
    assert np.array_equal(
        np.array([kernels._from_half(h) for h in halves], np.float32).view(np.uint32), wide.view(np.uint32)
    )
    # Each number, the middle to the next one, and a float32 to either side of that.
    with np.errstate(over="ignore"):
        above = np.nextafter(halves.view(np.float16), np.float16(np.inf)).astype(np.float64)
    middle = ((wide.astype(np.float64) + above) / 2)[np.isfinite(above)].astype(np.float32)
    near = [wide, middle, np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))]
    numbers = np.concatenate(near)
    numbers = numbers[np.abs(numbers) < 65520.0]
    got = np.array([kernels._to_half(x) for x in numbers], np.uint16)
    assert np.array_equal(got, numbers.astype(np.float16).view(np.uint16))
