"""The environments: configuration, spaces, observations, rewards, episodes and their registration."""

from typing import Any

_EXPORTS = {
    "HandoverCentralEnv": ".views.central",
    "HandoverCentralVectorEnv": ".views.central",
    "HandoverConfig": ".handover.config",
    "HandoverCore": ".base.core",
    "HandoverEgoEnv": ".views.ego",
    "HandoverEgoVectorEnv": ".views.ego",
    "HandoverEnv": ".views.parallel",
    "NetworkView": ".handover.view",
    "env": ".views.aec",
    "parallel_env": ".views.parallel",
    "raw_env": ".views.aec",
}
__all__ = [
    "HandoverCentralEnv", "HandoverCentralVectorEnv", "HandoverConfig", "HandoverCore", "HandoverEgoEnv",
    "HandoverEgoVectorEnv", "HandoverEnv", "NetworkView", "env", "parallel_env", "raw_env", "register",
]


def register() -> None:
    """Register the environments with PettingZoo and Gymnasium; importing kvroam does it once."""
    import gymnasium
    import pettingzoo

    for kind, entry in (("parallel", "kvroam.envs.views.parallel:parallel_env"), ("aec", "kvroam.envs.views.aec:env")):
        known = pettingzoo.parallel_registry if kind == "parallel" else pettingzoo.aec_registry
        if "kvroam/Handover-v0" not in known:
            pettingzoo.register(kind, "kvroam/Handover-v0", entry_point=entry)
    for name in ("Central", "Ego"):
        if f"kvroam/Handover{name}-v0" not in gymnasium.registry:
            # No max_episode_steps: the environment truncates at its own horizon, whatever its configuration.
            path = f"kvroam.envs.views.{name.lower()}:Handover{name}"
            gymnasium.register(f"kvroam/Handover{name}-v0", entry_point=f"{path}Env",
                               vector_entry_point=f"{path}VectorEnv")


def __getattr__(name: str) -> Any:
    """Import on first use: `import kvroam` must not pay for numba."""
    if name in _EXPORTS:
        from importlib import import_module

        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
