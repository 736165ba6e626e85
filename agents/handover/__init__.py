"""Policies of the Handover task, and what one writes a policy with."""

from ...envs.handover.world.state import DETOUR, KV, SPLIT, TOKEN
from .plans import reactive_plans

__all__ = ["DETOUR", "KV", "SPLIT", "TOKEN", "reactive_plans"]
