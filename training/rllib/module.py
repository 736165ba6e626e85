"""The policy that all agents share, as an RLlib RLModule: two MLPs, and masked choices.

The pattern of masks is that of RLlib's example `action_masking_rlm.py`: they are a part of the observation, and their
logarithms are added to the logits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchMultiCategorical
from ray.rllib.core.rl_module.apis.inference_only_api import InferenceOnlyAPI
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.torch_utils import FLOAT_MIN
from torch import nn

from .environment import MASK, OBSERVATIONS

POLICY = "shared"  # its name in RLlib


class MaskedPolicy(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """Logits of a MultiDiscrete action and a value, from observations with a mask.

    Its `model_config` has `hidden`, the units of each layer, `activation`, a class of torch.nn that stands after each,
    and `bias`, what is added to each logit at the start.
    """

    def setup(self) -> None:
        """Build the networks."""
        features = self.observation_space[OBSERVATIONS].shape[0]
        sizes = [int(n) for n in self.action_space.nvec]
        hidden = tuple(self.model_config["hidden"])
        activation = getattr(nn, self.model_config["activation"])
        self.actor = _mlp(features, hidden, activation, sum(sizes), 0.01)
        self.critic = _mlp(features, hidden, activation, 1, 1.0)
        with torch.no_grad():
            last = self.actor.get_parameter(f"{len(self.actor) - 1}.bias")
            last.add_(torch.as_tensor(self.model_config["bias"], dtype=torch.float32))
        self.action_dist_cls = TorchMultiCategorical.get_partial_dist_cls(
            space=gym.spaces.MultiDiscrete(sizes), input_lens=sizes)

    def get_non_inference_attributes(self) -> list[str]:
        """Who only acts needs no values."""
        return ["critic"]

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        seen = batch[Columns.OBS]
        masked = self.actor(seen[OBSERVATIONS]) + torch.clamp(torch.log(seen[MASK]), min=FLOAT_MIN)
        return {Columns.ACTION_DIST_INPUTS: masked}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Values [N] of the observations [N, F]."""
        return self.critic(batch[Columns.OBS][OBSERVATIONS]).squeeze(-1)


def _mlp(width: int, hidden: tuple[int, ...], activation: type[nn.Module], out: int, gain: float) -> nn.Sequential:
    """Linear layers with activations between them, initialised as Stable-Baselines3's: orthogonal, without biases."""
    layers: list[nn.Module] = []
    for a, b in pairwise((width, *hidden)):
        layers += [nn.Linear(a, b), activation()]
    layers.append(nn.Linear(hidden[-1] if hidden else width, out))
    for layer in layers[::2]:
        assert isinstance(layer, nn.Linear)
        nn.init.orthogonal_(layer.weight, gain if layer is layers[-1] else np.sqrt(2))
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def actor_weights(module: Any) -> dict[str, np.ndarray]:
    """What acts, by the names of a policy file (kvroam.agents.actor.Network.shapes), float32."""
    layers = list(module.actor)[::2]
    names = [*(f"hidden.{k}" for k in range(len(layers) - 1)), "logits"]
    return {f"{place}.{name}": tensor.detach().cpu().numpy().copy()
            for place, layer in zip(names, layers, strict=True) for name, tensor in layer.named_parameters()}
