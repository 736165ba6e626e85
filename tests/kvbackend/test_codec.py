"""Payloads: exact sizes, exact round trips, layer-wise streaming, and the refusal of everything inconsistent."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvroam.errors import PayloadError
from kvroam.kvbackend.codecs import payload as codec
from kvroam.kvbackend.codecs.checksum import all_finite, xxh3
from kvroam.kvbackend.codecs.header import Expected, Header, write_text
from kvroam.kvbackend.codecs.payload import Decoder, encode, pack, split, unpack
from kvroam.kvbackend.codecs.quantise import encode_layer
from kvroam.kvbackend.codecs.table import codec as codec_of

EXPECTED = Expected("m" * 32, "t" * 32, layers=2, kv_heads=2, head_dim=8)
FORMATS = [(32, "float32"), (16, "float16"), (16, "bfloat16"), (8, "float16"), (4, "float16"), (2, "float16")]


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


def chunk(index: int, before: int, body: bytes) -> bytes:
    """A chunk as the format says, written by hand, with a checksum that fits."""
    text = struct.pack("<4sHHQQ", b"KVRM", 3, index, len(body), before) + body + bytes(-len(body) % 8)
    return text + struct.pack("<Q", xxh3(text))


def by_hand(text: bytes, positions: np.ndarray, layers: list[bytes]) -> bytes:
    """A whole payload from its parts, whatever they say."""
    body = struct.pack("<I", len(text)) + text
    body += bytes(-len(body) % 8) + np.asarray(positions, dtype="<i4").tobytes()
    blob = last = chunk(0, 0, body)
    for i, layer in enumerate(layers, 1):
        last = chunk(i, struct.unpack("<Q", last[-8:])[0], layer)
        blob += last
    return blob


def layer_bytes(kv: torch.Tensor) -> list[bytes]:
    return [kv[:, i].half().numpy().tobytes() for i in range(kv.shape[1])]


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", 0x2D06800538D394C2),
        (b"a", 0xE6C632B61E964E1F),
        (b"abc", 0x78AF5F94892F3950),
        (b"Nobody inspects the spammish repetition", 0x6CB00603B5CC47E9),
    ],
)
def test_checksum_has_the_published_values(text, digest):
    assert xxh3(text) == digest
    assert xxh3(memoryview(b"x" + text)[1:]) == digest  # not aligned


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_search_for_infinity_agrees_with_torch_number_by_number(name):
    dtype = getattr(torch, name)
    integers = torch.int16 if dtype.itemsize == 2 else torch.int32
    patterns = torch.from_numpy(np.random.default_rng(0).integers(-(2**15), 2**15, 4000))
    patterns = torch.cat([patterns, patterns << 16])[: 4000 if dtype.itemsize == 2 else None]
    extremes = torch.tensor([0.0, -0.0, torch.finfo(dtype).max, torch.finfo(dtype).tiny, np.inf, -np.inf, np.nan])
    numbers = torch.cat([patterns.to(integers).view(dtype), extremes.to(dtype)])
    bits = numbers.view(integers).numpy()
    assert [all_finite(bits[i : i + 1], name) for i in range(len(bits))] == numbers.isfinite().tolist()
    assert not all_finite(bits, name) and all_finite(bits[numbers.isfinite().numpy()], name)


@pytest.mark.parametrize("count", [1, 33])
@pytest.mark.parametrize(("bits", "dtype"), FORMATS[:3])
def test_full_precision_round_trip_is_exact(bits, dtype, count):
    positions, kv = make_rows(count)
    kv = kv.to(getattr(torch, dtype))
    header, where, back = unpack(pack(make_header(count, bits, dtype), positions, kv), EXPECTED)
    assert header == make_header(count, bits, dtype) and np.array_equal(where, positions)
    assert back.dtype == kv.dtype and torch.equal(back, kv)


@pytest.mark.parametrize(("bits", "dtype"), FORMATS)
def test_chosen_rows_travel_as_if_they_had_been_cut_out_before(bits, dtype):
    positions, kv = make_rows(60)
    rows = torch.tensor([0, 3, 4, 17, 58])
    header = make_header(5, bits, dtype)
    for source in (kv, kv.half()):
        assert pack(header, positions[rows], source, rows) == pack(header, positions[rows], source[rows].contiguous())


@pytest.mark.parametrize(("bits", "dtype"), FORMATS)
@pytest.mark.parametrize("out", [torch.float16, torch.float32])
def test_receiver_chooses_the_dtype(bits, dtype, out):
    positions, kv = make_rows(40)
    blob = pack(make_header(40, bits, dtype), positions, kv)
    back = unpack(blob, EXPECTED, out)[2]
    assert back.dtype == out and torch.equal(back, unpack(blob, EXPECTED)[2].to(out))


@pytest.mark.parametrize(("bits", "dtype"), FORMATS)
def test_memory_can_be_used_again(bits, dtype):
    positions, kv = make_rows(5)
    header = make_header(5, bits, dtype)
    used = bytearray(b"\xff" * codec.payload_bytes(header))
    codec.pack_into(used, header, positions, kv)
    assert used == pack(header, positions, kv)
    rows = torch.full((5, 2, 2, 2, 8), np.nan)
    assert unpack(used, EXPECTED, torch.float32, out=rows)[2] is rows
    assert torch.equal(rows, unpack(used, EXPECTED, torch.float32)[2])
    with pytest.raises(PayloadError, match="bytes"):
        codec.pack_into(used[:-1], header, positions, kv)
    with pytest.raises(PayloadError, match="resize"):
        unpack(used, EXPECTED, torch.float16, out=rows)


def test_bytes_are_as_documented():
    positions, kv = make_rows(7)
    header = make_header(7, 16)
    assert pack(header, positions, kv) == by_hand(write_text(header), positions, layer_bytes(kv))


@pytest.mark.parametrize(("bits", "dtype"), FORMATS)
def test_payload_is_the_concatenation_of_its_chunks(bits, dtype):
    positions, kv = make_rows(45)
    header = make_header(45, bits, dtype)
    chunks = list(encode(header, positions, kv))
    blob = pack(header, positions, kv)
    assert len(chunks) == 3 and b"".join(chunks) == blob
    assert split(blob) == chunks


@pytest.mark.parametrize(("bits", "dtype"), FORMATS)
def test_layers_can_be_used_before_the_rest_has_arrived(bits, dtype):
    positions, kv = make_rows(45)
    header = make_header(45, bits, dtype)
    expected = unpack(pack(header, positions, kv), EXPECTED)[2]
    decoder = Decoder(EXPECTED)
    for i, piece in enumerate(encode(header, positions, kv)):
        assert not decoder.complete
        with pytest.raises(PayloadError, match="ends after"):
            decoder.finish()
        assert decoder.feed(piece) == i
        if i:
            assert torch.equal(decoder.layer(i - 1), expected[:, i - 1])
        with pytest.raises(PayloadError, match=f"layer {i} has not arrived"):
            decoder.layer(i)
    assert decoder.complete and decoder.header == header and np.array_equal(decoder.positions, positions)
    assert torch.equal(decoder.finish(), expected)


def test_chunks_out_of_order_missing_repeated_or_foreign_are_refused_and_the_right_one_is_still_taken():
    header = make_header(20, 16)
    positions, kv = make_rows(20)
    other = kv.clone()
    other[:, 0] *= 2  # same header, same positions, same second layer
    chunks, foreign = list(encode(header, positions, kv)), list(encode(header, positions, other))
    assert chunks[0] == foreign[0]
    decoder = Decoder(EXPECTED)
    for right, wrong in ((0, [chunks[1]]), (1, [chunks[2], chunks[0]]), (2, [chunks[1], foreign[2], foreign[1]])):
        for piece in wrong:
            with pytest.raises(PayloadError):
                decoder.feed(piece)
        decoder.feed(chunks[right])
    with pytest.raises(PayloadError, match="follows the last"):
        decoder.feed(chunks[2])
    assert torch.equal(decoder.finish().float(), kv)


@pytest.mark.parametrize("order", [(2, 1), (1, 1), (2, 2), (0, 1), (1, 3), (1, 65535)], ids=str)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_chunk_in_the_wrong_place_is_refused_although_the_chain_of_checksums_fits(order, at_once):
    """Exchanged, repeated or misnumbered, and sealed again: only the index in the chunk tells that."""
    positions, kv = make_rows(20)
    layers = layer_bytes(kv)
    honest = by_hand(write_text(make_header(20, 16)), positions, layers)
    blob = last = bytes(split(honest)[0])
    for index in order:
        last = chunk(index, struct.unpack("<Q", last[-8:])[0], layers[index - 1 if 0 < index < 3 else 0])
        blob += last
    wrong = next(index for place, index in enumerate(order, 1) if index != place)
    with pytest.raises(PayloadError, match=f"chunk {wrong} arrived"):
        if at_once:
            unpack(blob, EXPECTED)
        else:
            decoder = Decoder(EXPECTED)
            for piece in split(blob):
                decoder.feed(piece)
    assert torch.equal(unpack(honest, EXPECTED)[2].float(), kv)


def test_bytes_between_header_and_positions_are_zero():
    """Eight payloads whose texts have every length modulo 8: whatever stands in the gap is refused."""
    positions, kv = make_rows(20)
    gaps = []
    for more in range(8):
        header = make_header(20, 16, tokens="d" * (1 + more))
        text, layers = write_text(header), layer_bytes(kv)
        body = struct.pack("<I", len(text)) + text
        gaps.append(-len(body) % 8)
        body += bytes(gaps[-1]) + positions.astype("<i4").tobytes()
        assert bytes(split(by_hand(text, positions, layers))[0]) == chunk(0, 0, body)
        if gaps[-1]:
            spoilt = body[: 3 + len(text) + gaps[-1]] + b"\1" + body[4 + len(text) + gaps[-1] :]
            with pytest.raises(PayloadError, match="cannot hold"):
                Decoder(EXPECTED).feed(chunk(0, 0, spoilt))
    assert sorted(gaps) == list(range(8))


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_range_whose_top_is_beyond_float16_is_refused_at_the_source(bits):
    """Least and step are finite numbers of float16, and what the receiver makes of the highest code is not."""
    kv = torch.zeros(3, 2, 2, 2, 8)
    kv[1, 0, 1, 1, 5] = 65000.0
    assert bool(unpack(pack(make_header(3, bits), np.arange(3), kv), EXPECTED, torch.float16)[2].isfinite().all())
    kv[1, 0, 1, 1, 5] = 65530.0
    with pytest.raises(PayloadError, match="bits = 32"):
        pack(make_header(3, bits), np.arange(3), kv)


def test_heads_may_keep_different_tokens():
    rng = np.random.default_rng(3)
    places = np.stack([np.sort(rng.choice(200, 12, replace=False)) for _ in range(4)], 1).reshape(12, 2, 2)
    places[4:6, 1, 0] = -1
    _, kv = make_rows(12)
    header = make_header(12, 16, scope="head")
    blob = pack(header, places, kv)
    assert np.array_equal(unpack(blob, EXPECTED)[1], places)
    for at, value in (((3, 0, 1), 200), ((3, 0, 1), -2), ((6, 1, 0), places[3, 1, 0]), ((0, 1, 1), 199)):
        broken = places.copy()
        broken[at] = value
        with pytest.raises(PayloadError, match="positions"):
            unpack(pack(header, broken, kv), EXPECTED)


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
def test_payload_of_a_prefix_alone_is_a_header(bits):
    blob = pack(make_header(0, bits, prefix=200), np.arange(0), torch.zeros(0, 2, 2, 2, 8))
    header, where, back = unpack(blob, EXPECTED)
    assert header.prefix == 200 and where.size == 0 and back.shape == (0, 2, 2, 2, 8)
    with pytest.raises(PayloadError, match="no tokens"):
        unpack(pack(make_header(0, bits), np.arange(0), torch.zeros(0, 2, 2, 2, 8)), EXPECTED)


@pytest.mark.parametrize("bits", [8, 4, 2])
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


@pytest.mark.parametrize(("bits", "dtype"), FORMATS)
def test_payload_size_is_what_bytes_per_token_says(bits, dtype):
    """By hand for 2 layers, 2 heads, 8 dimensions: 64 numbers a token; int4 packs them into 32 bytes."""
    scales = 2 * 2 * 4 * (1 + 8 / 32)
    expected = {32: 256, 16: 128, 8: 64 + scales, 4: 32 + scales, 2: 16 + scales}[bits] + 4
    sizes = [len(pack(make_header(n, bits, dtype), *make_rows(n))) for n in (64, 192)]
    assert codec_of(bits).wire_bits_per_token(2, 2, 8) / 8 + 4 == expected
    assert (sizes[1] - sizes[0]) / 128 == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_codes_fill_their_bytes(bits, count):
    """Odd counts of numbers leave part of the last byte unused, not more."""
    kv = torch.from_numpy(np.random.default_rng(count).standard_normal((count, 2, 1, 3)).astype(np.float32))
    codes = encode_layer(kv, bits)[4:]
    assert [len(x) for x in codes] == [-(-count * 3 * bits // 8)] * 2


def test_low_bits_follow_the_definition():
    """Codes, scales and zeros of one group by hand, with numbers that float16 holds exactly."""
    keys = torch.tensor([[0.0, 8.0], [1.0, 2.0], [3.0, -1.0]])
    values = torch.tensor([[0.0, 3.0], [-1.0, 2.0], [5.0, 5.0]])
    layer = torch.stack([keys, values], 1)[:, :, None]
    key_scale, key_zero, value_scale, value_zero, key_codes, value_codes = encode_layer(layer, 2)
    assert key_scale.flatten().tolist() == [1.0, 3.0] and key_zero.flatten().tolist() == [0.0, -1.0]
    assert value_scale.flatten().tolist() == [1.0, 1.0, 0.0] and value_zero.flatten().tolist() == [0.0, -1.0, 5.0]
    # Codes 0 3 1 1 3 0 and 0 3 0 3 0 0, in four parts of two: the first part in the lowest bits.
    assert key_codes.tolist() == [0 | 1 << 2 | 3 << 4, 3 | 1 << 2]
    assert value_codes.tolist() == [0, 3 | 3 << 2]


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
        {"dtype": "float32"},
        {"bits": 8, "dtype": "bfloat16"},
        {"count": 21},
        {"count": -1},
        {"count": True},
        {"count": 20.0},
        {"n_ctx": 10},
        {"n_ctx": -5},
        {"prefix": 150},
        {"prefix": -1},
        {"keep": "half"},
        {"keep": 0.0},
        {"keep": float("nan")},
        {"snapshot": -1},
        {"snapshot": 201},
        {"n_ctx": 2**40},
        {"scope": "head"},
        {"scope": "layer"},
    ],
)
def test_inconsistent_headers_are_refused(changes):
    positions, kv = make_rows(20)
    header = make_header(20, 16)
    assert unpack(by_hand(write_text(header), positions, layer_bytes(kv)), EXPECTED)[0] == header
    with pytest.raises(PayloadError) as caught:
        unpack(by_hand(write_text(replace(header, **changes)), positions, layer_bytes(kv)), EXPECTED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1] + b',"count":20}',
        lambda text: text.replace(b":", b": ", 1),
        lambda text: text.replace(b'"keep":0.5', b'"keep":0.50'),
        lambda text: text.replace(b'"count":20', b'"count":2e1'),
        lambda text: text[:-1] + b',"more":1}',
        lambda text: b"[" * 4000,
        lambda text: b"[" * 200_000,
        lambda text: text + b" " * 4000,
        lambda text: b'{"count":' + b"9" * 4000 + b"}",
        lambda text: b"\xff" + text,
        lambda text: b"null",
    ],
)
def test_headers_in_another_spelling_are_refused(spoil):
    positions, kv = make_rows(20)
    text = write_text(make_header(20, 16))
    assert spoil(text) != text
    with pytest.raises(PayloadError, match=r"header|JSON"):
        unpack(by_hand(spoil(text), positions, layer_bytes(kv)), EXPECTED)


def test_a_scope_is_spelt_on_the_wire_as_it_always_was():
    positions, kv = make_rows(20)
    text = write_text(make_header(20, 16))
    assert b'"scope":"token"' in text and b'"scope":"head"' in write_text(make_header(20, 16, scope="head"))
    assert unpack(by_hand(text, positions, layer_bytes(kv)), EXPECTED)[0].scope == "sequence"
    for other in (b"sequence", b"layer", b""):
        spoilt = text.replace(b'"scope":"token"', b'"scope":"' + other + b'"')
        with pytest.raises(PayloadError, match=r"scope|spelt"):
            unpack(by_hand(spoilt, positions, layer_bytes(kv)), EXPECTED)


@pytest.mark.parametrize(
    "positions",
    [[3, 2, 5], [2, 2, 5], [-1, 2, 5], [2, 5, 200], [2, 5], [2, 5, 7, 9]],
    ids=["unsorted", "repeated", "negative", "beyond n_ctx", "too few", "too many"],
)
def test_impossible_positions_are_refused(positions):
    blob = by_hand(write_text(make_header(3, 16)), np.array(positions), layer_bytes(make_rows(3)[1]))
    with pytest.raises(PayloadError, match="positions"):
        unpack(blob, EXPECTED)


@pytest.mark.parametrize("layers", [[], [0], [0, 1, 1], [0, 0, 1]], ids=str)
def test_missing_and_surplus_layers_are_refused(layers):
    positions, kv = make_rows(3)
    bodies = layer_bytes(kv)
    with pytest.raises(PayloadError, match="header implies"):
        unpack(by_hand(write_text(make_header(3, 16)), positions, [bodies[i] for i in layers]), EXPECTED)


def test_layers_of_another_size_are_refused():
    """Both lengths together are right, so that only the layers themselves tell."""
    positions, kv = make_rows(4)
    first, second = layer_bytes(kv)
    with pytest.raises(PayloadError, match="a layer has"):
        unpack(by_hand(write_text(make_header(4, 16)), positions, [first[:-8], second + bytes(8)]), EXPECTED)


def test_padding_must_be_zero():
    positions, kv = make_rows(3)
    blob = bytearray(pack(make_header(3, 4), positions, kv))
    first, middle, last = (bytearray(piece) for piece in split(blob))
    size = struct.unpack_from("<Q", first, 8)[0]
    assert size % 8, "three positions leave padding"
    first[-9] = 1
    first[-8:] = struct.pack("<Q", xxh3(first[:-8]))
    with pytest.raises(PayloadError, match="padding"):
        unpack(bytes(first + middle + last), EXPECTED)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("bits", "dtype"), FORMATS)
def test_numbers_that_are_not_finite_are_not_sent(bad, bits, dtype):
    for part in (0, 1):
        positions, kv = make_rows(40)
        kv[1, 0, part, 0, 2] = bad
        with pytest.raises(PayloadError, match="NaN"):
            pack(make_header(40, bits, dtype), positions, kv)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_received(bad):
    _, kv = make_rows(3)
    kv[1, 0, 1, 0, 2] = bad
    with pytest.raises(PayloadError, match="NaN or infinity"):
        unpack(by_hand(write_text(make_header(3, 16)), np.arange(3), layer_bytes(kv)), EXPECTED)


def test_scales_that_overflow_at_the_receiver_are_refused():
    _, kv = make_rows(3)
    for value in (np.inf, 60000.0):
        layers = []
        for i in range(2):
            parts = encode_layer(kv[:, i], 4)
            parts[0].fill_(value)
            layers.append(b"".join(x.contiguous().numpy().tobytes() for x in parts))
        with pytest.raises(PayloadError, match="NaN or infinity"):
            unpack(by_hand(write_text(make_header(3, 4)), np.arange(3), layers), EXPECTED, torch.float16)


def test_numbers_beyond_half_precision_are_refused_at_the_source():
    _, kv = make_rows(3)
    kv[0] = 1e6
    for bits in (16, 8, 4, 2):
        with pytest.raises(PayloadError, match="bits = 32"):
            pack(make_header(3, bits), np.arange(3), kv)
    assert torch.equal(unpack(pack(make_header(3, 32, "float32"), np.arange(3), kv), EXPECTED)[2], kv)


def test_other_versions_and_other_files_are_refused():
    blob = pack(make_header(3, 16), *make_rows(3))
    with pytest.raises(PayloadError, match="magic"):
        unpack(b"PK" + bytes(blob[2:]), EXPECTED)
    blob[4] = 9
    with pytest.raises(PayloadError, match="version 9"):
        unpack(blob, EXPECTED)
    with pytest.raises(PayloadError, match="too short"):
        unpack(b"", EXPECTED)
