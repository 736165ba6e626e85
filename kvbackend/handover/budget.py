"""Absolute budgets: how much of a session a plan sends when it names tokens or bytes instead of a fraction."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...errors import ConfigError
from ..sessions.session import Session
from ..settings import TransferPlan


def within_tokens(session: Session, plan: TransferPlan, snapshot: int) -> TransferPlan:
    """The plan with `keep` instead of `budget_tokens`.

    Tokens after the snapshot are always sent and spend the budget first; what is left is for [prefix, snapshot). The
    fraction is exact: select_rows multiplies and rounds it back to this number.

    Raises:
        ConfigError: the tokens that are always sent leave no room for one that is chosen.
    """
    if plan.budget_tokens is None:
        return plan
    start, always = min(plan.prefix_tokens, session.length), _always_sent(session, plan, snapshot)
    size = snapshot - start
    if size <= 0:
        return replace(plan, budget_tokens=None)
    if plan.budget_tokens <= always:
        raise ConfigError(
            f"budget_tokens = {plan.budget_tokens} does not exceed the {always} tokens after snapshot_tokens = "
            f"{snapshot}, which are always sent; give {always + 1} or more, or a later snapshot"
        )
    return replace(plan, budget_tokens=None, keep=min(1.0, (plan.budget_tokens - always) / size))


def encode_within_bytes(
    session: Session,
    plan: TransferPlan,
    snapshot: int,
    bytes_per_token: float,
    encode: Callable[[TransferPlan], bytearray],
) -> bytearray:
    """Encode as many tokens as `budget_bytes` allows, header, positions, scales and checksums included.

    The first guess has no header, so that most calls encode twice; quantisation groups may leave part of one unused.

    Args:
        bytes_per_token: of a long payload at the plan's width.
        encode: makes the payload of a plan that has no budget in bytes.

    Raises:
        ConfigError: the budget does not hold one token beside what is always sent.
    """
    limit = plan.budget_bytes
    assert limit is not None
    always = _always_sent(session, plan, snapshot)
    most = always + max(0, snapshot - min(plan.prefix_tokens, session.length))
    least = min(most, always + 1)
    count = max(least, min(most, int(limit // bytes_per_token)))
    while True:
        blob = encode(replace(plan, budget_bytes=None, budget_tokens=max(count, 1)))
        if len(blob) <= limit:
            return blob
        if count <= least:
            raise ConfigError(
                f"budget_bytes = {limit} is below the {len(blob)} bytes of the least payload, {least} tokens at "
                f"{plan.bits} bits; raise it, or use fewer bits"
            )
        count = max(least, count - int(np.ceil((len(blob) - limit) / bytes_per_token)))


def _always_sent(session: Session, plan: TransferPlan, snapshot: int) -> int:
    """Tokens at or after the snapshot that the cache holds; where heads differ, the most that one head holds."""
    held = session.positions >= max(snapshot, min(plan.prefix_tokens, session.length))
    return int(held.sum(axis=0).max(initial=0)) if held.ndim > 1 else int(held.sum())
