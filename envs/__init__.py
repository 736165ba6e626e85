"""The environments: configuration, spaces, observations, rewards, episodes and their registration."""

from typing import Any

_EXPORTS = {
    "HandoverConfig": ".config",
    "HandoverCore": ".core",
    "HandoverEnv": ".handover",
    "NetworkView": ".view",
    "parallel_env": ".handover",
}
__all__ = ["HandoverConfig", "HandoverCore", "HandoverEnv", "NetworkView", "parallel_env", "register"]


def register() -> None:
    """Register the environments with PettingZoo; importing kvroam does it once."""
    import pettingzoo

    if "kvroam/Handover-v0" not in pettingzoo.parallel_registry:
        pettingzoo.register("parallel", "kvroam/Handover-v0", entry_point="kvroam.envs.handover:parallel_env")


def __getattr__(name: str) -> Any:
    """Import on first use: `import kvroam` must not pay for numba."""
    if name in _EXPORTS:
        from importlib import import_module

        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
