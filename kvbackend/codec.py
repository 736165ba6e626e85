"""The wire format of a travelling KV cache.

    4 bytes  magic "KVRM"
    2 bytes  version, little endian
    4 bytes  length of the header, little endian
    header   JSON: fingerprints of model and tokenizer, digest of the tokens, n_ctx, prefix, count, bits, dtype, shape
    body     safetensors: positions, and keys and values at 32, 16, 8 or 4 bits
    32 bytes SHA-256 of everything before

Nothing is unpickled, and no tensor is built before checksum, header, names, dtypes and shapes have been checked.
"""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, fields

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from ..errors import PayloadError
from .quantise import GROUP, quantised_shapes, read_keys, read_values, write_keys, write_values
from .settings import BIT_WIDTHS

MAGIC = b"KVRM"
VERSION = 1
_PREAMBLE = struct.Struct("<4sHI")
_CHECKSUM_BYTES = 32
_WIRE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SAFE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8"}


@dataclass(frozen=True)
class Header:
    """What a payload says about itself."""

    model: str  # fingerprint of the weights
    tokenizer: str  # fingerprint of the tokenizer
    tokens: str  # digest of the n_ctx script tokens
    n_ctx: int  # position of the next token [tokens]
    prefix: int  # tokens [0, prefix) are not in the payload
    count: int  # tokens in the payload
    bits: int  # 32, 16, 8 or 4
    dtype: str  # of the numbers at 16 and 32 bits, "float16" for scales otherwise
    layers: int
    kv_heads: int
    head_dim: int
    keep: float  # of the plan, for the record
    snapshot: int  # of the plan [tokens]


@dataclass(frozen=True)
class Expected:
    """What the receiver insists on."""

    model: str
    tokenizer: str
    layers: int
    kv_heads: int
    head_dim: int


def pack(header: Header, positions: np.ndarray, kv: torch.Tensor) -> bytes:
    """Encode cache rows.

    Args:
        header: describes the rows; `count` must be their number.
        positions: int [count], strictly increasing, in [prefix, n_ctx).
        kv: [count, L, 2, Hkv, D], on any device.

    Raises:
        PayloadError: the numbers cannot be represented at this width.
    """
    body: dict[str, torch.Tensor] = {"pos": torch.from_numpy(np.ascontiguousarray(positions, dtype=np.int32))}
    kv = kv.cpu()
    if header.bits >= 16:
        body["kv"] = kv.to(_WIRE_DTYPES[header.dtype]).contiguous()
    elif header.count:
        body |= write_keys(kv[:, :, 0].float(), header.bits) | write_values(kv[:, :, 1].float(), header.bits)
    if any(not bool(x.isfinite().all()) for x in body.values() if x.is_floating_point()):
        raise PayloadError(f"the cache holds numbers that {header.bits} bits cannot represent; send it with bits = 32")
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    blob = b"".join((_PREAMBLE.pack(MAGIC, VERSION, len(text)), text, safetensors.torch.save(body)))
    return blob + hashlib.sha256(blob).digest()


