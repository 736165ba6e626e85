"""Sessions on one model: whole scripts, caches that handovers have degraded, what they hold, and how they read on.

`reference.py` is a script prefilled once, `session.py` a position in it, `rows.py` a degraded cache, `parts.py` one
that arrives in two parts, `stepping.py` lets sessions read and compares, `memo.py` remembers measurements, `ledger.py`
bounds the memory of all of them.
"""

from .rows import Rows
from .session import Session

__all__ = ["Rows", "Session"]
