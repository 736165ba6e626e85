"""Policies: heuristics from the papers, simple baselines and learned ones, behind one small interface."""

from .base import Policy
from .registry import make, names, role, shipped

__all__ = ["Policy", "make", "names", "role", "shipped"]
