"""The laws that worlds are made of, without any RL: mobility, radio, cell changes, backhaul, servers, sessions."""

from pathlib import Path

from .cache import drop_stale

_ENVS = Path(__file__).parent.parent
drop_stale((_ENVS / "sim", _ENVS / "handover", _ENVS / "handover" / "world"))
