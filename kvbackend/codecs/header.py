"""What a payload says about itself, and what the receiver checks of it before anything is allocated."""

import json
from dataclasses import dataclass, fields
from functools import cached_property

import torch

from ...errors import PayloadError
from .table import codec

WIRE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WIRE_SCOPES = {"sequence": "token", "head": "head"}  # as version 3 of the format spells them
MAX_TEXT_BYTES = 4096  # an honest header takes about 400
_MAX_TOKENS = 2**31 - 1  # positions are int32


@dataclass(frozen=True)
class Header:
    """What a payload says about itself."""

    model: str  # fingerprint of the weights
    tokenizer: str  # fingerprint of the tokenizer
    tokens: str  # digest of the n_ctx script tokens
    n_ctx: int  # position of the next token [tokens]
    prefix: int  # tokens [0, prefix) are not in the payload
    count: int  # tokens in the payload
    bits: int  # of a codec in `table.py`
    dtype: str  # of the numbers, or of the scales of a quantised payload
    layers: int
    kv_heads: int
    head_dim: int
    keep: float  # of the plan, for the record
    snapshot: int  # of the plan [tokens]
    scope: str = "sequence"  # "sequence": one position per row; "head": one per row, layer and KV head
    rest: str = ""  # digest of the positions that a second payload brings; "" where none will follow
    completes: str = ""  # name of the payload whose rest this is, see `payload.name_of`; "" for one of its own

    @property
    def position_shape(self) -> tuple[int, ...]:
        """Shape of the positions: [count], or [count, L, Hkv] where every head keeps its own tokens."""
        return (self.count,) if self.scope == "sequence" else (self.count, self.layers, self.kv_heads)

    @cached_property
    def text(self) -> bytes:
        """The header as JSON; see `write_text`."""
        said = {name: getattr(self, name) for name in _KINDS} | {"scope": WIRE_SCOPES.get(self.scope, self.scope)}
        said = {name: value for name, value in said.items() if value or name not in _PARTS}
        return json.dumps(said, separators=(",", ":")).encode()


_READ_SCOPES = {spelt: scope for scope, spelt in WIRE_SCOPES.items()}
_KINDS = {field.name: field.type for field in fields(Header)}
_PARTS = {"rest": 32, "completes": 16}  # hex digits of fields that only caches in two parts have


@dataclass(frozen=True)
class Expected:
    """What the receiver insists on."""

    model: str
    tokenizer: str
    layers: int
    kv_heads: int
    head_dim: int


def write_text(header: Header) -> bytes:
    """The header as JSON, in the one spelling that `read_text` accepts."""
    return header.text


def read_text(text: bytes) -> Header:
    """Parse what `write_text` wrote.

    Raises:
        PayloadError: not that JSON: too long, other or repeated fields, other types, or another spelling.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise PayloadError(f"a header of {len(text)} bytes exceeds {MAX_TEXT_BYTES}; encode the cache again")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError("the header is not JSON; encode the cache again") from error
    if not isinstance(raw, dict) or raw.keys() | _PARTS.keys() != _KINDS.keys():
        got = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
        raise PayloadError(f"header fields are {got}, expected {sorted(_KINDS)}; encode the cache again")
    for name in _PARTS:
        raw.setdefault(name, "")
    for name, kind in _KINDS.items():
        accepted = (int, float) if kind is float else kind
        if not isinstance(raw[name], accepted) or isinstance(raw[name], bool):  # type: ignore[arg-type]
            raise PayloadError(f"header field {name} = {raw[name]!r} is not {kind}; encode the cache again")
    raw["scope"] = _READ_SCOPES.get(raw["scope"], raw["scope"])
    header = Header(**raw)
    if write_text(header) != text:
        raise PayloadError("the header repeats a field or is spelt in another way; encode the cache again")
    return header


def check(header: Header, expected: Expected) -> None:
    """Compare a header with what the receiver runs, and with itself.

    Raises:
        PayloadError: another model or tokenizer, or numbers that contradict each other.
    """
    for name in ("model", "tokenizer"):
        theirs, ours = getattr(header, name), getattr(expected, name)
        if theirs != ours:
            raise PayloadError(f"payload of {name} {theirs[:12]!r}, this side runs {ours[:12]!r}; use the same {name}")
    for name in ("layers", "kv_heads", "head_dim"):
        theirs, ours = getattr(header, name), getattr(expected, name)
        if theirs != ours:
            raise PayloadError(f"payload has {name} = {theirs}, this model has {ours}; use the same model")
    try:
        dtypes = codec(header.bits).dtypes
    except ValueError as error:
        raise PayloadError(f"the payload's {error}; use the same kvroam on both sides") from error
    if header.dtype not in dtypes:
        raise PayloadError(f"dtype {header.dtype!r} does not go with {header.bits} bits; encode the cache again")
    if header.prefix + header.count < 1:
        raise PayloadError("the payload holds no tokens and no prefix; encode the cache again")
    fits = 0 <= header.prefix <= header.n_ctx <= _MAX_TOKENS and 0 <= header.count <= header.n_ctx - header.prefix
    if not fits:
        raise PayloadError(
            f"{header.count} tokens do not fit between prefix {header.prefix} and n_ctx {header.n_ctx}; "
            "encode the cache again"
        )
    if header.scope not in WIRE_SCOPES:
        raise PayloadError(f"scope {header.scope!r} is unknown; use one of {', '.join(WIRE_SCOPES)}")
    if not 0.0 < header.keep <= 1.0 or not 0 <= header.snapshot <= header.n_ctx:
        raise PayloadError(
            f"keep = {header.keep} or snapshot = {header.snapshot} does not fit {header.n_ctx} tokens; "
            "encode the cache again"
        )
    for name, digits in _PARTS.items():
        text = getattr(header, name)
        if text and (len(text) != digits or set(text) - set("0123456789abcdef")):
            raise PayloadError(f"{name} = {text[:40]!r} is not {digits} hex digits; encode the cache again")
    if header.rest and header.completes:
        raise PayloadError("the payload completes another and announces a rest of its own; encode the cache again")
