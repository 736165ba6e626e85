"""Scorers written for kvpress, used as they are: whatever has kvpress' `score` method ranks tokens here as well."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ...errors import ConfigError
from ..model.forward import LanguageModel
from .base import Scorer
from .view import View


class PressScorer(Scorer):
    """Asks a press for the scores of a cache, layer by layer, during one forward pass over the script so far.

    The press sees what kvpress would show it: the attention module, the hidden states before attention, the rotated
    keys and the values as they are cached, and the keyword arguments of the layer, position embeddings included. A
    press that insists on attention weights (ObservedAttentionPress asserts them) gets those too. Where a cache was
    pruned before, it sees the tokens that are left; their hidden states are those of the whole cache.

    Args:
        press: an object with score(module, hidden_states, keys, values, attentions, kwargs) -> [1, Hkv, n].
        llm: the model that the session runs on.

    Source: kvpress' `ScorerPress.score`, https://github.com/NVIDIA/kvpress; its `compress` and ratio are not used.
    """

    def __init__(self, press: Any, llm: LanguageModel) -> None:
        self.press, self.llm = press, llm

    @property
    def prefill_per_token(self) -> float:
        """One pass over the script so far."""
        return 1.0

    def score(self, view: View) -> np.ndarray:
        """Scores float64 [n], or [L, Hkv, n] where tokens are chosen per layer and KV head.

        Raises:
            ConfigError: the press fails on this model, or returns another shape or numbers that are not finite.
        """
        scores: dict[int, torch.Tensor] = {}

        def ask(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], _: Any) -> None:
            hidden = keywords["hidden_states"] if "hidden_states" in keywords else arguments[0]
            scores[module.layer_idx] = self._layer(view, module, hidden, keywords)

        with _hooks(self.llm, ask), torch.inference_mode():
            self.llm.prefill([view.session.reference.tokens[: view.stop]], hooks=True)
        return view.shared(torch.stack([scores[i] for i in sorted(scores)]))

    def _layer(self, view: View, module: Any, hidden: torch.Tensor, keywords: dict[str, Any]) -> torch.Tensor:
        """Scores [Hkv, n] of one layer."""
        layer, rows, kv_heads = module.layer_idx, len(view.keys), view.keys.shape[2]
        if view.positions.ndim == 1:
            return self._ask(view, module, hidden, keywords, view.positions, np.arange(rows))
        scores = hidden.new_zeros(kv_heads, rows)
        for head in range(kv_heads):
            where = view.positions[layer, head]
            held = np.flatnonzero((where >= 0) & (where < view.stop))
            # Each head has tokens of its own, so a call tells the truth about this one head only.
            if held.size:
                answer = self._ask(view, module, hidden, keywords, where[held], held)
                scores[head, torch.from_numpy(held).to(scores.device)] = answer[head].to(scores.dtype)
        return scores

    def _ask(
        self,
        view: View,
        module: Any,
        hidden: torch.Tensor,
        keywords: dict[str, Any],
        positions: np.ndarray,
        rows: np.ndarray,
    ) -> torch.Tensor:
        """Scores [Hkv, k] of the tokens at `positions` [k], which are stored in `rows` [k] of the cache."""
        where = torch.from_numpy(positions.astype(np.int64)).to(hidden.device)
        cached = view.session.kv[torch.from_numpy(rows).to(hidden.device), module.layer_idx].to(hidden.dtype)
        keys, values = cached.permute(1, 2, 0, 3).unsqueeze(1)  # [1, Hkv, k, D] each
        cos, sin = (x[:, where] for x in keywords["position_embeddings"])
        seen = {**keywords, "position_embeddings": (cos, sin), "hidden_states": hidden[:, where]}
        seen |= {"attention_mask": None, "position_ids": where[None], "cache_position": where}
        try:
            try:
                scores = self.press.score(module, hidden[:, where], keys, values, None, seen)
            except (AssertionError, TypeError, AttributeError):
                # Weights take longer than most scores, so only a press that cannot do without them gets them.
                attentions = _attentions(view, module.layer_idx, positions, keys)
                scores = self.press.score(module, hidden[:, where], keys, values, attentions, seen)
        except (RuntimeError, TypeError, KeyError, AttributeError, AssertionError, IndexError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise ConfigError(
                f"scorer {type(self.press).__name__} fails on {len(positions)} tokens ({reason}); use another scorer"
            ) from error
        wanted = (1, keys.shape[1], len(positions))
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != wanted or not bool(scores.isfinite().all()):
            got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise ConfigError(
                f"scorer {type(self.press).__name__} returned {got}; it must return finite scores {wanted} "
                "[1, KV heads, tokens]"
            )
        return scores[0].float()


def _attentions(view: View, layer: int, positions: np.ndarray, keys: torch.Tensor) -> torch.Tensor:
    """Causal attention weights [1, H, k, k] among the tokens at `positions`, from their stored queries."""
    where = torch.from_numpy(positions.astype(np.int64)).to(keys.device)
    stored = view.session.queries(0, view.stop)[:, layer]
    queries = stored[where].transpose(0, 1)  # [H, k, D]
    spread = keys[0].repeat_interleave(queries.shape[0] // keys.shape[1], 0).to(queries.dtype)
    scores = (queries @ spread.transpose(1, 2)).float() * view.scaling
    later = torch.ones(len(positions), len(positions), dtype=torch.bool, device=keys.device).triu(1)
    return scores.masked_fill_(later, float("-inf")).softmax(-1)[None].to(keys.dtype)


@contextmanager
def _hooks(llm: LanguageModel, ask: Any) -> Iterator[None]:
    """Call `ask` after every attention module; presses also find the rotary embedding there, as kvpress puts it."""
    rotary = getattr(llm.base, "rotary_emb", None)
    lent = [m for m in llm.attention_modules if rotary is not None and not hasattr(m, "rotary_emb")]
    handles = [m.register_forward_hook(ask, with_kwargs=True) for m in llm.attention_modules]
    for module in lent:
        module.rotary_emb = rotary
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in lent:
            del module.rotary_emb
