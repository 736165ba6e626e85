"""The KV-cache backend: real sessions on a real model, their handover through bytes, and the drift that follows."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, KvroamError
from .drift import Drift
from .handing import Handovers
from .model.forward import LanguageModel
from .model.loading import load_network, tokenizer_fingerprint
from .saving import own_text, resume, saved
from .scorers.monitor import Monitor
from .sessions.ledger import Ledger
from .sessions.memo import Memo
from .sessions.reference import Reference, build, check_script, content_key, extended
from .sessions.session import Session, check_open
from .sessions.stepping import feed, feed_freely
from .settings import KVSettings


class KVBackend(Handovers):
    """Sessions on one language model.

    torch's number of threads is used as it is and never changed; on a busy machine, one thread is often much faster.

    Args:
        model: a Hugging Face causal language model with rotary positions and full attention in every layer; it is
            put in eval mode and its attention implementation is replaced.
        tokenizer_fingerprint: travels in payloads; a receiver with another one refuses them.
        tokenizer: kept as an attribute, not used.
        settings: how tokens are ranked.
        cache_dtype: the serving precision, to which keys and values are rounded as they are written. With float16
            the 16-bit wire format is lossless; float32 does not round.
        memory_bytes: bound on references and degraded caches together.
        memo: whether `measure` remembers its results and does not compute exact repeats again.

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
        memo: bool = True,
    ) -> None:
        self.settings = settings or KVSettings()
        self.tokenizer, self.tokenizer_fingerprint = tokenizer, tokenizer_fingerprint
        self.llm = LanguageModel(model, cache_dtype)
        self._ledger = Ledger(memory_bytes)
        self._memo = Memo() if memo else None

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
            ConfigError: torch does not have this device.
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

    @property
    def memo_hits(self) -> int:
        """Measurements that `measure` remembered instead of computing them; 0 when it does not remember."""
        return 0 if self._memo is None else self._memo.hits

    def reference(self, tokens: Any, answer: Any = None, query: Any = None, fact: Any = None) -> Reference:
        """Prefill a whole script once; the same content is not prefilled again while it is remembered.

        Args:
            tokens: int [S], at most `max_tokens`.
            answer: int [S], 0 no answer token, 1 hot, 2 cold; optional.
            query: int [S], which answer a token belongs to; optional, runs of equal marks by default.
            fact: int [S], which fact a token states or answers, -1 for none; optional, without it no answer is strict.

        Raises:
            ConfigError: the script is unusable, or open sessions leave no memory for it.
        """
        return self.references([(tokens, answer, query, fact)])[0]

    @torch.inference_mode()
    def references(self, scripts: Sequence[Any]) -> list[Reference]:
        """Prefill scripts in micro-batches.

        Args:
            scripts: each an array or list of tokens, a tuple (tokens, answer, query, fact) as for `reference`, or an
                object with these attributes, such as the embedded model's `Script`.
        """
        checked = [check_script(self.llm, *_script_parts(item)) for item in scripts]
        keys = [content_key(*item) for item in checked]
        found = {key: self._ledger.get(key) for key in keys}
        missing = {key: item for key, item in zip(keys, checked, strict=True) if found[key] is None}
        for built in build(self.llm, list(missing.values()), self.settings.batch_tokens):
            self._ledger.remember(built)
            found[built.key] = built
        return [reference for key in keys if (reference := found[key]) is not None]

    @torch.inference_mode()
    def self_answered(self, references: Sequence[Reference]) -> list[Reference]:
        """References of the same scripts in which the model's own answers, given with a whole cache, are read back.

        They are what sessions that never move come to read with `advance(..., own_answers=True)`.
        """
        sessions = [self.open(reference, 1) for reference in references]
        self.advance(sessions, [session.remaining for session in sessions], own_answers=True)
        made = []
        for session, script in zip(sessions, references, strict=True):
            text = session.reference
            session.close()
            if text is not script:  # what a session that never moved answers is what this one did
                text = Reference(
                    text.tokens, text.marks, text.kv, text.queries, text.hidden, text.correct, script.says
                )
                known = self._ledger.get(text.key)
                if known is None:
                    self._ledger.remember(text)
                text = known or text
            made.append(text)
        return made

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
    def append(
        self, session: Session, tokens: Any, answer: Any = None, query: Any = None, fact: Any = None
    ) -> Drift:
        """Continue a session freely: new tokens follow what it has read, and it reads them.

        The rest of its script, if any, is dropped; other sessions on the same script keep theirs. The first new token
        is not judged: the row that predicts it has been read before.

        Returns:
            The drift over the new tokens, as `advance` measures it.
        """
        check_open([session])
        new = check_script(self.llm, tokens, answer, query, fact)
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
        twin.failed, twin.lost_at = set(session.failed), session.lost_at
        twin.expect(session.part, None if session.rest is None else session.rest.copy())
        if session.monitor is not None:
            self.watch(twin)
        return twin

    def save(self, session: Session, reference: Reference | None = None) -> dict[str, Any]:
        """A session as plain data, without its script and its monitor; a rest that is kept for it is in it.

        Args:
            reference: what `reopen` will be given; the session may have gone on from it with answers of its own.
        """
        check_open([session])
        return saved(session, reference or session.reference)

    @torch.inference_mode()
    def reopen(self, reference: Reference, data: dict[str, Any]) -> Session:
        """The session that `save` has noted, on a reference of the same script.

        Raises:
            ConfigError: no memory left.
        """
        session = self.open(own_text(reference, data), data["length"])
        try:
            resume(session, data, self._ledger)
            self._ledger.require(0)
        except KvroamError:
            session.close()
            raise
        return session

    @torch.inference_mode()
    def watch(self, session: Session) -> Monitor:
        """Keep a session's window saliency up to date from now on, so that its handovers need not compute it.

        `migrate` and `fork` carry the monitor on; a session that is restored from a payload starts without one.

        Returns:
            The monitor, which the session keeps until it is closed.

        Raises:
            ConfigError: a closed session, or no memory left.
        """
        check_open([session])
        monitor = Monitor(session, self.llm.scaling, self.settings.monitor_window, self.settings.scope)
        monitor.update()
        self._ledger.require(monitor.nbytes)
        session.monitor = monitor
        session.account()
        return monitor

    def close(self, session: Session) -> None:
        """Give a session's memory back; its reference stays remembered while there is room."""
        session.close()

    @torch.inference_mode()
    def advance(
        self, sessions: Sequence[Session], counts: Sequence[int] | np.ndarray, own_answers: bool = False
    ) -> Drift:
        """Feed each session the next `count` tokens of its script, and compare with the whole cache.

        A whole session costs no forward pass and has no drift. The others run teacher-forced on their own degraded
        caches, which grow by these tokens, so that later handovers compound.

        Args:
            own_answers: at the tokens of answers, sessions read what they predict themselves instead of what the script
                says. Where that differs, a session goes on with a text of its own: the whole cache that it is compared
                with has read this text, prefixes and repairs rebuild it, and answers are still judged by the script.

        Raises:
            ConfigError: a count outside [0, tokens that remain], a closed or repeated session.
        """
        steps = self._checked_counts(sessions, counts)
        if own_answers:
            drift = feed_freely(self.llm, self.settings.batch_tokens, list(sessions), steps)
        else:
            drift = feed(self.llm, self.settings.batch_tokens, list(sessions), steps, move=True)
        self._refresh(sessions)
        return drift

    @torch.inference_mode()
    def measure(self, sessions: Sequence[Session], horizon: int) -> Drift:
        """As `advance` by `horizon` tokens, or by what remains of the script, but the sessions do not move.

        A cache that has been measured before, number by number the same, is not measured again; see `memo_hits`.
        """
        if horizon < 0:
            raise ConfigError(f"horizon = {horizon} is negative; give a number of tokens")
        counts = [min(int(horizon), session.remaining) for session in sessions]
        steps = self._checked_counts(sessions, counts)
        if self._memo is None:
            return feed(self.llm, self.settings.batch_tokens, list(sessions), steps, move=False)
        drift = Drift.zeros(len(sessions))
        keys = [None if s.whole else self._memo.key(s, n) for s, n in zip(sessions, steps, strict=True)]
        new = self._memo.recall(keys, drift)
        chosen = [sessions[i] for i in new]
        fresh = feed(self.llm, self.settings.batch_tokens, chosen, [steps[i] for i in new], move=False)
        self._memo.remember([keys[i] for i in new], fresh)
        for field in fields(Drift):
            getattr(drift, field.name)[new] = getattr(fresh, field.name)
        return drift

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
    if not hasattr(item, "tokens"):
        return (item,)
    return (item.tokens, item.answer, item.query, getattr(item, "fact", None))
