"""Private interfaces of other libraries that kvroam uses: each behind a probe, with what happens where it is gone.

Stable-Baselines3: a logger keeps the scalars of an update until the end of the next rollout, in fields without a public
name. Without them a resumed run would miss one row of its `train/` scalars, and nothing else.
"""

from __future__ import annotations

import warnings
from typing import Any

from .errors import KvroamWarning

# Stable-Baselines3 2.7 to 2.9: what stable_baselines3.common.logger.Logger collects until `dump`.
_PENDING = ("name_to_value", "name_to_count", "name_to_excluded")


def pending_scalars(logger: Any) -> dict[str, dict[str, Any]]:
    """The scalars that a Stable-Baselines3 logger has recorded and not written yet; empty where they are not found."""
    if not all(isinstance(getattr(logger, name, None), dict) for name in _PENDING):
        _say_once()
        return {}
    return {name: dict(getattr(logger, name)) for name in _PENDING}


def restore_pending_scalars(logger: Any, scalars: dict[str, dict[str, Any]]) -> None:
    """Let a Stable-Baselines3 logger write, at its next `dump`, what `pending_scalars` found in another one."""
    if set(scalars) != set(_PENDING) or not all(isinstance(getattr(logger, name, None), dict) for name in _PENDING):
        _say_once()
        return
    for name, values in scalars.items():
        getattr(logger, name).update(values)


_said = False


def _say_once() -> None:
    global _said
    if not _said:
        _said = True
        warnings.warn("this Stable-Baselines3 keeps its pending scalars elsewhere: a resumed run misses one row of "
                      "the train/ scalars", KvroamWarning, stacklevel=3)
