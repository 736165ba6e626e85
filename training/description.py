"""What a checkpoint says about itself, as JSON beside its tensors, so that nothing in it has to be executed.

A checkpoint is a .zip that Stable-Baselines3 wrote, with `kvroam.json` added. Stable-Baselines3's own entry `data` is
JSON with pickled Python objects in it, which run code when they are unpickled: that is never done here.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PolicyError
from ..experiment import Experiment, flat
from ..settings.fields import build
from ..settings.loader import fingerprint, to_dict

ENTRY = "kvroam.json"
FORMAT = 1
ALGORITHM = "PPO"
ACTIVATIONS = ("Tanh", "ReLU", "ELU", "LeakyReLU", "GELU", "SiLU")
_TENSORS = "policy.pth"


@dataclass(frozen=True)
class Description:
    """What has to be known to act with a checkpoint, and to tell whose it is."""

    format: int
    algorithm: str
    task: str
    fingerprint: str  # of `config`
    config: dict[str, Any]  # the experiment it was trained with (kvroam.experiment.flat)
    observation_size: int
    action_sizes: tuple[int, ...]
    policy_layers: tuple[int, ...]  # units of the hidden layers
    value_layers: tuple[int, ...]
    activation: str  # one of ACTIVATIONS
    steps: int  # agent-steps of training


def describe(model: Any, experiment: Experiment[Any]) -> Description:
    """The description of a Stable-Baselines3 model that was trained in an experiment's environment.

    Raises:
        PolicyError: the model needs more than its network to act, so a checkpoint of it would act wrongly.
    """
    from gymnasium import spaces
    from stable_baselines3 import PPO
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.torch_layers import FlattenExtractor

    policy, name = model.policy, type(model).__name__
    if type(model) is not PPO:
        raise PolicyError(f"{name} cannot be stored as a checkpoint: kvroam acts with PPO only")
    if model.get_vec_normalize_env() is not None:
        raise PolicyError("PPO under VecNormalize cannot be stored as a checkpoint: it would act without its "
                          "statistics; train without VecNormalize (observations are scaled already)")
    layers = policy.net_arch if isinstance(policy.net_arch, dict) else dict(pi=policy.net_arch, vf=policy.net_arch)
    plain = (type(policy) is ActorCriticPolicy and type(policy.features_extractor) is FlattenExtractor
             and policy.share_features_extractor and not policy.use_sde
             and isinstance(model.action_space, spaces.MultiDiscrete)
             and policy.activation_fn.__name__ in ACTIVATIONS)
    if not plain:
        raise PolicyError(f"{type(policy).__name__} cannot be stored as a checkpoint: use MlpPolicy with MultiDiscrete "
                          f"actions, layers given as numbers, and an activation among {', '.join(ACTIVATIONS)}")
    config, sizes = flat(experiment), getattr(model.action_space, "nvec", ())
    features = int(np.prod(model.observation_space.shape or ()))
    return Description(
        FORMAT, ALGORITHM, config["task"], fingerprint(config), config, features,
        tuple(int(n) for n in sizes), tuple(layers.get("pi", ())), tuple(layers.get("vf", ())),
        policy.activation_fn.__name__, int(model.num_timesteps))


def add_to(path: Path, description: Description) -> None:
    """Put the description into a .zip that Stable-Baselines3 has written."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(ENTRY, json.dumps(to_dict(description), indent=1))


