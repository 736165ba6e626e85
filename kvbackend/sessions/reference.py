"""A whole script, prefilled once: what the session would be if nothing were ever lost."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ...errors import ConfigError
from ..drift import Marks, runs
from ..model.forward import Block, LanguageModel


class Reference:
    """The whole cache of a script, token-major; by causality the cache at position n is its first n rows.

    Attributes:
        tokens: int32 [S].
        kv: [S, L, 2, Hkv, D] at the cache dtype.
        queries: [S, L, H, D], rotated; saliency at any position needs no forward pass.
        hidden: [S, d], after the final norm; the LM head gives the logits at any position.
        marks: where facts are asked for.
        correct: list of bool, one per entry of marks.rows: whether the whole cache predicts that answer token.
        answered: list of bool, whether a session that never moved gets the whole answer right that the token is of.
        says: int32 [S], the script as it is written, by which answers are judged; `tokens` unless answers were fed back
            that somebody else gave.
        key: digest of tokens and marks.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        marks: Marks,
        kv: torch.Tensor,
        queries: torch.Tensor,
        hidden: torch.Tensor,
        correct: list[bool],
        says: np.ndarray | None = None,
        answered: list[bool] | None = None,
    ) -> None:
        self.tokens, self.marks, self.correct = tokens, marks, correct
        self.kv, self.queries, self.hidden = kv, queries, hidden
        self.says = tokens if says is None else says
        missed = {name for name, right in zip(marks.ids, correct, strict=True) if not right}
        self.answered = [name not in missed for name in marks.ids] if answered is None else answered
        self.key = content_key(tokens, marks.answer, marks.query, marks.fact, *(() if says is None else (says,)))
        self.nbytes = sum(x.numel() * x.element_size() for x in (kv, queries, hidden))

    def __len__(self) -> int:
        return len(self.tokens)


CheckedScript = tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None]


def content_key(tokens: np.ndarray, *marks: np.ndarray | None) -> bytes:
    """Digest of a script and its marks, the key under which its prefill is remembered."""
    digest = hashlib.blake2b(tokens.tobytes(), digest_size=16)
    for mark in marks:
        digest.update(b"none" if mark is None else mark.tobytes())
    return digest.digest()


def check_script(
    llm: LanguageModel, tokens: object, answer: object = None, query: object = None, fact: object = None
) -> CheckedScript:
    """Validate a script and bring it to int32 [S], int8 [S] or None, and twice int16 [S] or None.

    Raises:
        ConfigError: empty or too long a script, token ids outside the vocabulary, or marks of another length.
    """
    ids = np.asarray(tokens)
    if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu":
        raise ConfigError(f"tokens have shape {ids.shape} and dtype {ids.dtype}; give a non-empty list of token ids")
    if len(ids) > llm.max_tokens:
        raise ConfigError(f"a script of {len(ids)} tokens exceeds the model's {llm.max_tokens}; cut it")
    if ids.min() < 0 or ids.max() >= llm.vocab:
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise ConfigError(f"token id {bad} is outside [0, {llm.vocab}); use this model's tokenizer")
    marks: list[np.ndarray | None] = []
    for name, given, kind in (("answer", answer, np.int8), ("query", query, np.int16), ("fact", fact, np.int16)):
        array = None if given is None else np.asarray(given)
        if array is not None and array.shape != ids.shape:
            raise ConfigError(f"{name} has shape {array.shape}, tokens have {ids.shape}; give one mark per token")
        marks.append(None if array is None else np.ascontiguousarray(array, dtype=kind))
    if marks[0] is not None and (marks[0].min() < 0 or marks[0].max() > 2):
        raise ConfigError(f"answer holds marks {marks[0].min()}..{marks[0].max()}; use 0 none, 1 hot, 2 cold")
    if marks[0] is not None and marks[1] is not None and bool(((marks[0] > 0) & (marks[1] < 0)).any()):
        raise ConfigError("some answer tokens have query = -1; number each answer from 0, or leave query out")
    return np.ascontiguousarray(ids, dtype=np.int32), marks[0], marks[1], marks[2]


