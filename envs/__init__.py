"""The environments: what they share (base, views, sim, scenes, render), and one folder per task."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .base import registry

_EXPORTS = {
    "Core": ".base.core",
    "Task": ".base.task",
    "make_core": ".base.make",
    **dict.fromkeys(("HandoverCentralEnv", "HandoverCentralVectorEnv", "HandoverConfig", "HandoverEgoEnv",
                     "HandoverEgoVectorEnv", "HandoverEnv", "HandoverTask", "HandoverVecEnv", "NetworkView", "env",
                     "parallel_env", "raw_env"), ".handover"),
}
__all__ = [*_EXPORTS, "register"]


def register() -> None:
    """Announce every task to PettingZoo (parallel and AEC) and Gymnasium (Central and Ego); import kvroam does it."""
    import gymnasium
    import pettingzoo

    for name in registry.names():
        home, title = registry.home(name), name.title().replace("_", "")
        for kind, known, entry in (("parallel", pettingzoo.parallel_registry, "parallel_env"),
                                   ("aec", pettingzoo.aec_registry, "env")):
            if f"kvroam/{title}-v0" not in known:
                pettingzoo.register(kind, f"kvroam/{title}-v0", entry_point=f"{home}:{entry}")
        for view in ("Central", "Ego"):
            if f"kvroam/{title}{view}-v0" not in gymnasium.registry:
                # No max_episode_steps: the environment truncates at its own horizon, whatever its settings.
                gymnasium.register(f"kvroam/{title}{view}-v0", entry_point=f"{home}:{title}{view}Env",
                                   vector_entry_point=f"{home}:{title}{view}VectorEnv")


def __getattr__(name: str) -> Any:
    """Import on first use: `import kvroam` must not pay for numba."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
