"""Who takes part in an evaluation, and under which name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import agents
from ..errors import ConfigError, KvroamWarning

_NAMED = re.compile(r"([A-Za-z0-9_][\w.+-]*)=(.+)")


def split_name(text: str) -> tuple[str | None, str]:
    """NAME=PATH as (NAME, PATH), and anything else, such as `pallas:bits=8`, as (None, text)."""
    match = _NAMED.fullmatch(text)
    return (match[1], match[2]) if match and not Path(text).exists() else (None, text)


def by_name(texts: Iterable[str], option: str) -> dict[str, str]:
    """What an option lists, by the name that it gives it (NAME=PATH), or else the stem of its path.

    Args:
        texts: what the user wrote.
        option: such as "--config", for the message.

    Raises:
        ConfigError: two have one name.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, path = split_name(text)
        name = Path(path).stem if name is None else name
        if name in found:
            raise ConfigError(f"{option} names {name!r} twice ({found[name]} and {path}): {_apart(path)}")
        found[name] = path
    return found


class Player(NamedTuple):
    """Somebody who takes part: what the user gave, and the policy that was made of it."""

    given: Any
    policy: Any


def gather(policies: Sequence[Any] | Mapping[str, Any], environment: Any, seed: int) -> dict[str, Player]:
    """Who takes part, by name.

    Args:
        policies: names, checkpoints, NAME=PATH or Policy objects; or a mapping that names them.
        environment: the configuration they will act in.
        seed: of policies that draw random numbers.

    Raises:
        PolicyError: one of them cannot be used.
        ConfigError: two have one name, or there is none.
    """
    given = [(name, policy) for name, policy in policies.items()] if isinstance(policies, Mapping) else [
        split_name(policy) if isinstance(policy, str) else (None, policy) for policy in policies]
    if not given:
        raise ConfigError(f"no policy was given: choose among {', '.join(agents.names())}, or give a checkpoint")
    found: dict[str, Player] = {}
    for name, one in given:
        policy = agents.make(one, environment, seed)
        name = policy.name if name is None else name
        if name in found:
            raise ConfigError(f"policy {name!r} was given twice: {_apart(one if isinstance(one, str) else name)}")
        found[name] = Player(one, policy)
    return found


def run_folders(players: Mapping[str, Player]) -> dict[str, Path]:
    """The folders of the players that are runs of train.py, or checkpoints in one."""
    paths = {name: Path(player.given) for name, player in players.items() if isinstance(player.given, (str, Path))}
    return {name: path if path.is_dir() else path.parent for name, path in paths.items() if path.exists()}


def warn_of_training_seeds(players: Mapping[str, Player], seeds: Sequence[int]) -> None:
    """Warn where a learned policy is evaluated in the very worlds that it was trained in."""
    for name, player in players.items():
        seen = sorted(set(seeds) & set(getattr(player.policy, "training_seeds", ())))
        if seen:
            shown = f"seed {seen[0]}" if len(seen) == 1 else f"seeds {seen[0]} to {seen[-1]}"
            warnings.warn(f"policy {name!r} was trained on {shown}, and is evaluated there, too: choose other seeds, "
                          "such as --seed 1000", KvroamWarning, stacklevel=3)


def _apart(path: str) -> str:
    return f"tell them apart with NAME=PATH, such as other={path}"
