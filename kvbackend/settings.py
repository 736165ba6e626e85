"""How caches are scored, and how one cache travels. No torch here: configurations import this file."""

from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .codecs.table import codec
from .scorers.base import Scorer
from .scorers.table import SCORERS
from .scorers.window import Window

SCOPES = ("sequence", "head")
HALVES = ("served", "float16", "bfloat16")


@dataclass(frozen=True)
class KVSettings:
    """How the tokens of a cache are ranked and selected, and how much is computed at once.

    The defaults are reconstruction (KVzip), where each layer and KV head keeps tokens of its own, with attention sinks
    (StreamingLLM) and the newest tokens always kept. A scorer that is chosen by name takes `window`, `pool` and `seed`
    from here, as far as it has such parameters; where they are None, its own defaults hold. An object has its own
    parameters and takes none.
    """

    scorer: Any = "reconstruction"  # a name in SCORERS, a Scorer such as Window(pool=7), or a kvpress press
    scope: str = "head"  # "sequence" keeps the same tokens in all layers, "head" chooses per layer and KV head
    window: int | None = None  # [tokens] of a scorer chosen by name
    pool: int | None = None  # [tokens] of a scorer chosen by name
    sinks: int = 4  # [tokens] first tokens of the script that are never pruned
    recent: int = 8  # [tokens] newest tokens that are never pruned
    batch_tokens: int = 8192  # [tokens] cache rows, padding included, in one forward pass
    seed: int | None = None  # of a scorer chosen by name

    def __post_init__(self) -> None:
        names = ", ".join(SCORERS)
        if isinstance(self.scorer, str):
            if self.scorer not in SCORERS:
                raise ConfigError(f"scorer {self.scorer!r} does not exist; use one of {names}")
        elif not callable(getattr(self.scorer, "score", None)):
            raise ConfigError(
                f"scorer of type {type(self.scorer).__name__} has no method score(module, hidden_states, keys, values, "
                f"attentions, kwargs); give a Scorer, a kvpress press or one of {names}"
            )
        for kind in SCORERS.values():  # a value that a scorer cannot use is wrong whichever is chosen
            self._made(kind)
        if self.scope not in SCOPES:
            raise ConfigError(f"scope {self.scope!r} does not exist; use one of {', '.join(SCOPES)}")
        for name, least in (("sinks", 0), ("recent", 0), ("batch_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)} is below {least}; raise it")

    @property
    def ranking(self) -> Any:
        """The scorer as an object: a Scorer or a kvpress press."""
        return self._made(SCORERS[self.scorer]) if isinstance(self.scorer, str) else self.scorer

    @property
    def monitor_window(self) -> int:
        """Newest queries that a monitor keeps [tokens]: the scorer's window, the usual one where it has none."""
        return getattr(self.ranking, "window", self.window or Window.window)

    def _made(self, kind: type[Scorer]) -> Scorer:
        chosen = {name: getattr(self, name) for name in _OF_SCORERS if hasattr(kind, name)}
        return kind(**{name: value for name, value in chosen.items() if value is not None})


_OF_SCORERS = ("window", "pool", "seed")


@dataclass(frozen=True)
class TransferPlan:
    """How one session's cache travels.

    Args:
        keep: fraction (0, 1] of the script tokens in [prefix, snapshot) whose keys and values are sent.
        bits: width of a number, of a codec in `codecs/table.py`: 16 (see `half`), 8, 4 or 2 (quantised), or 32.
        prefix_tokens: tokens [0, prefix) are rebuilt from token ids at the target and so are exact.
        snapshot_tokens: pruning chooses among [prefix, snapshot); tokens after it are all sent. None is the length.
        budget_tokens: instead of `keep`, how many tokens the payload holds at most, those after the snapshot included;
            where heads choose on their own, how many each head holds.
        budget_bytes: instead of `keep`, how many bytes the whole payload has at most.
        half: 16-bit numbers as "float16", as "bfloat16", or as "served", which loses nothing.
        rest: whether the source keeps what is not sent, so that it can follow as a second payload; see
            `KVBackend.backfill`.
    """

    keep: float = 1.0
    bits: int = 16
    prefix_tokens: int = 0
    snapshot_tokens: int | None = None
    budget_tokens: int | None = None
    budget_bytes: int | None = None
    half: str = "served"
    rest: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ConfigError(f"keep = {self.keep} is outside (0, 1]; give the fraction of tokens to send")
        try:
            codec(self.bits)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if self.half not in HALVES:
            raise ConfigError(f"half = {self.half!r} is not a 16-bit format; use one of {', '.join(HALVES)}")
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
