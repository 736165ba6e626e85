"""A trained policy as one file of data, `policy.safetensors`: tensors of its network, and JSON that says whose it is.

The safetensors format holds numbers only, so nothing in it can be executed. The text under the key "kvroam" of its
header is `About`. Two hashes show whether the tensors, or what is said about them, were altered by accident; they do
not prove who wrote a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.base import registry
from ..errors import PolicyError
from ..experiment import Experiment, flat
from ..files import write_whole
from ..settings.fields import build
from ..settings.loader import fingerprint, to_dict
from .actor import ACTIVATIONS, Actor, Network, Normalisation

FORMAT = 2
SUFFIX = ".safetensors"
_KEY = "kvroam"
_LARGEST_HEADER = 100_000_000  # bytes; safetensors itself reads no larger one
# Of Stable-Baselines3: the algorithms by their classes, and the prefix of the actor's hidden layers.
_CLASSES = {"PPO": "ppo", "MaskablePPO": "maskable-ppo", "RecurrentPPO": "recurrent-ppo"}
_HIDDEN = "mlp_extractor.policy_net."
_MAKE = "make one with train.py, or with kvroam.training.checkpoints.save(model, path, experiment)"


@dataclass(frozen=True)
class About:
    """What has to be known to act with a policy, and to tell whose it is."""

    format: int
    environment: str  # id, such as kvroam/Handover-v0
    algorithm: str
    actions: tuple[tuple[str, int], ...]  # name and number of choices of each part
    observations: tuple[str, ...]  # names of the features
    network: Network
    normalisation: Normalisation | None
    decisions: bool  # asked at decision points only (kvroam.envs.base.decisions); false: in every interval
    masked: bool  # choices that can have no effect are closed to it
    config: dict[str, Any]  # the experiment it was trained with (kvroam.experiment.flat)
    fingerprint: str  # of `config`
    steps: int  # of training: decisions, or agent-steps where it is asked in every interval
    sha256: str = ""  # of the tensors: name, shape and bytes of each, sorted by name
    about_sha256: str = ""  # of everything above


@dataclass(frozen=True)
class PolicyFile:
    """The content of one file."""

    about: About
    tensors: Mapping[str, np.ndarray]  # float32, by the names of Network.shapes

    def actor(self) -> Actor:
        """The network, ready to act."""
        about = self.about
        return Actor(about.network, self.tensors, [size for _, size in about.actions], about.normalisation)


def environment_id(config: Any) -> str:
    """The id of the environment that a configuration is for."""
    task = registry.task(config.task)
    return f"kvroam/{task.title}-v{task.version}"


def layout(config: Any) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    """Names and sizes of the parts of an action, and names of the features, of the environment of a configuration."""
    parts, features = registry.task(config.task).layout(config)
    return tuple((part.name, part.size) for part in parts), tuple(feature.name for feature in features)


def assemble(experiment: Experiment[Any], network: Network, tensors: Mapping[str, np.ndarray], *, algorithm: str,
             decisions: bool, masked: bool, steps: int, normalisation: Normalisation | None = None) -> PolicyFile:
    """A policy file from the tensors of an actor, of whatever library.

    Args:
        experiment: what it was trained in.
        network: kind and shape.
        tensors: float32, by the names of `network.shapes`.
        algorithm: what trained it.
        decisions: it is asked at decision points only.
        masked: it acts with masks.
        steps: of training.
        normalisation: of its observations.

    Raises:
        PolicyError: tensors of other names or shapes.
    """
    actions, observations = layout(experiment.environment)
    config = flat(experiment)
    kept = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    about = About(FORMAT, environment_id(experiment.environment), algorithm, actions, observations, network,
                  normalisation, decisions, masked, config, fingerprint(config), int(steps), _hash_of(kept))
    found = PolicyFile(replace(about, about_sha256=_hash_about(about)), kept)
    _check_tensors(found, "this policy")
    return found


def from_sb3(model: Any, experiment: Experiment[Any], decisions: bool, masked: bool,
             algorithm: str | None = None) -> PolicyFile:
    """The actor of a Stable-Baselines3 model: PPO, MaskablePPO or RecurrentPPO, or an algorithm derived from them.

    Args:
        model: with layers given as numbers, MultiDiscrete actions, and observations as the environment gives them,
            or normalised by VecNormalize, or by a features extractor with `mean` and `scale`.
        experiment: what it was trained in.
        decisions: it is asked at decision points only.
        masked: it acts with masks.
        algorithm: what trained it; default: by the class of the model.

    Raises:
        PolicyError: the model has something that the file cannot hold, so that it would act wrongly when it is read.
    """
    found = [_CLASSES[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in _CLASSES]
    name = type(model).__name__
    if not found:
        raise PolicyError(f"{name} cannot be stored as a policy: use PPO, MaskablePPO or RecurrentPPO")
    policy = model.policy
    activation = policy.activation_fn.__name__
    nvec = getattr(model.action_space, "nvec", None)
    if nvec is None or activation not in ACTIVATIONS or getattr(policy, "use_sde", False):
        raise PolicyError(f"{type(policy).__name__} cannot be stored as a policy: use MultiDiscrete actions and an "
                          f"activation among {', '.join(ACTIVATIONS)}")
    actions, observations = layout(experiment.environment)
    sizes = [int(n) for n in nvec]
    # A critic may see more; the actor sees the first numbers of a row (kvroam.training.networks).
    features = int(getattr(policy, "seen", np.prod(model.observation_space.shape or ())))
    if (len(observations), [size for _, size in actions]) != (features, sizes):
        raise PolicyError(f"{name} acts on {features} observations with actions {sizes}, the experiment's environment "
                          f"has {len(observations)} and {[size for _, size in actions]}: give its own experiment")
    state = {key: value.detach().cpu().numpy().copy() for key, value in policy.state_dict().items()}
    layers = sorted(int(key.split(".")[2]) for key in state if key.startswith(_HIDDEN) and key.endswith(".weight"))
    tensors = {f"logits.{kind}": state[f"action_net.{kind}"] for kind in ("weight", "bias")}
    tensors |= {f"hidden.{k}.{kind}": state[f"{_HIDDEN}{place}.{kind}"] for k, place in enumerate(layers)
                for kind in ("weight", "bias")}
    lstm = {key.replace("lstm_actor.", "lstm."): value for key, value in state.items()
            if key.startswith("lstm_actor.")}
    network = Network("lstm" if lstm else "mlp", tuple(len(state[f"{_HIDDEN}{place}.bias"]) for place in layers),
                      activation, policy.lstm_actor.hidden_size if lstm else 0,
                      policy.lstm_actor.num_layers if lstm else 0)
    return assemble(experiment, network, tensors | lstm, algorithm=algorithm or found[0], decisions=decisions,
                    masked=masked, steps=model.num_timesteps, normalisation=_normalisation(model, features))


def into_sb3(found: PolicyFile, model: Any) -> None:
    """Give a Stable-Baselines3 model the actor of a policy file; its value function stays as it is.

    Raises:
        PolicyError: the policy has no network, or the model's has another shape.
    """
    import torch

    if found.about.network.kind == "numbers":
        raise PolicyError("the policy to start from has no network but numbers of a planner: imitate it instead "
                          "(train.imitate)")
    names = {}
    for name in found.tensors:
        kind, _, rest = name.partition(".")
        if kind == "hidden":
            # Activations stand between the linear layers.
            number, _, which = rest.partition(".")
            names[name] = f"{_HIDDEN}{2 * int(number)}.{which}"
        else:
            names[name] = {"logits": "action_net.", "lstm": "lstm_actor."}[kind] + rest
    own = model.policy.state_dict()
    actor = {key: tuple(value.shape) for key, value in own.items()
             if key.startswith((_HIDDEN, "action_net.", "lstm_actor."))}
    given = {names[name]: tuple(array.shape) for name, array in found.tensors.items()}
    activation = model.policy.activation_fn.__name__
    if actor != given or activation != found.about.network.activation or found.about.normalisation is not None:
        raise PolicyError(f"the policy to start from has the network {to_dict(found.about.network)}, the one that is "
                          "trained another: set train.hidden and train.algorithm to those of its training")
    own |= {names[name]: torch.from_numpy(np.array(array)) for name, array in found.tensors.items()}
    model.policy.load_state_dict(own)


def _normalisation(model: Any, features: int) -> Normalisation | None:
    wrapper, extractor = model.get_vec_normalize_env(), model.policy.features_extractor
    if wrapper is not None and wrapper.norm_obs:
        seen = wrapper.obs_rms
        return Normalisation(tuple(seen.mean.tolist()), tuple(np.sqrt(seen.var + wrapper.epsilon).tolist()),
                             float(wrapper.clip_obs))
    if type(extractor).__name__ == "FlattenExtractor":
        return None
    mean, scale = (getattr(extractor, name, None) for name in ("mean", "scale"))
    if mean is None or scale is None or len(mean) != features:
        raise PolicyError(f"{type(extractor).__name__} cannot be stored as a policy: use MlpPolicy as it is, or an "
                          "extractor that normalises with one `mean` and `scale` per feature")
    return Normalisation(tuple(map(float, mean)), tuple(map(float, scale)))


def write(path: Path, found: PolicyFile) -> None:
    """Write the file, whole or not at all.

    Raises:
        PolicyError: the path does not end in .safetensors.
        ConfigError: it cannot be written.
    """
    from safetensors.numpy import save

    if path.suffix != SUFFIX:
        raise PolicyError(f"policy {str(path)!r} ends in {path.suffix!r}: name it *{SUFFIX}")
    text = json.dumps(to_dict(found.about), sort_keys=True, allow_nan=False)
    content = save(dict(found.tensors), metadata={_KEY: text})
    write_whole(path, lambda draft: draft.write_bytes(content))


def read(path: Path) -> PolicyFile:
    """The content of a file, checked; nothing of it is executed.

    Raises:
        PolicyError: it is absent, damaged, altered, no policy file, or of another version of the format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    where = f"policy {str(path)!r}"
    content = _content(path, where)
    try:
        text = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])["__metadata__"][_KEY]
        mapping = json.loads(text)
        made = mapping["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"{where} is a safetensors file that kvroam did not write: {_MAKE}") from error
    if made != FORMAT:
        raise PolicyError(f"{where} has format {made!r}, this version reads {FORMAT}: train it anew")
    try:
        about = build(About, mapping, where=where)
        tensors = load(content)
    except SafetensorError as error:
        raise PolicyError(f"{where} is damaged ({error}): copy it again, or train it anew") from error
    except ValueError as error:
        raise PolicyError(str(error)) from error
    if _hash_about(about) != about.about_sha256 or fingerprint(about.config) != about.fingerprint:
        raise PolicyError(f"{where} was altered: what it says about itself has another SHA-256 than it had when it was "
                          "written; copy it again, or train it anew")
    if _hash_of(tensors) != about.sha256:
        raise PolicyError(f"{where} was altered: its tensors have another SHA-256 than when they were written; copy it "
                          "again, or train it anew")
    found = PolicyFile(about, tensors)
    _check_tensors(found, where)
    return found


def check(found: PolicyFile, config: Any, where: str) -> None:
    """Refuse a policy of another environment, or one whose actions or observations are other ones.

    Raises:
        PolicyError: the first difference, by name.
    """
    about, wanted = found.about, environment_id(config)
    if about.environment != wanted:
        raise PolicyError(f"{where} was trained for {about.environment}, this is {wanted}: use a policy of the same "
                          "environment")
    if about.network.kind == "numbers":
        return  # it reads what policies read, not observations
    actions, observations = layout(config)
    for what, theirs, ours in (
            ("actions", [f"{name} ({size} choices)" for name, size in about.actions],
             [f"{name} ({size} choices)" for name, size in actions]),
            ("observations", list(about.observations), list(observations))):
        if theirs == ours:
            continue
        place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
                     min(len(theirs), len(ours)))
        a, b = (names[place] if place < len(names) else "nothing" for names in (theirs, ours))
        raise PolicyError(f"{where} was trained on other {what} than this environment has: number {place} was {a}, "
                          f"here it is {b} ({len(theirs)} and {len(ours)} in all); use the configuration it was "
                          "trained with")


