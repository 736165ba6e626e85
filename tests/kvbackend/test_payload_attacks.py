"""Damaged and forged payloads by the hundred thousand: none is taken for another, none crashes, none eats memory."""

import json
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.errors import PayloadError
from kvroam.kvbackend.codecs.header import Expected, Header, write_text
from kvroam.kvbackend.codecs.payload import Decoder, pack, split, unpack

from .test_codec import FORMATS, by_hand

SHAPE = dict(layers=2, kv_heads=1, head_dim=4)
EXPECTED = Expected("m", "t", **SHAPE)
N_CTX = 60


def make(rng: np.random.Generator, bits: int, dtype: str, count: int, **said: str) -> bytes:
    positions = np.sort(rng.choice(N_CTX, count, replace=False))
    kv = torch.from_numpy(rng.standard_normal((count, 2, 2, 1, 4)).astype(np.float32))
    header = Header("m", "t", "d", N_CTX, 0, count, bits, dtype, 2, 1, 4, 0.5, N_CTX, **said)
    return bytes(pack(header, positions, kv))


def payloads() -> list[bytes]:
    rng = np.random.default_rng(0)
    alone = [make(rng, bits, dtype, count) for bits, dtype in FORMATS for count in (1, 5, 33)]
    return [*alone, make(rng, 16, "float16", 9, rest="0a" * 16), make(rng, 8, "float16", 9, completes="0a" * 8)]


def truncate(rng, blob, others):
    return blob[: rng.integers(len(blob))]


