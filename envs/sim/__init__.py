"""The physics, without any RL: mobility, radio, cell changes, backhaul, prefill servers, sessions, migration."""

from pathlib import Path

from .cache import drop_stale

drop_stale((Path(__file__).parent, Path(__file__).parent.parent))
