"""Handovers at telling moments: a script cut where its situation holds, and marked for what was lost there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ....errors import ConfigError
from ..scripts import COLD, HOT, HOT_TOKENS, SITUATIONS, Script
from ..tokenizer import ASK, FACT

_QUESTION, _ANSWERED = 4, 7  # tokens of `<ask>noun_suffix=`, and with value and line break
_QUIET = 48  # [tokens] without fact or question before the end of an adverse stretch of text


def moment(script: Script, situation: str, start: int) -> int:
    """The first position from `start` on at which a handover meets the situation.

    Args:
        script: Of this situation.
        situation: "pending": right after questions that are open; "answered": right after answers; "adverse": after
            a long stretch of text, before the next question; "text": at `start`.
        start: Least position [tokens].

    Returns:
        Tokens that have been read by then.

    Raises:
        ConfigError: An unknown situation, or none of its moments lies in the script.
    """
    if situation not in SITUATIONS:
        raise ConfigError(f"situation {situation!r} is unknown; choose one of {', '.join(SITUATIONS)}")
    asks = np.flatnonzero(script.tokens[: len(script.tokens) - _ANSWERED] == ASK)
    open_ones = script.answer[asks + _QUESTION] == 0
    if situation == "text":
        found = np.array([start])
    elif situation == "adverse":
        busy = np.flatnonzero(np.isin(script.tokens, (ASK, FACT)))
        before = np.searchsorted(busy, asks) - 1
        found = asks[(before >= 0) & (asks - busy[before] >= _QUIET)]
    else:
        wanted, size = (open_ones, _QUESTION) if situation == "pending" else (~open_ones, _ANSWERED)
        last = ~np.isin(asks + size, asks)  # nothing is asked right behind it
        found = asks[wanted & last] + size
    later = found[(found >= start) & (found < len(script.tokens))]
    if not later.size:
        raise ConfigError(f"no {situation} moment after token {start} of a script of {len(script.tokens)}; lengthen it")
    return int(later[0])


def judged_at(script: Script, context: int) -> Script:
    """The script with marks that tell what a handover at `context` has cost.

    An answer counts if it can be read from before the handover only: its fact was stated there, and its value does not
    stand after it before the answer. It is hot if a question named the fact within the last HOT_TOKENS tokens before
    the handover, cold if not, whatever was asked since.

    Args:
        script: As `make_script` wrote it.
        context: The handover [tokens].

    Returns:
        The script with other `answer` marks from `context` on.
    """
    tokens, answer = script.tokens, script.answer.copy()
    answer[context:] = 0
    # Only a fact stated before the handover has an entry here.
    numbers = {tuple(tokens[at + 1 : at + 3]): script.fact[at + 3] for at in np.flatnonzero(tokens[:context] == FACT)}
    asks = np.flatnonzero(tokens[:context] == ASK)
    named = {numbers.get(tuple(tokens[at + 1 : at + 3])) for at in asks if at >= context - HOT_TOKENS}
    seen: set[int] = set()
    for query in np.unique(script.query[context:][script.query[context:] >= 0]):
        at = np.flatnonzero(script.query == query)
        number = int(script.fact[at[0]])
        if at[0] >= context and number in numbers.values() and number not in seen:
            answer[at] = HOT if number in named else COLD
        seen.add(number)
    return replace(script, answer=answer)
