"""Which tokens of a cache stay: Top-K by score, with sinks and recent tokens guarded."""

from typing import TYPE_CHECKING

import numpy as np

from ...errors import ConfigError

if TYPE_CHECKING:
    import torch


def top_indices(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices [count] of the largest scores [n], ascending; among equals the earlier token wins."""
    order = np.argsort(-scores, kind="stable")[:count]
    return np.sort(order)


def budget_tokens(keep: float, tokens: int) -> int:
    """Tokens to keep of `tokens`: the nearest integer, at least 1 (int() would lose one to binary fractions)."""
    return max(1, round(keep * tokens))


def select_rows(
    scores: np.ndarray,
    positions: np.ndarray,
    start: int,
    stop: int,
    keep: float,
    sinks: int,
    recent: int,
) -> np.ndarray:
    """Choose the cache rows that are sent.

    The budget counts script tokens in [start, stop), so a cache that lost tokens earlier keeps up to that many of
    what it still has. Guarded rows spend the budget first: sinks, then the newest tokens before `stop`. Among equal
    scores the earlier token wins.

    Args:
        scores: float [n], one per row of the cache.
        positions: int [n], strictly increasing script positions of the rows.
        start: first position that is sent [tokens]; rows before it are dropped, the target rebuilds them.
        stop: the snapshot [tokens]; rows at or after it are all chosen.
        keep: fraction (0, 1] of the stop - start tokens.
        sinks: the first `sinks` positions of the script are guarded where they lie in the range.
        recent: the last `recent` positions before `stop` are guarded.

    Returns:
        int64 [k], sorted row indices.
    """
    later = np.flatnonzero(positions >= max(start, stop))
    inside = np.flatnonzero((positions >= start) & (positions < stop))
    if inside.size == 0:
        return later
    count = min(budget_tokens(keep, stop - start), inside.size)
    if count == inside.size:
        return np.concatenate([inside, later])
    where, ranked = positions[inside], scores[inside]
    sink, new = where < sinks, where >= stop - recent
    guarded = np.count_nonzero(sink | new)
    if guarded > count:
        first, newest = np.flatnonzero(sink), np.flatnonzero(new & ~sink)
        first = first[top_indices(ranked[first], count)]
        chosen = np.concatenate([first, newest[len(newest) - (count - len(first)) :]])
    else:
        ranked = np.where(sink | new, np.inf, ranked)
        least = np.partition(ranked, len(ranked) - count)[len(ranked) - count]
        better = ranked > least
        ties = np.flatnonzero(ranked == least)[: count - np.count_nonzero(better)]
        better[ties] = True
        chosen = np.flatnonzero(better)
    return np.concatenate([inside[chosen], later])


def select_slots(
    scores: np.ndarray,
    positions: np.ndarray,
    start: int,
    stop: int,
    keep: float,
    sinks: int,
    recent: int,
) -> np.ndarray:
    """`select_rows` for every layer and KV head on its own, with the same budget for each.

    Args:
        scores: float [L, Hkv, n].
        positions: int [n, L, Hkv], ascending in each column, -1 where a head holds nothing.

    Returns:
        int64 [k, L, Hkv], row indices ascending in each column, then -1 for heads that hold fewer than the longest.
    """
    columns = []
    for layer, head in np.ndindex(scores.shape[:2]):
        where = positions[:, layer, head]
        held = np.flatnonzero(where >= 0)
        chosen = select_rows(scores[layer, head, held], where[held], start, stop, keep, sinks, recent)
        columns.append(held[chosen])
    slots = np.full((max(map(len, columns)), len(columns)), -1, dtype=np.int64)
    for column, chosen in enumerate(columns):
        slots[: len(chosen), column] = chosen
    return slots.reshape(-1, *scores.shape[:2])


def extract_top_k_kv_cache(
    kv_cache: "torch.Tensor", attention_weights: "torch.Tensor", compression_ratio: float = 0.2
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Keep the Top-K tokens of a cache by attention, as the token-aware mobility plane does.

    Args:
        kv_cache: [layers, 2, batch, heads, tokens, head_dim].
        attention_weights: [layers, batch, heads, queries, tokens], or already summed over queries
            [layers, batch, heads, tokens].
        compression_ratio: fraction of tokens that is kept, (0, 1].

    Returns:
        The pruned cache [layers, 2, batch, heads, k, head_dim] and the kept indices int64 [batch, k], ascending,
        with k = max(1, floor(tokens * compression_ratio)).

    Raises:
        ConfigError: the shapes disagree, there are no tokens, weights are NaN, or the ratio is outside (0, 1].

    Source: ChaoHu, clawRxiv 2604.01548: saliency I(t) is the attention on t summed over heads, averaged over layers.
    """
    import torch

    if not 0.0 < compression_ratio <= 1.0:
        raise ConfigError(f"compression_ratio = {compression_ratio} is outside (0, 1]; it is the fraction kept")
    if kv_cache.ndim != 6 or kv_cache.shape[1] != 2:
        raise ConfigError(
            f"kv_cache has shape {tuple(kv_cache.shape)}; give [layers, 2, batch, heads, tokens, head_dim]"
        )
    layers, _, batch, _, tokens, _ = kv_cache.shape
    weights = attention_weights.sum(3) if attention_weights.ndim == 5 else attention_weights
    if weights.ndim != 4 or (weights.shape[0], weights.shape[1], weights.shape[3]) != (layers, batch, tokens):
        raise ConfigError(
            f"attention_weights has shape {tuple(attention_weights.shape)}, the cache has {layers} layers, batch "
            f"{batch} and {tokens} tokens; give [layers, batch, heads, queries, tokens]"
        )
    if not tokens or bool(weights.isnan().any()):
        what = "attention_weights hold NaN" if tokens else "the cache holds no tokens"
        raise ConfigError(f"{what}, so none can be chosen; give the weights of a finished prefill")
    # The small term undoes binary fractions: int(10 * 0.7) is 7, but int(100 * 0.29) is 28.
    count = max(1, int(tokens * compression_ratio + 1e-9))
    saliency = weights.sum(2).mean(0).float().cpu().numpy()
    kept = torch.from_numpy(np.stack([top_indices(row, count) for row in saliency])).to(kv_cache.device)
    index = kept[None, None, :, None, :, None].expand(*kv_cache.shape[:4], count, kv_cache.shape[5])
    return kv_cache.gather(4, index), kept
