"""The physics, without any RL: mobility, radio, cell changes, backhaul, prefill servers, sessions, migration."""

from pathlib import Path

from .cache import drop_stale

_ENVS = Path(__file__).parent.parent
drop_stale((_ENVS / "base", _ENVS / "sim", _ENVS / "handover", _ENVS / "handover" / "world"))