def read(path: Path) -> Description:
    """The description in a checkpoint, checked; nothing of the file is executed.

    Raises:
        PolicyError: it is not a checkpoint of train.py, is of another format or algorithm, or its parts do not agree.
    """
    where = f"checkpoint {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(ENTRY) if ENTRY in archive.namelist() else None
            foreign = "" if text is not None else _foreign(archive)
        mapping = json.loads(text) if text is not None else {}
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        kind = type(error).__name__
        raise PolicyError(f"{where} cannot be read ({kind}): give a .zip written by train.py") from error
    if text is None:
        raise PolicyError(f"{where} {foreign}")
    made = mapping.get("format") if isinstance(mapping, dict) else None
    if made != FORMAT:
        raise PolicyError(f"{where} has format {made!r}, this version reads {FORMAT}: train it anew")
    try:
        description = build(Description, mapping, where=where)
    except ValueError as error:
        raise PolicyError(str(error)) from error
    if description.algorithm != ALGORITHM:
        raise PolicyError(f"{where} is of {description.algorithm!r}: kvroam acts with {ALGORITHM} only")
    if fingerprint(description.config) != description.fingerprint:
        raise PolicyError(f"{where} was altered: its configuration is not the one of its hash "
                          f"{description.fingerprint}; train it anew")
    return description


def load_policy(path: Path, description: Description) -> Any:
    """The network of a checkpoint, as a Stable-Baselines3 ActorCriticPolicy on the CPU; only tensors are read.

    Raises:
        PolicyError: the tensors cannot be read, or are not those of the network that is described.
    """
    import torch
    from gymnasium import spaces
    from stable_baselines3.common.policies import ActorCriticPolicy

    where = f"checkpoint {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = torch.load(io.BytesIO(archive.read(_TENSORS)), map_location="cpu", weights_only=True)
        elements = sum(tensor.numel() for tensor in tensors.values())
    except Exception as error:  # torch raises many kinds for a damaged or a crafted file
        raise PolicyError(f"{where} cannot be read ({type(error).__name__} in {_TENSORS}): train it anew") from error
    if description.activation not in ACTIVATIONS:
        raise PolicyError(f"{where} has activation {description.activation!r}; known: {', '.join(ACTIVATIONS)}")
    heads = ((description.policy_layers, sum(description.action_sizes)), (description.value_layers, 1))
    if not all(_fits([description.observation_size, *layers, out], elements) for layers, out in heads):
        raise PolicyError(f"{where} has fewer weights than its description says: train it anew")
    low = np.full(description.observation_size, -np.inf, np.float32)
    # A network is initialised before its weights are replaced, which must not move the caller's generator.
    with torch.random.fork_rng(devices=[]):
        policy = ActorCriticPolicy(
            spaces.Box(low, -low), spaces.MultiDiscrete(list(description.action_sizes)), lambda _: 0.0,
            net_arch=dict(pi=list(description.policy_layers), vf=list(description.value_layers)),
            activation_fn=getattr(torch.nn, description.activation), ortho_init=False)
    try:
        policy.load_state_dict(tensors, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise PolicyError(f"{where} has other weights than its description says: train it anew") from error
    return policy.to("cpu")


def _fits(widths: Sequence[int], elements: int) -> bool:
    """Whether layers of these widths, at least 1, have no more weights than there are, so that they can be built."""
    return min(widths) >= 1 and sum(a * b for a, b in pairwise(widths)) <= elements


def _foreign(archive: zipfile.ZipFile) -> str:
    """What a .zip without a description is, from the plain JSON that Stable-Baselines3 writes, and what to do."""
    remedy = ("kvroam acts with PPO checkpoints of train.py, or of "
              "kvroam.training.checkpoints.save(model, path, experiment)")
    if "data" not in archive.namelist():
        return f"is not a checkpoint: {remedy}"
    try:
        data = json.loads(archive.read("data"))
        policy = data.get("policy_class", {})
        module = policy.get("__module__", "") if isinstance(policy, dict) else ""
        if "recurrent" in module or any("lstm" in key for key in data):
            return f"is of RecurrentPPO, which would act without its state here: {remedy}"
        if "maskable" in module:
            return f"is of MaskablePPO, which would act without its masks here: {remedy}"
        if data.get("_last_original_obs") is not None:
            return f"was trained under VecNormalize and would act without its statistics: {remedy}"
    except (ValueError, AttributeError, TypeError):
        return f"is not a checkpoint: {remedy}"
    return f"is of Stable-Baselines3 alone, and reading it would run code that is stored in it: {remedy}"
