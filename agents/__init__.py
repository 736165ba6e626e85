"""Policies: heuristics from the papers, simple baselines and learned ones, behind one small interface."""

from .base import Policy
from .handover.following import in_charge
from .registry import make, names

__all__ = ["Policy", "in_charge", "make", "names"]
