"""The model repeats what it has read: the attention that the repetition pays to the cache.

The context is repeated chunk by chunk. A chunk's tokens are fed once more behind the cache, at the positions that come
next, and see the whole cache and what the chunk has repeated so far. The chunks do not see each other's repetition, so
that no position lies more than one chunk and its lead behind the context, however long it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from ..model.forward import LanguageModel

_ROWS_AT_ONCE = 8192  # cache rows, padding included, in one forward pass


def repetition_attention(
    llm: LanguageModel,
    tokens: np.ndarray,
    kv: torch.Tensor,
    positions: np.ndarray,
    span: tuple[int, int],
    chunk: int,
    lead: int,
) -> torch.Tensor:
    """The largest attention that a token gets while the chunk in which it stands is repeated.

    Args:
        llm: the model.
        tokens: int [S], the script.
        kv: the cache [n, L, 2, Hkv, D]; rows at or after the end of `span` are not seen.
        positions: of its rows, int [n]; or [n, L, Hkv] where heads hold different tokens, -1 for none.
        span: the tokens [start, stop) are repeated, in chunks from `start` on; the last may be shorter.
        chunk: length of a chunk [tokens].
        lead: tokens before a chunk that are repeated with it, so that its first tokens are expected as well.

    Returns:
        The maximum over queries, the lead's included, and over the query heads of a KV head: float32 [L, Hkv, n]; 0
        outside `span` and where a head holds nothing.

    Source: Kim et al., KVzip, arXiv 2505.23416, section 3; there the softmax is over the chunk's own keys, and here
        over the whole cache, as in any other forward pass.
    """
    start, stop = span
    lists = positions.reshape(len(positions), 1, 1) if positions.ndim == 1 else positions
    out = torch.zeros(kv.shape[1], kv.shape[3], len(kv), device=kv.device)
    count = int(np.count_nonzero(((lists >= 0) & (lists < stop)).any((1, 2))))
    lists, cache = lists[:count], kv[:count]
    missing = (lists < 0) | (lists >= stop) if positions.ndim == 3 else None
    chunks = [(a, min(a + chunk, stop)) for a in range(start, stop, chunk)]
    chunks = [(a, b) for a, b in chunks if ((lists >= a) & (lists < b)).any()]
    size = max(1, _ROWS_AT_ONCE // (count + chunk + lead))
    for first in range(0, len(chunks), size):
        part = chunks[first : first + size]
        said = [tokens[max(0, a - lead) : b] for a, b in part]
        block = llm.extend([cache] * len(part), [stop] * len(part), said, [missing] * len(part))
        for i, (a, b) in enumerate(part):
            held = (lists >= a) & (lists < b)
            rows = np.flatnonzero(held.any((1, 2)))
            inside = slice(int(rows[0]), int(rows[-1]) + 1)
            steps = len(said[i])
            found = _largest(cache, block.kv[i, :steps], block.queries[i, :steps], missing, llm.scaling, inside)
            mine = torch.from_numpy(np.ascontiguousarray(held[inside].transpose(1, 2, 0))).to(kv.device)
            out[..., inside] = torch.where(mine, found, out[..., inside])
    return out


def _largest(
    cache: torch.Tensor,
    new: torch.Tensor,
    queries: torch.Tensor,
    missing: np.ndarray | None,
    scaling: float,
    rows: slice,
) -> torch.Tensor:
    """The largest weight that queries [T, L, H, D] give to some rows of a cache, float32 [L, Hkv, k].

    Args:
        cache: [n, L, 2, Hkv, D].
        new: of the queries' own tokens [T, L, 2, Hkv, D]; each sees itself and those before.
        missing: bool [n, L, Hkv], rows that a head does not hold, or None.
    """
    steps, layers, heads, dim = queries.shape
    count, kv_heads = cache.shape[0], cache.shape[3]
    grouped = queries.permute(1, 2, 0, 3).reshape(layers, kv_heads, heads // kv_heads * steps, dim)
    keys = torch.cat([cache[:, :, 0], new[:, :, 0]]).to(queries.dtype).permute(1, 2, 3, 0)
    scores = (grouped @ keys).float().mul_(scaling).unflatten(2, (-1, steps))
    later = torch.ones(steps, steps, dtype=torch.bool, device=cache.device).triu_(1)
    scores[..., count:].masked_fill_(later, float("-inf"))
    if missing is not None:
        hidden = torch.from_numpy(np.ascontiguousarray(missing.transpose(1, 2, 0))).to(cache.device)
        scores[..., :count].masked_fill_(hidden[:, :, None, None], float("-inf"))
    total = scores.logsumexp(-1, keepdim=True)
    return (scores[..., rows] - total).amax((2, 3)).exp()
