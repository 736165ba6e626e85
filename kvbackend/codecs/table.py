"""The widths at which a cache travels: one row each, asked by simulator, planner and kvbackend alike.

A new width is a new row here. If its numbers are packed in a new way, it also needs an entry in `packing.PACKINGS`: how
many bytes a layer takes, a function that writes them, and one that reads them. Plans, headers, sizes and sweeps follow
from the row. Only the standard library is imported here, so that everybody can ask.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Codec:
    """One width.

    Args:
        bits: of one number of a key or a value.
        name: as tables and figures show it.
        description: what it is, in a line.
        packing: name in `packing.PACKINGS` of the functions that write and read a layer.
        dtypes: what a payload's header may name: the type of its numbers, or of its scales; the first by default.
        lossless: whether a cache that is served at 16 bits comes back bit by bit.
        in_plans: whether a plan of the environments may use it.
        head_bits: further bits per token, layer and KV head, such as the scale of a value.
        channel_bits: further bits per token, layer, KV head and channel: a key's share of its group's scale.
    """

    bits: int
    name: str
    description: str
    packing: str
    dtypes: tuple[str, ...]
    lossless: bool = False
    in_plans: bool = False
    head_bits: float = 0.0
    channel_bits: float = 0.0

    def wire_bits_per_token(self, layers: int, kv_heads: int, head_dim: int) -> float:
        """Keys and values of one token on the wire [bit], scales included, positions not.

        Without scales this is 2 * layers * kv_heads * head_dim * bits (arXiv 2603.28018, eq. 1).
        """
        heads = layers * kv_heads
        return 2.0 * heads * head_dim * self.bits + heads * (self.head_bits + self.channel_bits * head_dim)


KEY_GROUP = 32  # [tokens] that share a key's scale


def _kivi(bits: int, description: str, in_plans: bool = False) -> Codec:
    """A quantised width: a scale and a zero in float16 per token for values, per channel and group for keys."""
    scale = 32.0  # [bit]
    return Codec(
        bits, f"int{bits}", description, "kivi", ("float16",), in_plans=in_plans, head_bits=scale,
        channel_bits=scale / KEY_GROUP,
    )  # fmt: skip


CODECS = (
    Codec(32, "fp32", "float32 as it is", "plain", ("float32",), lossless=True),
    Codec(16, "fp16", "float16, or bfloat16", "plain", ("float16", "bfloat16"), lossless=True, in_plans=True),
    _kivi(8, "8 bits, keys scaled per channel and values per token", in_plans=True),
    _kivi(4, "4 bits, scaled as int8", in_plans=True),
    _kivi(2, "2 bits, scaled as int8"),
)


def codec(bits: int) -> Codec:
    """The codec of this width.

    Raises:
        ValueError: there is none.
    """
    for row in CODECS:
        if row.bits == bits:
            return row
    raise ValueError(f"bits = {bits} cannot be encoded; use one of {', '.join(str(row.bits) for row in CODECS)}")
