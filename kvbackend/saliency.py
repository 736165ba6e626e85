"""Which cached tokens matter: one short class per published or obvious way to rank them."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ConfigError
from .sessions import Session
from .settings import KVSettings

_QUERIES_AT_ONCE = 128


class View:
    """What a scorer may look at: the cache as the source sees it when `stop` tokens have been fed.

    Args:
        session: its rows at positions below `stop` are ranked.
        stop: the snapshot [tokens].
        scaling: factor of the dot product, usually head_dim ** -0.5.
    """

    def __init__(self, session: Session, stop: int, scaling: float, settings: KVSettings) -> None:
        self.session, self.stop, self.scaling, self.settings = session, stop, scaling, settings
        positions = session.positions
        self.positions = positions[: int(np.searchsorted(positions, stop))]
        self.keys = session.kv[: len(self.positions), :, 0]  # [n, L, Hkv, D]

    def attention(self, start: int) -> np.ndarray:
        """Attention that queries of positions [start, stop) pay to each row, float64 [n].

        Summed over queries, averaged over layers and heads; a query sees rows at its own position and before.
        """
        mass = torch.zeros(len(self.positions), dtype=torch.float64)
        for lo in range(start, self.stop, _QUERIES_AT_ONCE):
            hi = min(lo + _QUERIES_AT_ONCE, self.stop)
            mass += self._attention_of(self.session.queries(lo, hi), lo).double().cpu()
        return mass.numpy()

    def _attention_of(self, queries: torch.Tensor, first: int) -> torch.Tensor:
        count, layers, heads, dim = queries.shape
        keys = self.keys.to(queries.dtype).permute(1, 2, 3, 0)  # [L, Hkv, D, n]
        kv_heads = keys.shape[1]
        grouped = queries.permute(1, 2, 0, 3).reshape(layers, kv_heads, heads // kv_heads * count, dim)
        scores = (grouped @ keys).float().mul_(self.scaling).unflatten(2, (-1, count))
        hidden = self.positions[None, :] > np.arange(first, first + count)[:, None]
        scores.masked_fill_(torch.from_numpy(hidden).to(scores.device), float("-inf"))
        # A query whose visible keys were all pruned attends to nothing, where softmax gives NaN.
        return scores.softmax(-1).nan_to_num_(0.0).sum(3).mean((0, 1, 2))


def window_raw(view: View) -> np.ndarray:
    """Attention of the newest queries, unpooled (the observation window of SnapKV, arXiv 2404.14469)."""
    return view.attention(max(0, view.stop - view.settings.window))


def window(view: View) -> np.ndarray:
    """Attention of the newest queries, max-pooled over neighbouring positions (SnapKV): neighbours share an answer."""
    dense = torch.zeros(view.stop, dtype=torch.float64)
    positions = torch.from_numpy(view.positions.astype(np.int64))
    dense[positions] = torch.from_numpy(window_raw(view))
    width = view.settings.pool
    pooled = F.max_pool1d(dense[None, None], width, stride=1, padding=width // 2)[0, 0]
    return pooled[positions].numpy()


def attention_sum(view: View) -> np.ndarray:
    """Attention of all queries per query that could see the token (the paper's I(t) without its bias to old tokens).

    The divisor is at least one window: the newest tokens are seen by few queries, mostly by themselves.
    """
    seen_by = np.maximum(view.stop - view.positions, view.settings.window)
    return view.attention(0) / seen_by


def key_norm(view: View) -> np.ndarray:
    """Minus the L2 norm of the key, mean over layers and heads (Devoto et al., arXiv 2406.11430)."""
    return -view.keys.float().norm(dim=-1).mean((1, 2)).double().cpu().numpy()


def streaming(view: View) -> np.ndarray:
    """The newest tokens; with the guarded sinks this is StreamingLLM (arXiv 2309.17453)."""
    return view.positions.astype(np.float64)


def random(view: View) -> np.ndarray:
    """Chance, seeded by the settings and by the tokens, so that a repeated experiment repeats its choice."""
    content = view.session.reference.tokens[: view.stop].tobytes()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    generator = np.random.default_rng([view.settings.seed, int.from_bytes(digest, "little")])
    return generator.random(view.stop)[view.positions]


SCORERS: dict[str, Callable[[View], np.ndarray]] = {
    "window": window,
    "window-raw": window_raw,
    "attention-sum": attention_sum,
    "key-norm": key_norm,
    "streaming": streaming,
    "random": random,
}


def scorer(name: str) -> Callable[[View], np.ndarray]:
    """The scorer of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SCORERS:
        raise ConfigError(f"scorer {name!r} does not exist; use one of {', '.join(SCORERS)}")
    return SCORERS[name]
