"""The wire format of a travelling KV cache: a header, then one chunk per layer, each checked on its own.

Every chunk, padded with zeros to a multiple of 8 bytes (numbers are little endian):

    4 bytes  magic "KVRM"
    2 bytes  version
    2 bytes  index: 0 for the header, i + 1 for layer i
    8 bytes  length of the body
    8 bytes  checksum of the chunk before, 0 for the header
    body
    8 bytes  checksum (XXH3, 64 bits) of everything before in this chunk

The body of the header is the length of its JSON, the JSON, zeros up to a multiple of 8, and the positions as int32.
A cache may come in two payloads: the header of the first announces a rest, that of the second names the first.
The body of layer i is rows [count, 2, Hkv, D], packed as the codec of the header's width says (`table.py`). A payload
without tokens is a header alone; a payload in one piece is the concatenation of its chunks.

Because each checksum covers the one before, a chunk that is missing, repeated, out of order or of another payload is
noticed when it arrives. Nothing is unpickled. Nothing is allocated for a layer before its chunk has been checked, nor
for a payload in one piece before its length is the one that its header implies.
"""

import math
import struct
from collections.abc import Iterator

import numpy as np
import torch

from ...errors import PayloadError
from .checksum import Buffer
from .frames import body_of, chunk_end, chunk_size, seal, split, unseal
from .header import MAX_TEXT_BYTES, Expected, Header, check, read_text, write_text
from .packing import packing_of

_TEXT = struct.Struct("<I")


def pack(header: Header, positions: np.ndarray, kv: torch.Tensor, rows: torch.Tensor | None = None) -> bytearray:
    """Encode cache rows in one piece.

    Args:
        header: describes the rows; `count` must be their number.
        positions: int [count], strictly increasing, in [prefix, n_ctx); [count, L, Hkv] for scope "head", -1
            where a head does not hold a row.
        kv: [n, L, 2, Hkv, D], on any device.
        rows: int64 [count], which rows of `kv` travel; all of them by default.

    Raises:
        PayloadError: the cache holds NaN or infinity, or numbers that cannot be represented at this width.
    """
    blob = bytearray(payload_bytes(header))
    pack_into(blob, header, positions, kv, rows)
    return blob


def pack_into(
    out: bytearray | memoryview,
    header: Header,
    positions: np.ndarray,
    kv: torch.Tensor,
    rows: torch.Tensor | None = None,
) -> None:
    """As `pack`, to memory that is used again: for a large payload, fresh memory costs as much time as the copy.

    Args:
        out: writable, of `payload_bytes(header)` bytes.
    """
    size = payload_bytes(header)
    if len(out) != size:
        raise PayloadError(f"out has {len(out)} bytes, the payload needs {size}; give memory of that size")
    view, last, start = memoryview(out), 0, 0
    for index in range(_chunks(header)):
        stop = start + chunk_size(_body_size(header, index))
        last = _fill(view[start:stop], header, positions, kv, rows, index, last)
        start = stop


def encode(
    header: Header, positions: np.ndarray, kv: torch.Tensor, rows: torch.Tensor | None = None
) -> Iterator[bytearray]:
    """The chunks of `pack`, made one at a time: header, layer 0, layer 1, ...; a receiver can start on the first."""
    last = 0
    for index in range(_chunks(header)):
        chunk = bytearray(chunk_size(_body_size(header, index)))
        last = _fill(memoryview(chunk), header, positions, kv, rows, index, last)
        yield chunk


