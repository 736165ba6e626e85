"""How caches are scored, and how one cache travels. No torch here: configurations import this file."""

from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError

SCORER_NAMES = ("window", "window-raw", "attention-sum", "attention-sum-raw", "key-norm", "streaming", "random")
SCOPES = ("token", "head")
BIT_WIDTHS = (32, 16, 8, 4, 2)
HALVES = ("served", "float16", "bfloat16")


@dataclass(frozen=True)
class KVSettings:
    """How the tokens of a cache are ranked, and how much is computed at once.

    The defaults are last-window attention with max-pooling, which keeps the second token of an answer whose first
    token is asked for (SnapKV), with attention sinks (StreamingLLM) and the newest tokens always kept.
    """

    scorer: Any = "window"  # one of SCORER_NAMES, or an object with the `score` method of a kvpress press
    scope: str = "token"  # "token" keeps the same tokens in all layers, "head" chooses per layer and KV head
    window: int = 32  # [tokens] newest queries whose attention ranks the keys
    pool: int = 5  # [tokens] width of the max-pool over the ranking, odd
    sinks: int = 4  # [tokens] first tokens of the script that are never pruned
    recent: int = 8  # [tokens] newest tokens that are never pruned
    batch_tokens: int = 8192  # [tokens] cache rows, padding included, in one forward pass
    seed: int = 0  # of the random scorer

    def __post_init__(self) -> None:
        if isinstance(self.scorer, str):
            if self.scorer not in SCORER_NAMES:
                raise ConfigError(f"scorer {self.scorer!r} does not exist; use one of {', '.join(SCORER_NAMES)}")
        elif not any(callable(getattr(self.scorer, name, None)) for name in ("score", "rank")):
            raise ConfigError(
                f"scorer of type {type(self.scorer).__name__} has no method score(module, hidden_states, keys, values, "
                f"attentions, kwargs); give a kvpress press or one of {', '.join(SCORER_NAMES)}"
            )
        if self.scope not in SCOPES:
            raise ConfigError(f"scope {self.scope!r} does not exist; use one of {', '.join(SCOPES)}")
        for name, least in (("window", 1), ("pool", 1), ("sinks", 0), ("recent", 0), ("batch_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)} is below {least}; raise it")
        if self.pool % 2 == 0:
            raise ConfigError(f"pool = {self.pool} is even; use an odd width such as {self.pool + 1}")


@dataclass(frozen=True)
class TransferPlan:
    """How one session's cache travels.

    Args:
        keep: fraction (0, 1] of the script tokens in [prefix, snapshot) whose keys and values are sent.
        bits: 16 (see `half`), 8, 4 or 2 (quantised), or 32.
        prefix_tokens: tokens [0, prefix) are rebuilt from token ids at the target, hence exact.
        snapshot_tokens: pruning chooses among [prefix, snapshot); tokens after it are all sent. None is the length.
        budget_tokens: instead of `keep`, how many tokens the payload holds at most, those after the snapshot included;
            where heads choose on their own, how many each head holds.
        budget_bytes: instead of `keep`, how many bytes the whole payload has at most.
        half: 16-bit numbers as "float16", as "bfloat16", or as "served", which loses nothing.
    """

    keep: float = 1.0
    bits: int = 16
    prefix_tokens: int = 0
    snapshot_tokens: int | None = None
    budget_tokens: int | None = None
    budget_bytes: int | None = None
    half: str = "served"

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ConfigError(f"keep = {self.keep} is outside (0, 1]; give the fraction of tokens to send")
        if self.bits not in BIT_WIDTHS:
            raise ConfigError(f"bits = {self.bits} cannot be encoded; use one of {', '.join(map(str, BIT_WIDTHS))}")
        if self.half not in HALVES:
            raise ConfigError(f"half = {self.half!r} is no 16-bit format; use one of {', '.join(HALVES)}")
        if self.prefix_tokens < 0:
            raise ConfigError(f"prefix_tokens = {self.prefix_tokens} is negative; use 0 for no prefix")
        if self.snapshot_tokens is not None and self.snapshot_tokens < 0:
            raise ConfigError(f"snapshot_tokens = {self.snapshot_tokens} is negative; use None for the whole length")
        given = [name for name in ("budget_tokens", "budget_bytes") if getattr(self, name) is not None]
        for name in given:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is below 1; raise it, or use None and keep")
        if self.keep < 1.0:
            given.insert(0, "keep")
        if len(given) > 1:
            values = " and ".join(f"{name} = {getattr(self, name)}" for name in given)
            raise ConfigError(f"{values} both bound what is sent; give one of them")
