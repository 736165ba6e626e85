"""The language model as the backend uses it: prefill of whole scripts, ragged continuation, and the LM head."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ...compat import attention_of
from ...errors import ModelError
from .attention import Tap, install, slab_cache
from .lean import Lean, linear, supports
from .suitability import refuse_unsuitable


@dataclass(frozen=True)
class Geometry:
    """Shape of one model's cache: every token costs layers * 2 * kv_heads * head_dim numbers."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def row(self) -> tuple[int, int, int, int]:
        """Shape of one token's keys and values: [L, 2, Hkv, D]."""
        return (self.layers, 2, self.kv_heads, self.head_dim)

    @property
    def query_row(self) -> tuple[int, int, int]:
        """Shape of one token's queries: [L, H, D]."""
        return (self.layers, self.heads, self.head_dim)


@dataclass(frozen=True)
class Block:
    """What a forward pass leaves behind for a batch of B sequences of up to T tokens (padding at the right)."""

    kv: torch.Tensor  # [B, T, L, 2, Hkv, D], rotated keys and values rounded to the cache dtype
    queries: torch.Tensor  # [B, T, L, H, D], rotated
    hidden: torch.Tensor  # [B, T, d], after the final norm


class LanguageModel:
    """A Hugging Face causal language model with rotary positions and full attention.

    Args:
        model: the model; it is put in eval mode and its attention implementation is replaced.
        cache_dtype: precision at which keys and values are kept; computing stays in the model's dtype.

    Raises:
        ModelError: the cache of this model cannot be pruned correctly, or its logits are not head(hidden).
    """

    def __init__(self, model: Any, cache_dtype: torch.dtype = torch.float16) -> None:
        self.model = model.eval()
        config = model.config.get_text_config(decoder=True)
        name = type(model).__name__
        refuse_unsuitable(name, model, config)
        self.base = model.base_model
        head = model.get_output_embeddings()
        if head is None:
            raise ModelError(f"{name} has no LM head, so its logits cannot be compared; load a causal language model")
        self.head = head
        heads = config.num_attention_heads
        self.geometry = Geometry(
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        )
        self.vocab = int(config.vocab_size)
        self.max_tokens = int(getattr(config, "max_position_embeddings", 0))
        if self.max_tokens < 1:
            raise ModelError(
                f"{name} does not say its longest context; set max_position_embeddings in its configuration"
            )
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.cache_dtype = cache_dtype
        self.fingerprint = fingerprint(model)
        self._lean: Lean | None = None
        before = attention_of(model)
        try:
            self.scaling, self.attention_modules = self._probe(name)
        except ModelError:
            model.set_attn_implementation(before)
            raise
        self._lean = self._faster()

    @torch.inference_mode()
    def prefill(self, scripts: Sequence[np.ndarray], hooks: bool = False) -> Block:
        """Run whole scripts, int [S_b] each, in one causal pass; shorter ones are padded with token 0 at the right.

        Args:
            hooks: whether somebody listens at the model's modules, which must be called then.
        """
        tokens = self._padded(scripts)
        batch, steps = tokens.shape
        if self._lean is not None and not hooks:
            none = np.zeros(batch, np.int64)
            where = np.broadcast_to(np.arange(steps), (batch, steps))
            return self._run_lean(tokens, where, self._columns(batch, steps), none)
        slab = torch.empty(batch, steps, *self.geometry.row, dtype=self.dtype, device=self.device)
        positions = torch.arange(steps, device=self.device)[None]
        return self._run(tokens, positions, None, slab, 0)

    @torch.inference_mode()
    def extend(
        self,
        caches: Sequence[torch.Tensor],
        starts: Sequence[int],
        tokens: Sequence[np.ndarray],
        empty: Sequence[np.ndarray | None] | None = None,
    ) -> Block:
        """Feed each sequence its next tokens on its own, possibly pruned, cache, in one ragged pass.

        Args:
            caches: [n_b, L, 2, Hkv, D] each, rows in order of position, at the cache dtype.
            starts: script position of the first new token, at least n_b [tokens].
            tokens: int [t_b] each, t_b >= 1.
            empty: bool [n_b, L, Hkv] each, rows that a head does not hold; None where every head holds every row.
        """
        ids = self._padded(tokens)
        batch, steps = ids.shape
        lengths = np.array([cache.shape[0] for cache in caches])
        width = int(lengths.max())
        if self._lean is not None:
            columns = self._columns(batch, width + steps)
            columns[:, :, :, :, :width] = pad_sequence(list(caches), batch_first=True).permute(2, 3, 0, 4, 1, 5)
            where = np.asarray(starts)[:, None] + np.arange(steps)
            return self._run_lean(ids, where, columns, lengths, self._empty_rows(empty, batch, width))
        slab = torch.empty(batch, width + steps, *self.geometry.row, dtype=self.dtype, device=self.device)
        for row, cache in zip(slab, caches, strict=True):
            row[: len(cache)] = cache
            row[len(cache) : width] = 0.0  # masked, but zero times garbage may still be NaN
        stored = np.arange(width) < lengths[:, None]
        visible = np.empty((batch, 1, steps, width + steps), dtype=bool)
        visible[:, 0, :, :width] = stored[:, None]
        visible[:, 0, :, width:] = np.tri(steps, dtype=bool)
        positions = torch.from_numpy(np.asarray(starts)[:, None] + np.arange(steps)).to(self.device)
        mask = torch.from_numpy(visible).to(self.device)
        tap = Tap()
        missing = self._empty_rows(empty, batch, width + steps)
        tap.empty = None if missing is None else torch.from_numpy(missing).to(slab.device)
        return self._run(ids, positions, mask, slab, width, tap)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits [n, vocab] in float32 of final hidden states [n, d]."""
        return self.head(hidden).float() if self._lean is None else linear(hidden, self.head)

    def _run(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        slab: torch.Tensor,
        start: int,
        tap: Tap | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> Block:
        tap = tap or Tap()
        output = self.base(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=slab_cache(slab, start, cache_dtype or self.cache_dtype),
            use_cache=True,
            kvroam_tap=tap,
        )
        return Block(slab[:, start:], tap.stacked(), output.last_hidden_state)

    def _run_lean(
        self,
        ids: torch.Tensor,
        positions: np.ndarray,
        columns: torch.Tensor,
        lengths: np.ndarray,
        empty: np.ndarray | None = None,
    ) -> Block:
        """As `_run` with a slab [L, 2, B, Hkv, N, D]; the arguments are those of `Lean.run`."""
        assert self._lean is not None
        queries, hidden = self._lean.run(ids, positions, columns, lengths, self.cache_dtype, empty)
        new = columns[..., columns.shape[4] - ids.shape[1] :, :]
        return Block(new.permute(2, 4, 0, 1, 3, 5), queries, hidden)

    def _columns(self, batch: int, columns: int) -> torch.Tensor:
        shape = self.geometry
        return torch.empty(shape.layers, 2, batch, shape.kv_heads, columns, shape.head_dim)

    def _empty_rows(
        self, empty: Sequence[np.ndarray | None] | None, batch: int, columns: int
    ) -> np.ndarray | None:
        """Which rows of a slab heads do not hold, bool [B, L, Hkv, N]; None where all hold all."""
        if empty is None or all(rows is None for rows in empty):
            return None
        missing = np.zeros((batch, self.geometry.layers, self.geometry.kv_heads, columns), dtype=bool)
        for out, rows in zip(missing, empty, strict=True):
            if rows is not None:
                out[..., : len(rows)] = rows.transpose(1, 2, 0)
        return missing

    @torch.inference_mode()
    def _faster(self) -> Lean | None:
        """The lean forward pass, where it gives the numbers of the model's own modules; None elsewhere."""
        if not supports(self.model) or not isinstance(self.head, torch.nn.Linear):
            return None
        shape = self.geometry
        lean = Lean(self.base, shape.heads, shape.kv_heads, shape.head_dim, self.scaling)
        ids = torch.arange(12)[None] * 5 % self.vocab
        slab = torch.empty(1, 12, *shape.row)
        expected = self._run(ids, torch.arange(12)[None], None, slab, 0, cache_dtype=self.dtype)
        columns, where = self._columns(1, 12), np.arange(12)[None]
        queries, hidden = lean.run(ids, where, columns, np.zeros(1, np.int64), self.dtype)
        pairs = ((hidden, expected.hidden), (queries, expected.queries))
        close = all(float((a - b).abs().max()) <= 1e-4 * max(1.0, float(b.abs().max())) for a, b in pairs)
        return lean if close else None

    def _padded(self, sequences: Sequence[np.ndarray]) -> torch.Tensor:
        """Token ids int64 [B, T], padded with 0 at the right."""
        ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence)] = sequence
        return torch.from_numpy(ids).to(self.device)

    @torch.inference_mode()
    def _probe(self, name: str) -> tuple[float, list[Any]]:
        """Check on eight tokens that our attention and head reproduce the model's own logits.

        Returns:
            The scaling of the dot product, and the attention module of each layer.
        """
        ids = torch.arange(8, device=self.device)[None] % self.vocab
        expected = self.model(input_ids=ids, use_cache=False).logits.float()
        install(self.model)
        tap = Tap()
        slab = torch.empty(1, 8, *self.geometry.row, dtype=self.dtype, device=self.device)
        try:
            block = self._run(ids, torch.arange(8, device=self.device)[None], None, slab, 0, tap, self.dtype)
        except (TypeError, KeyError, RuntimeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{name} does not run on kvroam's cache ({reason}); use a Llama-like model") from error
        scalings = set(tap.scaling.values())
        if len(tap.scaling) != self.geometry.layers or len(scalings) != 1:
            raise ModelError(
                f"{name} bypasses transformers' attention interface in some layers; use a Llama-like model"
            )
        error_size = float((self.logits(block.hidden[0]) - expected[0]).abs().max())
        limit = (1e-3 if self.dtype == torch.float32 else 0.1) * max(1.0, float(expected.abs().max()))
        if not error_size <= limit:
            raise ModelError(
                f"{name}: logits differ by {error_size:.3g} (limit {limit:.3g}) when recomputed from its cache; its "
                "attention or head does more than a Llama's, use a Llama-like model"
            )
        return scalings.pop(), [tap.modules[i] for i in sorted(tap.modules)]


def fingerprint(model: Any) -> str:
    """Hex digest of a model's cache-relevant shape and of up to 4096 evenly spaced numbers of every weight."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        flat = value.detach().reshape(-1)
        sample = flat[:: max(1, math.ceil(flat.numel() / 4096))].float().cpu().numpy()
        digest.update(f"{key}{tuple(value.shape)}".encode() + sample.tobytes())
    config = model.config.get_text_config(decoder=True)
    digest.update(repr(sorted((getattr(config, "rope_parameters", None) or {}).items(), key=str)).encode())
    return digest.hexdigest()[:32]
