"""The errors that a user can cause and mend; the commands print them as one line and exit with code 2."""


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


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds; a configuration's loader adds the key to it."""
    if not condition:
        raise ValueError(message)


def run_command(name: str, command, arguments: list[str] | None = None) -> int:
    """Run a command line's `command(arguments)`; a user's error becomes one line on stderr and exit code 2.

    Returns:
        The exit code: 0, 2 for an error that the user can mend, 130 when interrupted from the keyboard.
    """
    import sys

    try:
        command(arguments)
    except KvroamError as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 0
