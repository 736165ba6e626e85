"""The scorers that can be named. No torch here: configurations read this table."""

from .attention_sum import AttentionSum
from .attention_sum_raw import AttentionSumRaw
from .base import Scorer
from .expected_attention import ExpectedAttention
from .key_norm import KeyNorm
from .random import Random
from .reconstruction import Reconstruction
from .streaming import Streaming
from .window import Window
from .window_raw import WindowRaw

_KINDS = (
    Window, WindowRaw, AttentionSum, AttentionSumRaw, KeyNorm, Streaming, Random, Reconstruction, ExpectedAttention,
)  # fmt: skip
SCORERS: dict[str, type[Scorer]] = {kind.name: kind for kind in _KINDS}
