"""kvroam: RL environments in which the KV cache of an LLM session follows its user through a mobile network."""

__version__ = "0.1.0"

from .envs import register as _register

_register()
