"""What the model looks at when it repeats its context."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from ...errors import ConfigError
from .base import Scorer, require_at_least, require_odd

if TYPE_CHECKING:
    import torch

    from ..model.forward import LanguageModel
    from ..sessions.reference import Reference
    from .view import View


@dataclass(frozen=True)
class Reconstruction(Scorer):
    """The largest attention that a token gets while the model repeats its context.

    No question is needed to find out what will be asked for: what the model must look at to say everything again is
    what it must keep to answer anything. The price is a second pass over the context.

    When it is repeated: the complete chunks on the cache as it is at the end of the last one, what follows on the cache
    at the handover. So a server can do most of it while it waits for the user or for a handover that it expects, and
    nothing depends on tokens to come. Fewer than `step` newest tokens are not repeated and count as looked at.

    A cache that lost tokens: what was read before the first loss keeps the score that it had then (two bytes per token
    and list would have to travel; payloads do not hold them), and what was read since is repeated on what is left.

    With one list of tokens for all, the mean over layers and KV heads counts. A token's neighbours get part of its
    score: a number is of little use without the word before it.

    On a whole cache, what is repeated at a boundary is computed once per script and shared by all its sessions; it is
    remembered in a quarter of the memory that the script's reference takes.

    Source: Kim et al., KVzip, arXiv 2505.23416; the mean over heads in place of the maximum, and the neighbours, are
    what drifts less on the embedded model.
    """

    name: ClassVar[str] = "reconstruction"
    chunk: int = 64  # [tokens] repeated at once, and by which a context grows until all of it is repeated again
    lead: int = 8  # [tokens] before a chunk that are repeated with it
    step: int = 8  # [tokens] the end of the context is repeated up to a multiple of it
    pool: int = 5  # [tokens] width of the neighbourhood, odd
    share: float = 0.6  # of the best score in its neighbourhood that a token gets at least

    def __post_init__(self) -> None:
        require_at_least(1, chunk=self.chunk, step=self.step, pool=self.pool)
        require_at_least(0, lead=self.lead)
        require_odd(pool=self.pool)
        if self.chunk % self.step:
            raise ConfigError(f"chunk = {self.chunk} is no multiple of step = {self.step}; change one")
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"share = {self.share} is outside [0, 1]; 0 leaves neighbours out")

    @property
    def prefill_per_token(self) -> float:
        """Every token is read again, and with every chunk its lead."""
        return (self.chunk + self.lead) / self.chunk

    def score(self, view: View) -> np.ndarray:
        """The largest attention, float64 [..., n]."""
        scores = view.shared(self.attention(view))
        return np.maximum(scores, self.share * view.pooled(scores, self.pool))

    def attention(self, view: View) -> torch.Tensor:
        """The largest attention that each row gets, float32 [L, Hkv, n]; without meaning where a head holds nothing."""
        import torch

        session, llm = view.session, view.llm
        if session.rows is None:
            return self._whole(llm, session.reference, view.stop)
        first = min(session.rows.own_start, view.stop)
        last = first + (view.stop - first) // self.step * self.step
        before = self._whole(llm, session.reference, first)
        rows = len(view.keys)
        since = self._repeated(llm, session.reference, session.kv[:rows], session.positions[:rows], first, last)
        where = torch.from_numpy(view.positions.astype(np.int64)).to(since.device).expand(since.shape)
        newest = since.masked_fill(where >= last, 1.0)
        return before.gather(-1, where.clamp(0, first - 1)).where(where < first, newest)

    def _whole(self, llm: LanguageModel, reference: Reference, stop: int) -> torch.Tensor:
        """`attention` on the whole cache of a script's first `stop` tokens, float32 [L, Hkv, stop]."""
        import torch

        boundary, last = (stop // size * size for size in (self.chunk, self.step))
        known, parts = _REPEATED.setdefault(reference, OrderedDict()), []
        for start, end in ((0, boundary), (boundary, last)):
            key = (llm.fingerprint, start, end, self.chunk, self.lead)
            if key not in known:
                kv, positions = reference.kv[:end], np.arange(end)
                found = self._repeated(llm, reference, kv, positions, start, end)
                _remember(known, key, found[..., start:].clone(), reference.nbytes // 4)
            known.move_to_end(key)
            parts.append(known[key])
        return torch.cat([*parts, parts[0].new_ones(*parts[0].shape[:2], stop - last)], dim=-1)

    def _repeated(
        self,
        llm: LanguageModel,
        reference: Reference,
        kv: torch.Tensor,
        positions: np.ndarray,
        start: int,
        stop: int,
    ) -> torch.Tensor:
        from .repetition import repetition_attention  # torch, which configurations do not import

        return repetition_attention(llm, reference.tokens, kv, positions, (start, stop), self.chunk, self.lead)


def _remember(known: OrderedDict[Hashable, torch.Tensor], key: Hashable, scores: torch.Tensor, limit: int) -> None:
    """Add scores; the least recently used ones are forgotten where all take more than `limit` bytes."""
    known[key] = scores
    while len(known) > 1 and sum(item.nbytes for item in known.values()) > limit:
        known.popitem(last=False)


_REPEATED: WeakKeyDictionary[Reference, OrderedDict[Hashable, torch.Tensor]] = WeakKeyDictionary()