def _content(path: Path, where: str) -> bytes:
    """The bytes of a file that looks like safetensors; others are told apart and refused without being opened."""
    if path.suffix in (".zip", ".pkl", ".pickle", ".pth", ".pt"):
        raise PolicyError(f"{where} is not opened: a {path.suffix} of Stable-Baselines3 or torch may run code when it "
                          f"is read; {_MAKE}")
    if not path.is_file():
        raise PolicyError(f"{where} is absent: give a {SUFFIX} file or a run folder made by train.py")
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[:2] == b"PK":
        raise PolicyError(f"{where} is not opened: it is a .zip, whatever its name, and may run code when it is read; "
                          f"{_MAKE}")
    if len(start) < 9 or start[8:] != b"{" or length > _LARGEST_HEADER:
        raise PolicyError(f"{where} is not a safetensors file: {_MAKE}")
    if 8 + length > size:
        raise PolicyError(f"{where} is damaged: it ends before its header does; copy it again, or train it anew")
    return path.read_bytes()


def _check_tensors(found: PolicyFile, where: str) -> None:
    about = found.about
    wanted = about.network.shapes(len(about.observations), sum(size for _, size in about.actions))
    given = {name: tuple(array.shape) for name, array in found.tensors.items()}
    if given != wanted:
        name = min(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        raise PolicyError(f"{where} has other tensors than its network: {name} is {given.get(name)}, expected "
                          f"{wanted.get(name)}")
    bad = sorted(name for name, array in found.tensors.items()
                 if array.dtype != np.float32 or not np.isfinite(array).all())
    if bad:
        raise PolicyError(f"{where}: tensor {bad[0]} must be float32 and finite")
    normalisation = about.normalisation
    if normalisation is not None and len(normalisation.mean) != len(about.observations):
        raise PolicyError(f"{where} normalises {len(normalisation.mean)} features of {len(about.observations)}")


def _hash_of(tensors: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        found.update(f"{name} {array.dtype} {array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _hash_about(about: About) -> str:
    told = to_dict(replace(about, about_sha256=""))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
