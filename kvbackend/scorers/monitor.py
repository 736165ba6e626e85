"""Saliency kept up to date while tokens stream: the mobility plane's semantic monitoring."""

import numpy as np
import torch

from ..sessions.rows import Rows
from ..sessions.session import Session
from .view import View

_SPARE_ROWS = 64


class Monitor:
    """The attention that each of a session's newest queries pays to its cache, kept from token to token.

    A handover then adds up one window of stored weights, with no forward pass and no product of queries and keys. The
    numbers are those that `View.attention` computes from stored queries at the handover; only the moment differs. A
    handover that prunes makes the weights wrong (softmax over fewer keys), so the window is recomputed once after it.

    What it is worth: less time at the handover, not less work, since every token on the way costs an update. Unless
    a session moves again after a few tokens, ranking from stored queries at the handover, the default, is less work.

    Args:
        session: the session; `KVBackend.watch` puts the monitor there.
        scaling: factor of the dot product of the model that the session runs on.
        window: newest queries whose attention is kept [tokens].
        scope: as `View` has it.

    Source: ChaoHu, clawRxiv 2604.01548, token saliency tracked during streaming.
    """

    def __init__(self, session: Session, scaling: float, window: int, scope: str) -> None:
        self._session, self._scaling, self.window, self._scope = session, scaling, window, scope
        self._rows: Rows | None = None
        self.length = 0  # queries before this position are in the ring [tokens]
        self._ring = torch.zeros(0)  # [..., window, capacity], the query of position p in slot p % window

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return self._ring.numel() * self._ring.element_size()

    def update(self) -> None:
        """Take in the tokens that the session has read since; all of the window where its cache was replaced."""
        session, window = self._session, self.window
        if session.rows is not self._rows or self.length > session.length:
            self._rows, self.length = session.rows, 0
        if self.length == session.length:
            return
        view = View(session, session.length, self._scaling, self._scope)
        self._reserve(view)
        start = max(self.length, session.length - window)
        weights = view.attention_rows(start, session.length)
        slots = torch.arange(start, session.length) % window
        self._ring[..., slots, : weights.shape[-1]] = weights.cpu()
        self.length = session.length

    def attention(self, view: View, start: int) -> np.ndarray | None:
        """What `View.attention` returns, float64 [..., n]; None where the view is not of this window."""
        session, window = self._session, self.window
        if view.session is not session or view.stop != session.length or start != max(0, view.stop - window):
            return None
        if view.per_head != (self._scope == "head" or session.positions.ndim == 3):
            return None
        self.update()
        return self._ring[..., : len(view.keys)].sum(-2, dtype=torch.float64).numpy()

    def _reserve(self, view: View) -> None:
        """Make the ring wide enough for the view; a new one where the lists are shared by other heads than before."""
        shape, needed = (*view.lead, self.window), len(view.keys)
        same = self._ring.shape[:-1] == shape
        if same and self._ring.shape[-1] >= needed and self.length:
            return
        old = self._ring if same and self.length else torch.zeros(*shape, 0)
        self._ring = torch.zeros(*shape, needed + needed // 2 + _SPARE_ROWS)
        self._ring[..., : old.shape[-1]] = old
