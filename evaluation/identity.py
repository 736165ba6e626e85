"""What the numbers of an episode depend on, as short fingerprints: two episodes are the same when all of it is."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..agents import own
from ..agents.learned import in_folder
from ..agents.registry import file_of
from ..errors import ConfigError
from ..experiment import Experiment, flat
from ..settings.loader import fingerprint
from .provenance import versions

# Whose text decides what happens in an episode and how it is measured.
_CODE = ("agents", "envs", "kvbackend", "settings", "training", "compat.py", "experiment.py",
         "evaluation/rollout.py", "evaluation/units.py")
_LIBRARIES = ("python", "numpy", "numba", "scipy", "torch", "transformers", "tokenizers", "stable-baselines3", "sionna")
_ROOT = Path(__file__).parents[1]


def of_scenario(experiment: Experiment[Any]) -> str:
    """The fingerprint of a world and of the objectives by which its episodes are judged, 12 hexadecimal digits.

    How many episodes are played, by whom, and how policies are trained there has no part in it. The content of files
    that the configuration names (a scene, a trace) has.

    Raises:
        ConfigError: such a file cannot be read.
    """
    config = flat(experiment)
    world = {key: value for key, value in config.items() if key not in ("train", "evaluate")}
    files = {text: _of_file(Path(text)) for text in sorted(set(_texts(world))) if text and Path(text).is_file()}
    return fingerprint({"world": world, "files": files, "objectives": experiment.evaluate.objectives})


def of_policy(given: Any, config: Any = None) -> dict[str, str] | None:
    """What tells a policy from all others, or None where nothing does: an object that somebody made in a program.

    Args:
        given: as kvroam.agents.make takes it.
        config: of the environment, whose task may ship a policy of that name.

    Returns:
        For a name its text; for a checkpoint the SHA-256 of the file, wherever it lies; for FILE.py:CLASS and
        MODULE:CLASS the class with its arguments and the SHA-256 of the source.

    Raises:
        ConfigError: a file cannot be read.
    """
    if not isinstance(given, (str, Path)):
        return None
    text = str(given)
    if own.is_own(text) and not (":" not in text and Path(text).exists()):
        where, _, rest = text.partition(".py:") if ".py:" in text else text.partition(":")
        if ".py:" in text:
            return {"class": rest, "source": _of_file(Path(f"{where}.py"))}
        return {"class": text, "source": _of_module(where)}
    path = file_of(text, config)
    if not path.exists():
        return {"name": text}
    return {"checkpoint": _of_file(in_folder(path) if path.is_dir() else path)}


def made_by(experiment: Experiment[Any], given: Any, seed: int) -> dict[str, Any] | None:
    """Everything that an episode of a policy depends on beside its own seed; None for a policy that is an object.

    Args:
        experiment: the world and the objectives.
        given: the policy.
        seed: that a policy of the user's own may be made with.

    Raises:
        ConfigError: a file cannot be read.
    """
    policy = of_policy(given, experiment.environment)
    if policy is None:
        return None
    return {"config": of_scenario(experiment), "policy": policy, "seed": seed, "kvroam": __version__, "code": of_code(),
            "libraries": {name: number for name, number in versions().items() if name in _LIBRARIES}}


@functools.cache
def of_code() -> str:
    """The fingerprint of the program text that plays episodes: a version number stays while code is being changed."""
    digest = hashlib.sha256()
    for name in _CODE:
        place = _ROOT / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror}): check the path") from error


def _of_module(name: str) -> str:
    """SHA-256 of the source of a module, or of all of the package that it belongs to."""
    if name.split(".")[0] == "kvroam":
        return of_code()
    try:
        top = importlib.util.find_spec(name.split(".")[0])
    except (ImportError, ValueError):
        top = None
    if top is None or top.origin is None:
        return "unknown"
    files: Iterable[Path] = [Path(top.origin)]
    if top.submodule_search_locations:
        files = sorted(path for folder in top.submodule_search_locations for path in Path(folder).rglob("*.py"))
    return hashlib.sha256("".join(map(_of_file, files)).encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """Every text in nested dicts and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