def flip(rng, blob, others):
    out = bytearray(blob)
    for _ in range(rng.integers(1, 4)):
        out[rng.integers(len(out))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def overwrite(rng, blob, others):
    at, size = rng.integers(len(blob)), int(rng.integers(1, 33))
    return blob[:at] + rng.bytes(size) + blob[at + size :]


def insert(rng, blob, others):
    at = rng.integers(len(blob) + 1)
    return blob[:at] + rng.bytes(int(rng.integers(1, 33))) + blob[at:]


def cut_out(rng, blob, others):
    a, b = sorted(rng.integers(len(blob) + 1, size=2))
    return blob[:a] + blob[b:]


def exchange(rng, blob, others):
    """Two stretches of 8 bytes change places, whole words as in a buffer that was put together wrongly."""
    a, b = (8 * int(x) for x in rng.integers(len(blob) // 8, size=2))
    out = bytearray(blob)
    out[a : a + 8], out[b : b + 8] = out[b : b + 8], out[a : a + 8]
    return bytes(out)


def shuffle_chunks(rng, blob, others):
    chunks = split(blob)
    picked = rng.integers(len(chunks), size=int(rng.integers(1, 5)))
    return b"".join(chunks[i] for i in picked)


def mix_chunks(rng, blob, others):
    chunks = split(blob)
    stranger = split(others[rng.integers(len(others))])
    chunks[rng.integers(len(chunks))] = stranger[rng.integers(len(stranger))]
    return b"".join(chunks)


def splice(rng, blob, others):
    other = others[rng.integers(len(others))]
    return blob[: rng.integers(len(blob) + 1)] + other[rng.integers(len(other) + 1) :]


DAMAGES = [truncate, flip, overwrite, insert, cut_out, exchange, shuffle_chunks, mix_chunks, splice]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damage_is_refused_twelve_thousand_times(damage):
    """Nine kinds: 108,000 damaged payloads together."""
    rng = np.random.default_rng(len(damage.__name__))
    honest = payloads()
    accepted = refused = 0
    while refused < 12_000 and not accepted:
        broken = damage(rng, honest[refused % len(honest)], honest)
        if broken in honest:
            continue
        try:
            unpack(broken, EXPECTED)
            accepted += 1
        except PayloadError as error:
            refused += 1
            assert "\n" not in str(error)
    assert (accepted, refused) == (0, 12_000)


LIES = {
    "model": ["", "M", 5, None, "m" * 1000],
    "tokenizer": ["", "T", 5, []],
    "tokens": [None, 3, ["d"]],
    "n_ctx": [-1, 0, 3, 2**31, 2**63, 10**300, 60.0, "60", True],
    "prefix": [-1, 60, 61, 2**62, None, 0.0],
    "count": [-1, -5, 0, 4, 6, 60, 61, 2**31 - 1, 2**40, 10**18, 5.0, "5", True, None],
    "bits": [-16, 0, 1, 3, 64, 2**31, "16", None, 32.0],
    "dtype": ["float64", "int8", "", None, 16, "float"],
    "layers": [-2, 0, 1, 3, 10**6, 2**62, 2.0],
    "kv_heads": [-1, 0, 2, 10**9, True],
    "head_dim": [-4, 0, 1, 8, 2**40, "4"],
    "keep": [0, -0.5, 1.5, 1e308, None, "1", True],
    "snapshot": [-1, 61, 2**70, 0.5, None],
    "scope": ["head", "", None, 1],
    "rest": ["", "0" * 31, "0" * 33, "g" * 32, "A" * 32, 5, None, ["0" * 32]],
    "completes": ["", "0" * 15, "0" * 17, "-" * 16, "F" * 16, 0, None, True],
}


def forged(rng: np.random.Generator, blob: bytes) -> bytes:
    """A payload whose checksums fit and whose contents contradict each other or the receiver."""
    first, *rest = (bytes(piece) for piece in split(blob))
    body = first[24 : 24 + struct.unpack_from("<Q", first, 8)[0]]
    size = struct.unpack_from("<I", body)[0]
    said, positions = json.loads(body[4 : 4 + size]), np.frombuffer(body[-(-(4 + size) // 8) * 8 :], "<i4").copy()
    layers = [piece[24 : 24 + struct.unpack_from("<Q", piece, 8)[0]] for piece in rest]
    kind = rng.integers(6)
    if kind <= 1:
        for name in rng.choice(list(LIES), size=kind + 1, replace=False):
            options = [x for x in LIES[name] if type(x) is not type(said.get(name)) or x != said.get(name)]
            said[name] = options[rng.integers(len(options))]
    elif kind == 2:
        i = int(rng.integers(len(positions)))
        positions[i] = rng.choice([-1, -(2**31), N_CTX, 2**31 - 1, positions[i - 1] if i else -7])
    elif kind == 3:
        i = int(rng.integers(len(layers)))
        layers[i] = [layers[i][:-1], layers[i] + bytes(int(rng.integers(1, 40))), b""][rng.integers(3)]
    elif kind == 4:
        layers = [layers[:1], layers * 2, [*layers, b""], []][rng.integers(4)]
    else:
        said.pop(rng.choice([name for name in said if name not in ("rest", "completes")]))
    text = json.dumps(said, separators=(",", ":")).encode()
    if rng.random() < 0.2:
        name = str(rng.choice(list(LIES)))
        text = text[:-1] + b"," + json.dumps({name: said.get(name, 1)})[1:].replace(": ", ":").encode()
    return by_hand(text, positions, layers)


@pytest.mark.parametrize(
    ("said", "fits"),
    [({}, True), ({"rest": "0f" * 16}, True), ({"completes": "0f" * 8}, True),
     ({"rest": "0f" * 16, "completes": "0f" * 8}, False)],
)  # fmt: skip
def test_a_payload_announces_a_rest_or_completes_another_but_not_both(said, fits):
    """Neither is spelt where there is none, so that payloads in one part are as they were."""
    rng = np.random.default_rng(0)
    kv = torch.from_numpy(rng.standard_normal((5, 2, 2, 1, 4)).astype(np.float32))
    header = replace(Header("m", "t", "d", N_CTX, 0, 5, 16, "float16", 2, 1, 4, 0.5, N_CTX), **said)
    blob = pack(header, np.arange(5), kv)
    assert all((name.encode() in blob) == (name in said) for name in ("rest", "completes"))
    if fits:
        assert unpack(blob, EXPECTED)[0] == header
    else:
        with pytest.raises(PayloadError, match="completes another"):
            unpack(blob, EXPECTED)


def test_forged_payloads_are_refused_and_allocate_no_more_than_a_small_multiple_of_themselves(monkeypatch):
    rng = np.random.default_rng(2)
    honest = payloads()
    tensors = []
    empty = torch.empty

    def counted(*args, **kwargs):
        made = empty(*args, **kwargs)
        tensors.append(made.numel() * made.element_size())
        return made

    monkeypatch.setattr(torch, "empty", counted)
    unpack(honest[0], EXPECTED)
    assert tensors, "the patched allocator is the one that is used"
    tracemalloc.start()
    try:
        for i in range(8000):
            broken = forged(rng, honest[i % len(honest)])
            tensors.clear()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(PayloadError) as caught:
                unpack(broken, EXPECTED)
            assert "\n" not in str(caught.value)
            taken = tracemalloc.get_traced_memory()[1] - before + sum(tensors)
            assert taken <= 20 * len(broken) + 40_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bits", [32, 2])
def test_a_header_that_promises_much_makes_a_stream_allocate_positions_only(bits, monkeypatch):
    """A million tokens in one honest header would be a gigabyte of rows here, if they were allocated on its word."""
    expected = Expected("m", "t", layers=2, kv_heads=8, head_dim=16)
    dtype = "float32" if bits == 32 else "float16"
    header = Header("m", "t", "d", 10**6, 0, 10**6, bits, dtype, 2, 8, 16, 1.0, 10**6)
    blob = by_hand(write_text(header), np.arange(10**6), [])
    monkeypatch.setattr(torch, "empty", None)
    tracemalloc.start()
    try:
        decoder = Decoder(expected)
        decoder.feed(blob)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(blob)
        with pytest.raises(PayloadError):
            decoder.feed(blob)
        with pytest.raises(PayloadError, match="header implies"):
            unpack(blob, expected)
    finally:
        tracemalloc.stop()


def test_random_bytes_with_fitting_checksums_are_refused_or_harmless():
    """Numbers may be forged, which no checksum can tell; what comes out still is a cache that can be used."""
    rng = np.random.default_rng(3)
    honest = payloads()
    refused = 0
    for i in range(5000):
        chunks = [bytearray(piece) for piece in split(honest[i % len(honest)])]
        first = chunks[0]
        text = bytes(first[28 : 28 + struct.unpack_from("<I", first, 24)[0]])
        body = bytearray(first[24 : 24 + struct.unpack_from("<Q", first, 8)[0]])
        positions = np.frombuffer(body[-(-(4 + len(text)) // 8) * 8 :], "<i4")
        layers = [bytearray(piece[24 : 24 + struct.unpack_from("<Q", piece, 8)[0]]) for piece in chunks[1:]]
        for layer in layers:
            layer[rng.integers(len(layer))] = rng.integers(256)
        try:
            header, where, kv = unpack(by_hand(text, positions, [bytes(x) for x in layers]), EXPECTED, torch.float16)
        except PayloadError:
            refused += 1
            continue
        assert kv.shape == (header.count, 2, 2, 1, 4) and bool(kv.isfinite().all())
        assert np.array_equal(where, positions)
    assert 0 < refused < 2500


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_shape_comes_back(data):
    layers, heads, dim = (data.draw(st.integers(1, n)) for n in (3, 3, 9))
    count, prefix = data.draw(st.integers(1, 70)), data.draw(st.integers(0, 9))
    bits, dtype = data.draw(st.sampled_from(FORMATS))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    scale = 10.0 ** data.draw(st.integers(-3, 3))
    kv = torch.from_numpy(rng.standard_normal((count, layers, 2, heads, dim)) * scale).float()
    positions = prefix + np.sort(rng.choice(100, count, replace=False))
    header = Header("m", "t", "d", prefix + 100, prefix, count, bits, dtype, layers, heads, dim, 0.5, prefix + 100)
    expected = Expected("m", "t", layers, heads, dim)
    got, where, back = unpack(pack(header, positions, kv), expected)
    assert got == header and np.array_equal(where, positions)
    relative = {32: 0.0, 16: 2.0**-8, 8: 2**-7, 4: 0.1, 2: 0.4}[bits]
    assert float((back.float() - kv).abs().max()) <= relative * float(kv.abs().max()) + 1e-6
