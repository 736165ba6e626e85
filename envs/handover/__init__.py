"""Handover: what should happen to an LLM session's KV cache when its user changes cell.

Read task.py first; config.py, actions.py, observations.py, rewards.py, metrics.py and scoring.py are its parts,
world/ is the simulator, environments.py what users make.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "HandoverConfig": "config",
    "HandoverTask": "task",
    "HandoverVecEnv": "sb3",
    "NetworkView": "view",
    **dict.fromkeys(("HandoverEnv", "HandoverAEC", "HandoverCentralEnv", "HandoverCentralVectorEnv", "HandoverEgoEnv",
                     "HandoverEgoVectorEnv", "env", "parallel_env", "raw_env"), "environments"),
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    """Import on first use: `import kvroam` must not pay for numba, nor everybody for Stable-Baselines3."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
