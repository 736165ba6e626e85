"""The KV-cache backend: real sessions on a real model, their handover through bytes, and the drift that follows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError
from . import codec
from .drift import Drift
from .forward import LanguageModel
from .loading import load_network, tokenizer_fingerprint
from .memory import Ledger
from .reference import Reference, build, check_script, content_key, extended
from .sessions import Migration, Rows, Session, check_open
from .settings import KVSettings, TransferPlan
from .stepping import feed
from .transfer import receive, send, snapshot_of


class KVBackend:
    """Sessions on one language model.

    Args:
        model: a Hugging Face causal language model with rotary positions and full attention in every layer; it is
            put in eval mode and its attention implementation is replaced.
        tokenizer_fingerprint: travels in payloads; a receiver with another one refuses them.
        tokenizer: kept as an attribute, not used.
        settings: how tokens are ranked.
        cache_dtype: the serving precision, to which keys and values are rounded as they are written. With float16
            the 16-bit wire format is lossless; float32 does not round.
        memory_bytes: bound on references and degraded caches together.

    Raises:
        ModelError: the cache of this model cannot be pruned correctly.
    """

    def __init__(
        self,
        model: Any,
        tokenizer_fingerprint: str = "",
        tokenizer: Any = None,
        settings: KVSettings | None = None,
        cache_dtype: torch.dtype = torch.float16,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self.settings = settings or KVSettings()
        self.tokenizer, self.tokenizer_fingerprint = tokenizer, tokenizer_fingerprint
        self.llm = LanguageModel(model, cache_dtype)
        self._ledger = Ledger(memory_bytes)

    @classmethod
    def load(
        cls,
        model: str = "embedded",
        device: str | None = None,
        settings: KVSettings | None = None,
        cache_dtype: torch.dtype = torch.float16,
        memory_bytes: int = 2 << 30,
        dtype: torch.dtype = torch.float32,
    ) -> "KVBackend":
        """Load the embedded model, or any suitable causal language model by Hugging Face name or path.

        Args:
            model: "embedded", a name, or a folder.
            device: a torch device; CUDA when there is one by default.
            dtype: precision of weights and computing; float32 shows the smallest drift.

        Raises:
            ModelError: the model is absent or unsuitable.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        network, tokenizer = load_network(model, device, dtype)
        mark = tokenizer_fingerprint(tokenizer)
        return cls(network, mark, tokenizer, settings, cache_dtype, memory_bytes)

    @property
    def max_tokens(self) -> int:
        """Longest script [tokens]."""
        return self.llm.max_tokens

    @property
    def memory_used(self) -> int:
        """Bytes that references and degraded caches take now."""
        return self._ledger.used

    def bytes_per_token(self, bits: int) -> float:
        """Payload bytes per token at 32, 16, 8 or 4 bits, scales and positions included, header not."""
        TransferPlan(bits=bits)
        shape = self.llm.geometry
        return codec.bytes_per_token(shape.layers, shape.kv_heads, shape.head_dim, bits)

    def reference(self, tokens: Any, answer: Any = None, query: Any = None) -> Reference:
        """Prefill a whole script once; the same content is not prefilled again while it is remembered.

        Args:
            tokens: int [S], at most `max_tokens`.
            answer: int [S], 0 no answer token, 1 hot, 2 cold; optional.
            query: int [S], which answer a token belongs to; optional, runs of equal marks by default.

        Raises:
            ConfigError: the script is unusable, or open sessions leave no memory for it.
        """
        return self.references([(tokens, answer, query)])[0]

    @torch.inference_mode()
    def references(self, scripts: Sequence[Any]) -> list[Reference]:
        """Prefill scripts in micro-batches.

        Args:
            scripts: each an array or list of tokens, a tuple (tokens, answer, query) as for `reference`, or an object
                with these attributes, such as the embedded model's `Script`.
        """
        checked = [check_script(self.llm, *_script_parts(item)) for item in scripts]
        keys = [content_key(*item) for item in checked]
        found = {key: self._ledger.get(key) for key in keys}
        missing = {key: item for key, item in zip(keys, checked, strict=True) if found[key] is None}
        for built in build(self.llm, list(missing.values()), self.settings.batch_tokens):
            self._ledger.remember(built)
            found[built.key] = built
        return [reference for key in keys if (reference := found[key]) is not None]

    def open(self, tokens_or_reference: Any, length: int | None = None) -> Session:
        """Open a session that has read the first `length` tokens of its script, all by default, with a whole cache.

        Raises:
            ConfigError: length outside [1, S], or no memory left.
        """
        reference = tokens_or_reference
        if not isinstance(reference, Reference):
            reference = self.reference(tokens_or_reference)
        length = len(reference) if length is None else int(length)
        if not 1 <= length <= len(reference):
            raise ConfigError(f"length = {length} is outside [1, {len(reference)}], the tokens of the script")
        return Session(reference, length, self._ledger.lease(reference))

    @torch.inference_mode()
    def append(self, session: Session, tokens: Any, answer: Any = None, query: Any = None) -> Drift:
        """Continue a session freely: new tokens follow what it has read, and it reads them.

        The rest of its script, if any, is dropped; other sessions on the same script keep theirs.

        Returns:
            The drift over the new tokens, as `advance` measures it.
        """
        check_open([session])
        new = check_script(self.llm, tokens, answer, query)
        if session.length + len(new[0]) > self.max_tokens:
            raise ConfigError(
                f"{session.length} + {len(new[0])} tokens exceed the model's {self.max_tokens}; open a new session"
            )
        session.rebase(extended(self.llm, session.reference, session.length, *new))
        return self.advance([session], [len(new[0])])

    @torch.inference_mode()
    def fork(self, session: Session) -> Session:
        """An independent session in the same state."""
        check_open([session])
        if session.rows is not None:
            self._ledger.require(session.rows.nbytes)
        rows = None if session.rows is None else session.rows.copy()
        twin = Session(session.reference, session.length, self._ledger.lease(session.reference), rows)
        twin.failed = set(session.failed)
        return twin

    def close(self, session: Session) -> None:
        """Give a session's memory back; its reference stays remembered while there is room."""
        session.close()

    @torch.inference_mode()
    def migrate(self, sessions: Sequence[Session], plans: Sequence[TransferPlan]) -> list[Migration]:
        """Move each session by its plan: score, select, encode to bytes, decode, restore; sessions are changed.

        A session is whole afterwards if and only if the restored cache equals the whole one bit by bit; in particular
        a prefix that covers the session heals it.

        Raises:
            ConfigError: a snapshot beyond the session, a closed or repeated session, or no memory left.
        """
        check_open(list(sessions))
        if len(plans) != len(sessions):
            raise ConfigError(f"{len(plans)} plans for {len(sessions)} sessions; give one each")
        for session, plan in zip(sessions, plans, strict=True):
            snapshot_of(session, plan)  # refuse before the first session has changed
        return [self._migrate(session, plan) for session, plan in zip(sessions, plans, strict=True)]

    def _migrate(self, session: Session, plan: TransferPlan) -> Migration:
        blob = self.encode(session, plan)
        arrival = receive(self.llm, self.tokenizer_fingerprint, blob, session.reference)
        if arrival.whole:
            session.degrade(None)
        else:
            old = session.rows
            start = session.length if old is None else old.own_start
            own = session.reference.queries[:0] if old is None else old.queries
            rows = Rows(arrival.kv, arrival.positions, start, own)
            self._ledger.require(rows.nbytes - (0 if old is None else old.nbytes))
            session.degrade(rows)
        return Migration(len(blob), arrival.sent, len(arrival.kv), arrival.n_ctx, arrival.whole)

    @torch.inference_mode()
    def encode(self, session: Session, plan: TransferPlan) -> bytes:
        """The source's half of a handover: rank, select and encode; the session is not changed."""
        check_open([session])
        return send(self.llm, self.tokenizer_fingerprint, self.settings, session, plan)

    @torch.inference_mode()
    def restore(self, payload: bytes, reference: Reference) -> Session:
        """The target's half of a handover: a new session from a payload; the prefix is rebuilt from the script.

        Raises:
            PayloadError: the payload is damaged, or of another model, tokenizer or script.
        """
        arrival = receive(self.llm, self.tokenizer_fingerprint, payload, reference)
        rows = None
        if not arrival.whole:
            rows = Rows(arrival.kv, arrival.positions, arrival.n_ctx, reference.queries[:0])
            self._ledger.require(rows.nbytes)
        return Session(reference, arrival.n_ctx, self._ledger.lease(reference), rows)

    @torch.inference_mode()
    def advance(self, sessions: Sequence[Session], counts: Sequence[int] | np.ndarray) -> Drift:
        """Feed each session the next `count` tokens of its script, and compare with the whole cache.

        A whole session costs no forward pass and has no drift. The others run teacher-forced on their own degraded
        caches, which grow by these tokens, so that later handovers compound.

        Raises:
            ConfigError: a count outside [0, tokens that remain], a closed or repeated session.
        """
        steps = self._checked_counts(sessions, counts)
        return feed(self.llm, self.settings.batch_tokens, list(sessions), steps, move=True)

    @torch.inference_mode()
    def measure(self, sessions: Sequence[Session], horizon: int) -> Drift:
        """As `advance` by `horizon` tokens, or by what remains of the script, but the sessions do not move."""
        if horizon < 0:
            raise ConfigError(f"horizon = {horizon} is negative; give a number of tokens")
        counts = [min(int(horizon), session.remaining) for session in sessions]
        steps = self._checked_counts(sessions, counts)
        return feed(self.llm, self.settings.batch_tokens, list(sessions), steps, move=False)

    def _checked_counts(self, sessions: Sequence[Session], counts: Sequence[int] | np.ndarray) -> list[int]:
        check_open(list(sessions))
        if len(counts) != len(sessions):
            raise ConfigError(f"{len(counts)} counts for {len(sessions)} sessions; give one each")
        steps = [int(count) for count in counts]
        for i, (session, step) in enumerate(zip(sessions, steps, strict=True)):
            if not 0 <= step <= session.remaining:
                raise ConfigError(
                    f"session {i} has {session.remaining} tokens left in its script, count = {step} is outside that; "
                    "use append to go beyond"
                )
        return steps


def _script_parts(item: Any) -> tuple[Any, ...]:
    if isinstance(item, tuple):
        return item
    return (item.tokens, item.answer, item.query) if hasattr(item, "tokens") else (item,)
