"""Handover for Stable-Baselines3; apart from the other environments, which do not need that library."""

from __future__ import annotations

from ..views.sb3 import StableBaselinesView
from .task import HandoverTask


class HandoverVecEnv(StableBaselinesView):
    """Every UE of every environment as one row of a Stable-Baselines3 VecEnv; all UEs share one policy."""

    task = HandoverTask