class Decoder:
    """Takes the chunks of one payload in order; every layer can be used as soon as its chunk has arrived.

    Args:
        expected: what the header must say.
        dtype: of the rows handed out; the wire's by default, float32 for quantised payloads.
        device: of the rows handed out.

    Attributes:
        header: of the payload, None before the first chunk.
        positions: int32, script positions of the rows, of shape `header.position_shape`.
    """

    def __init__(
        self, expected: Expected, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.header: Header | None = None
        self.positions = np.empty(0, np.int32)
        self._expected, self._dtype, self._device = expected, dtype, torch.device(device)
        self._last, self._layers = 0, list[torch.Tensor]()
        self._rows: torch.Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether every chunk has arrived."""
        return self.header is not None and len(self._layers) == _chunks(self.header) - 1

    def feed(self, chunk: Buffer) -> int:
        """Check and decode the next chunk.

        Returns:
            Layers that have arrived so far.

        Raises:
            PayloadError: damaged, out of order, of another payload, model or tokenizer, or inconsistent; the decoder
                stays as it was and accepts the right chunk still.
        """
        view = memoryview(chunk)
        index = 0 if self.header is None else len(self._layers) + 1
        if self.complete:
            raise PayloadError(f"a chunk of {len(view)} bytes follows the last; the payload is longer than its header")
        body, last = unseal(view, index, self._last)
        if self.header is None:
            self.header, self.positions = _read_header(body, self._expected)
        else:
            self._layers.append(self._read_layer(body, self.header))
        self._last = last
        return len(self._layers)

    def layer(self, index: int) -> torch.Tensor:
        """Keys and values of a layer that has arrived, [count, 2, Hkv, D].

        Raises:
            PayloadError: its chunk has not arrived.
        """
        if not 0 <= index < len(self._layers):
            raise PayloadError(f"layer {index} has not arrived, {len(self._layers)} have; feed its chunk first")
        return self._layers[index]

    def finish(self) -> torch.Tensor:
        """All rows [count, L, 2, Hkv, D].

        Raises:
            PayloadError: chunks are missing.
        """
        if self.header is None or not self.complete:
            raise PayloadError(f"the payload ends after {len(self._layers)} layers; feed the chunks that are missing")
        return self._rows if self._rows is not None else self._gathered(self.header)

    def reserve(self, out: torch.Tensor | None = None) -> None:
        """Provide memory for all rows, which saves `finish` a copy; only after the payload's length has been checked.

        Args:
            out: rows [count, L, 2, Hkv, D] to use again, at the receiver's dtype and device; fresh ones by default.
        """
        if self.header is None:
            raise PayloadError("no header has arrived; feed the first chunk before reserve")
        header = self.header
        shape = (header.count, header.layers, 2, header.kv_heads, header.head_dim)
        dtype = self._out_dtype(header)
        if out is not None and (out.shape, out.dtype, out.device) != (shape, dtype, self._device):
            raise PayloadError(f"out is {out.dtype} {tuple(out.shape)} on {out.device}, not {dtype} {shape}; resize it")
        self._rows = torch.empty(shape, dtype=dtype, device=self._device) if out is None else out

    def _gathered(self, header: Header) -> torch.Tensor:
        if not header.count:
            shape = (0, header.layers, 2, header.kv_heads, header.head_dim)
            return torch.empty(shape, dtype=self._out_dtype(header), device=self._device)
        return torch.stack(self._layers, dim=1)

    def _out_dtype(self, header: Header) -> torch.dtype:
        return self._dtype or packing_of(header).dtype(header)

    def _read_layer(self, body: memoryview, header: Header) -> torch.Tensor:
        """One layer [count, 2, Hkv, D] at the receiver's dtype, checked to be finite."""
        if len(body) != _body_size(header, 1):
            raise PayloadError(f"a layer has {len(body)} bytes not {_body_size(header, 1)}; encode the cache again")
        place = None if self._rows is None else self._rows[:, len(self._layers)]
        return packing_of(header).read(body, header, self._out_dtype(header), self._device, place)


def unpack(
    blob: Buffer,
    expected: Expected,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    out: torch.Tensor | None = None,
) -> tuple[Header, np.ndarray, torch.Tensor]:
    """Decode a payload that came in one piece; see `Decoder` for the arguments, and `Decoder.reserve` for `out`.

    Returns:
        The header, positions int32 [count], and rows [count, L, 2, Hkv, D].

    Raises:
        PayloadError: truncated, altered, of another version, model or tokenizer, or inconsistent in itself.
    """
    decoder = Decoder(expected, dtype, device)
    header = feed_header(decoder, blob)
    return header, decoder.positions, feed_layers(decoder, blob, out)


def feed_header(decoder: Decoder, blob: Buffer) -> Header:
    """Feed the header of a payload in one piece, and compare the payload's length with it.

    Raises:
        PayloadError: as `unpack`.
    """
    view = memoryview(blob)
    decoder.feed(view[: chunk_end(view, 0)])
    header = decoder.header
    assert header is not None
    if len(view) != payload_bytes(header):
        raise PayloadError(
            f"the payload has {len(view)} bytes, its header implies {payload_bytes(header)}; it was truncated, or "
            "holds something else, send it again"
        )
    return header


def feed_layers(decoder: Decoder, blob: Buffer, out: torch.Tensor | None = None) -> torch.Tensor:
    """The rows [count, L, 2, Hkv, D] of a payload in one piece whose header has been fed by `feed_header`."""
    decoder.reserve(out)
    for chunk in split(blob)[1:]:
        decoder.feed(chunk)
    return decoder.finish()


def name_of(blob: Buffer) -> str:
    """Name of a payload in one piece, by which a later one says that it completes it: 16 hex digits.

    It is the last checksum, which covers the one before, and so in turn header, positions and numbers.
    """
    return bytes(memoryview(blob)[-8:]).hex()


def payload_bytes(header: Header) -> int:
    """Bytes of a payload in one piece."""
    size = chunk_size(_body_size(header, 0))
    return size + header.layers * chunk_size(_body_size(header, 1)) if header.count else size


def _fill(
    view: memoryview,
    header: Header,
    positions: np.ndarray,
    kv: torch.Tensor,
    rows: torch.Tensor | None,
    index: int,
    last: int,
) -> int:
    """Write chunk `index` to `view`, whatever was there before; returns its checksum."""
    size = _body_size(header, index)
    body = body_of(view, size)
    if index:
        _fill_layer(body, header, kv[:, index - 1], rows)
    else:
        text = write_text(header)
        _TEXT.pack_into(body, 0, len(text))
        end = _text_end(len(text))
        body[_TEXT.size : end] = text.ljust(end - _TEXT.size, b"\0")
        where = np.ascontiguousarray(positions, dtype="<i4")
        body[end:] = where.tobytes()
    return seal(view, index, size, last)


def _fill_layer(body: memoryview, header: Header, layer: torch.Tensor, rows: torch.Tensor | None) -> None:
    """Write rows of one layer [n, 2, Hkv, D] to a body of their exact size."""
    if not packing_of(header).write(body, header, layer, rows):
        raise PayloadError(
            f"the cache holds NaN, infinity or numbers that {header.bits} bits cannot represent; send it with "
            "bits = 32, or rebuild it from token ids"
        )


def _read_header(body: memoryview, expected: Expected) -> tuple[Header, np.ndarray]:
    """The header and the positions int32 [count], all checked."""
    size = _TEXT.unpack_from(body)[0] if len(body) >= _TEXT.size else MAX_TEXT_BYTES + 1
    end = _text_end(size)
    if size > MAX_TEXT_BYTES or end > len(body) or any(body[_TEXT.size + size : end]):
        raise PayloadError(f"a header of {len(body)} bytes cannot hold {size} of text; encode the cache again")
    header = read_text(bytes(body[_TEXT.size : _TEXT.size + size]))
    check(header, expected)
    if len(body) - end != 4 * math.prod(header.position_shape):
        raise PayloadError(f"{len(body) - end} bytes of positions for {header.count} tokens; encode the cache again")
    positions = np.frombuffer(body[end:], "<i4").astype(np.int32).reshape(header.position_shape)
    present = positions != -1 if header.scope == "head" else np.ones(1, bool)
    before = np.maximum.accumulate(positions, axis=0)[:-1]
    wrong = (positions < header.prefix) | (positions >= header.n_ctx)
    wrong[1:] |= positions[1:] <= before
    if (wrong & present).any():
        raise PayloadError(
            f"positions are not strictly increasing within [{header.prefix}, {header.n_ctx}); encode the cache again"
        )
    return header, positions


def _chunks(header: Header) -> int:
    return 1 + header.layers if header.count else 1


def _body_size(header: Header, index: int) -> int:
    if not index:
        return _text_end(len(write_text(header))) + 4 * math.prod(header.position_shape)
    return packing_of(header).layer_bytes(header)


def _text_end(size: int) -> int:
    """Where the positions begin in the body of a header whose text has `size` bytes."""
    return _TEXT.size + size + -(_TEXT.size + size) % 8