def build(llm: LanguageModel, scripts: Sequence[CheckedScript], batch_tokens: int) -> list[Reference]:
    """Prefill checked scripts in micro-batches of at most `batch_tokens` padded tokens; results in input order."""
    order = sorted(range(len(scripts)), key=lambda i: len(scripts[i][0]))
    built: dict[int, Reference] = {}
    while order:
        widest = len(scripts[order[-1]][0])
        count = max(1, batch_tokens // widest)
        chosen, order = order[-count:], order[:-count]
        block = llm.prefill([scripts[i][0] for i in chosen])
        for row, i in enumerate(chosen):
            tokens, *marks = scripts[i]
            built[i] = _from_block(llm, tokens, Marks(*marks), block, row)
    return [built[i] for i in range(len(scripts))]


def extended(
    llm: LanguageModel,
    old: Reference,
    length: int,
    tokens: np.ndarray,
    answer: np.ndarray | None,
    query: np.ndarray | None,
    fact: np.ndarray | None = None,
) -> Reference:
    """The reference of a script's first `length` tokens followed by new ones; only the new ones are computed.

    Marks of the new tokens get query ids above the old ones, so that answers do not run into one another; facts keep
    theirs, so that old ones can be asked for.
    """
    block = llm.extend([old.kv[:length]], [length], [tokens])
    marks = Marks(*_joined_marks(old, length, len(tokens), answer, query, fact))
    parts = ((old.kv, block.kv), (old.queries, block.queries), (old.hidden, block.hidden))
    kv, queries, hidden = (torch.cat([a[:length], b[0].to(a.dtype)]) for a, b in parts)
    said = np.concatenate([old.says[:length], tokens])
    correct = _correct(llm, said, hidden, marks)
    return Reference(np.concatenate([old.tokens[:length], tokens]), marks, kv, queries, hidden, correct, said)


def retold(
    llm: LanguageModel, old: Sequence[Reference], where: Sequence[int], tokens: Sequence[int]
) -> list[Reference]:
    """References of the same scripts in which one token, at position `where` >= 1, is another.

    Only what follows it is computed. What a session that never moved would answer stays as it was.
    """
    if not old:
        return []
    texts = [reference.tokens.copy() for reference in old]
    for text, at, token in zip(texts, where, tokens, strict=True):
        text[at] = token
    starts = [r.kv[:at] for r, at in zip(old, where, strict=True)]
    block = llm.extend(starts, list(where), [text[at:] for text, at in zip(texts, where, strict=True)])
    made = []
    for row, (before, at, text) in enumerate(zip(old, where, texts, strict=True)):
        size = len(text) - at
        parts = ((before.kv, block.kv), (before.queries, block.queries), (before.hidden, block.hidden))
        kv, queries, hidden = (torch.cat([a[:at], b[row, :size].to(a.dtype)]) for a, b in parts)
        correct = _correct(llm, before.says, hidden, before.marks)
        made.append(Reference(text, before.marks, kv, queries, hidden, correct, before.says, before.answered))
    return made


def _from_block(llm: LanguageModel, tokens: np.ndarray, marks: Marks, block: Block, row: int) -> Reference:
    size = len(tokens)
    # clone: a view would keep the whole padded batch alive
    kv = block.kv[row, :size].to(llm.cache_dtype, copy=True)
    hidden = block.hidden[row, :size].clone()
    return Reference(tokens, marks, kv, block.queries[row, :size].clone(), hidden, _correct(llm, tokens, hidden, marks))


def _correct(llm: LanguageModel, says: np.ndarray, hidden: torch.Tensor, marks: Marks) -> list[bool]:
    """Whether the whole cache predicts each marked answer token of a script."""
    if not marks.rows:
        return []
    rows = np.asarray(marks.rows)
    top = llm.logits(hidden[torch.from_numpy(rows).to(hidden.device)]).argmax(-1).cpu().numpy()
    return (top == says[rows + 1]).tolist()


def _joined_marks(
    old: Reference,
    length: int,
    count: int,
    answer: np.ndarray | None,
    query: np.ndarray | None,
    fact: np.ndarray | None,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    before = old.marks
    facts = None
    if before.fact is not None or fact is not None:
        told = np.full(length, -1, np.int16) if before.fact is None else before.fact[:length]
        facts = np.concatenate([told, np.full(count, -1, np.int16) if fact is None else fact])
    if before.answer is None and answer is None:
        return None, None, facts
    head = np.zeros(length, np.int8) if before.answer is None else before.answer[:length]
    tail = np.zeros(count, np.int8) if answer is None else answer
    ids_head = np.full(length, -1, np.int16)
    if before.answer is not None:
        ids_head = before.query[:length] if before.query is not None else runs(head)
    ids_tail = query if query is not None else runs(tail)
    shift = max(0, int(ids_head.max(initial=-1)) + 1)
    ids_tail = np.where(tail > 0, ids_tail + shift, -1).astype(np.int16)
    return np.concatenate([head, tail]), np.concatenate([ids_head, ids_tail]), facts
