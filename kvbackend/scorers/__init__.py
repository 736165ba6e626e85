"""Which cached tokens matter: one short file per published or obvious way to rank them.

`table.py` names them, `view.py` is what they look at, `repetition.py` lets the model repeat its context, `press.py`
asks a kvpress press, `fact_oracle.py` knows where facts stand, and `monitor.py` keeps the window's attention up to date
while tokens stream.
"""

from .base import Scorer
from .table import SCORERS

__all__ = ["SCORERS", "Scorer"]
