"""The scorers that can be named. No torch here: configurations read this table."""

from .attention_sum import AttentionSum
from .attention_sum_raw import AttentionSumRaw
from .base import Scorer
from .key_norm import KeyNorm
from .random import Random
from .streaming import Streaming
from .window import Window
from .window_raw import WindowRaw

SCORERS: dict[str, type[Scorer]] = {
    kind.name: kind for kind in (Window, WindowRaw, AttentionSum, AttentionSumRaw, KeyNorm, Streaming, Random)
}
