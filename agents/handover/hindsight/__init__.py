"""Hindsight: the best plan that a search finds for every single handover of an episode whose future it knows.

A bound, not a competitor: what it costs is what the real simulator charges for a plan that can be followed.
"""

from .policy import Hindsight
from .search import Found, Limits, search

__all__ = ["Found", "Hindsight", "Limits", "search"]
