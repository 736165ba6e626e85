"""Chunks of a payload: each with its place in the payload, its length and its checksum, chained to the one before."""

import struct

from ...errors import PayloadError
from .checksum import Buffer, xxh3

MAGIC = b"KVRM"
VERSION = 3
_FRAME = struct.Struct("<4sHHQQ")
_SUM = struct.Struct("<Q")


def seal(view: memoryview, index: int, size: int, before: int) -> int:
    """Write everything around the body of a chunk, which is in place already.

    Args:
        view: the whole chunk.
        index: of the chunk in its payload.
        size: of the body [bytes].
        before: checksum of the chunk before, 0 for the first.

    Returns:
        The checksum of this chunk.
    """
    _FRAME.pack_into(view, 0, MAGIC, VERSION, index, size, before)
    view[_FRAME.size + size : -_SUM.size] = bytes(-size % 8)
    checksum = xxh3(view[: -_SUM.size])
    _SUM.pack_into(view, len(view) - _SUM.size, checksum)
    return checksum


def body_of(view: memoryview, size: int) -> memoryview:
    """Where the body of `size` bytes is in a chunk."""
    return view[_FRAME.size : _FRAME.size + size]


def unseal(view: memoryview, index: int, before: int) -> tuple[memoryview, int]:
    """The body and the checksum of one chunk that is chunk `index` of its payload and follows checksum `before`.

    Raises:
        PayloadError: damaged, another chunk, or of another payload.
    """
    if chunk_end(view, 0) != len(view):
        raise PayloadError(f"a chunk of {len(view)} bytes says that it has {chunk_end(view, 0)}; send it again")
    checksum = _SUM.unpack_from(view, len(view) - _SUM.size)[0]
    if xxh3(view[: -_SUM.size]) != checksum:
        raise PayloadError("checksum does not match, the payload was truncated or altered; send it again")
    _, _, found, size, last = _FRAME.unpack_from(view)
    if found != index:
        raise PayloadError(f"chunk {found} arrived, chunk {index} is next; send the chunks in order")
    if last != before:
        raise PayloadError(f"chunk {index} does not follow the one before; it is of another payload, send its own")
    end = _FRAME.size + size
    if any(view[end : -_SUM.size]):
        raise PayloadError(f"the padding of chunk {index} is not zero; encode the cache again")
    return view[_FRAME.size : end], checksum


def split(blob: Buffer) -> list[memoryview]:
    """Cut a payload in one piece into its chunks, whose contents are not looked at.

    Raises:
        PayloadError: the pieces do not add up to the payload.
    """
    view, at = memoryview(blob), 0
    chunks: list[memoryview] = []
    while at < len(view) or not chunks:
        end = chunk_end(view, at)
        chunks.append(view[at:end])
        at = end
    return chunks


def chunk_end(view: memoryview, at: int) -> int:
    """Where the chunk that begins at `at` ends.

    Raises:
        PayloadError: no chunk begins there, or it is cut off.
    """
    if len(view) - at < _FRAME.size + _SUM.size:
        raise PayloadError(f"{len(view) - at} bytes are too short for a chunk of a payload; send it again")
    magic, version, index, size, _ = _FRAME.unpack_from(view, at)
    if magic != MAGIC:
        raise PayloadError(f"magic {magic!r} is not {MAGIC!r}; this is not a KV payload")
    if version != VERSION:
        raise PayloadError(f"payload version {version} is not {VERSION}; use the same kvroam on both sides")
    end = at + chunk_size(size)
    if end > len(view):
        raise PayloadError(f"chunk {index} needs {end - at} bytes and {len(view) - at} are left; send it again")
    return end


def chunk_size(body: int) -> int:
    """Bytes of a chunk whose body has `body` bytes."""
    return _FRAME.size + body + -body % 8 + _SUM.size