def unpack(blob: bytes, expected: Expected) -> tuple[Header, np.ndarray, torch.Tensor]:
    """Decode a payload.

    Returns:
        The header, positions int32 [count], and rows [count, L, 2, Hkv, D] on the CPU: at the wire dtype for 16 and
        32 bits, float32 otherwise.

    Raises:
        PayloadError: truncated, altered, of another version, model or tokenizer, or inconsistent in itself.
    """
    if len(blob) < _PREAMBLE.size + _CHECKSUM_BYTES:
        raise PayloadError(f"a payload of {len(blob)} bytes is too short for its header; send it again")
    magic, version, size = _PREAMBLE.unpack_from(blob)
    if magic != MAGIC:
        raise PayloadError(f"magic {magic!r} is not {MAGIC!r}; this is not a KV payload")
    if version != VERSION:
        raise PayloadError(f"payload version {version} is not {VERSION}; use the same kvroam on both sides")
    if hashlib.sha256(memoryview(blob)[:-_CHECKSUM_BYTES]).digest() != blob[-_CHECKSUM_BYTES:]:
        raise PayloadError("checksum does not match, the payload was truncated or altered; send it again")
    end = _PREAMBLE.size + size
    if end > len(blob) - _CHECKSUM_BYTES:
        raise PayloadError(f"header length {size} exceeds the payload of {len(blob)} bytes; send it again")
    header = _read_header(blob[_PREAMBLE.size : end])
    _check_header(header, expected)
    tensors = _read_body(blob[end:-_CHECKSUM_BYTES], header)
    positions = tensors["pos"].numpy()
    in_range = positions.size == 0 or (header.prefix <= positions[0] and positions[-1] < header.n_ctx)
    if not in_range or (np.diff(positions) <= 0).any():
        raise PayloadError(
            f"positions are not strictly increasing within [{header.prefix}, {header.n_ctx}); encode the cache again"
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise PayloadError(f"tensor {name!r} holds NaN or infinity; encode the cache again")
    return header, positions, _rows(header, tensors)


def _rows(header: Header, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    if header.bits >= 16:
        return tensors["kv"]
    shape = (header.count, header.layers, header.kv_heads, header.head_dim)
    if not header.count:
        return torch.zeros(0, header.layers, 2, header.kv_heads, header.head_dim)
    keys, values = read_keys(tensors, shape, header.bits), read_values(tensors, shape, header.bits)
    return torch.stack([keys, values], dim=2)


def _read_header(text: bytes) -> Header:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError("the header is not JSON; encode the cache again") from error
    names = {field.name: field.type for field in fields(Header)}
    if not isinstance(raw, dict) or raw.keys() != names.keys():
        got = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
        raise PayloadError(f"header fields are {got}, expected {sorted(names)}; encode the cache again")
    for name, kind in names.items():
        accepted = (int, float) if kind is float else kind
        if not isinstance(raw[name], accepted) or isinstance(raw[name], bool):  # type: ignore[arg-type]
            raise PayloadError(f"header field {name} = {raw[name]!r} is not {kind}; encode the cache again")
    return Header(**raw)


def _check_header(header: Header, expected: Expected) -> None:
    for name in ("model", "tokenizer"):
        theirs, ours = getattr(header, name), getattr(expected, name)
        if theirs != ours:
            raise PayloadError(f"payload of {name} {theirs[:12]!r}, this side runs {ours[:12]!r}; use the same {name}")
    for name in ("layers", "kv_heads", "head_dim"):
        if getattr(header, name) != getattr(expected, name):
            theirs, ours = getattr(header, name), getattr(expected, name)
            raise PayloadError(f"payload has {name} = {theirs}, this model has {ours}; use the same model")
    if header.bits not in BIT_WIDTHS or header.dtype not in _WIRE_DTYPES:
        raise PayloadError(f"{header.bits} bits of {header.dtype} are unknown; use one of {BIT_WIDTHS}")
    if header.bits >= 16 and torch.finfo(_WIRE_DTYPES[header.dtype]).bits != header.bits:
        raise PayloadError(f"dtype {header.dtype} does not have {header.bits} bits; encode the cache again")
    if header.prefix + header.count < 1:
        raise PayloadError("the payload holds no tokens and no prefix; encode the cache again")
    if not 0 <= header.prefix <= header.n_ctx or not 0 <= header.count <= header.n_ctx - header.prefix:
        raise PayloadError(
            f"{header.count} tokens do not fit between prefix {header.prefix} and n_ctx {header.n_ctx}; "
            "encode the cache again"
        )


def _read_body(body: bytes, header: Header) -> dict[str, torch.Tensor]:
    """Compare the safetensors table with what the header implies, then build the tensors."""
    try:
        size = struct.unpack_from("<Q", body)[0]
        table = json.loads(body[8 : 8 + size])
        found = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in table.items()}
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PayloadError("the tensor table cannot be read; encode the cache again") from error
    wanted = _expected_tensors(header)
    if found != wanted:
        raise PayloadError(f"the payload holds tensors {found}, its header implies {wanted}; encode the cache again")
    try:
        return safetensors.torch.load(body)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise PayloadError(f"the tensors cannot be read ({error}); encode the cache again") from error


def _expected_tensors(header: Header) -> dict[str, tuple[str, tuple[int, ...]]]:
    shape = (header.count, header.layers, header.kv_heads, header.head_dim)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {"pos": ("I32", (header.count,))}
    if header.bits >= 16:
        row = (header.count, header.layers, 2, header.kv_heads, header.head_dim)
        return wanted | {"kv": (_SAFE_NAMES[_WIRE_DTYPES[header.dtype]], row)}
    if header.count:
        wanted |= {k: (_SAFE_NAMES[d], s) for k, (d, s) in quantised_shapes(shape, header.bits).items()}
    return wanted


def bytes_per_token(layers: int, kv_heads: int, head_dim: int, bits: int) -> float:
    """Payload bytes per token of a long cache: numbers, scales and zeros, and the position [bytes]."""
    numbers = layers * 2 * kv_heads * head_dim
    if bits >= 16:
        return numbers * bits / 8 + 4
    scales = layers * kv_heads * 4 * (1 + head_dim / GROUP)
    return numbers * bits / 8 + scales + 4
