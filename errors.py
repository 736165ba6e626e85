"""The errors that a user can cause and repair; commands (kvroam.commands) print them as one line, exit code 2."""


class KvroamError(ValueError):
    """Base class: the message names the value, the limit and the remedy."""


class ConfigError(KvroamError):
    """A configuration key or value that cannot be used."""


class SceneError(KvroamError):
    """A scene that does not exist, or whose files are not what their manifest says."""


class PayloadError(KvroamError):
    """A KV payload that is truncated, altered, or made by another model."""


class ModelError(KvroamError):
    """A language model that is absent or whose caches cannot be pruned correctly."""


class PolicyError(KvroamError):
    """A policy name or a checkpoint that cannot be used."""


class KvroamWarning(UserWarning):
    """What a user should know and may go on with; commands print it as one line."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds; a configuration's loader adds the key to it."""
    if not condition:
        raise ValueError(message)
