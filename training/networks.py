"""Networks: an actor that sees its own row, and a critic that may see more."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from torch import nn


def layers(width: int, hidden: list[int], activation: type[nn.Module]) -> nn.Sequential:
    """Hidden layers, each with the activation behind it."""
    return nn.Sequential(*(module for a, b in pairwise([width, *hidden]) for module in (nn.Linear(a, b), activation())))


class Halves(nn.Module):
    """The hidden layers of an actor that sees the first `seen` numbers of a row, and of a critic that sees all.

    Named as Stable-Baselines3's MlpExtractor.
    """

    def __init__(self, width: int, seen: int, actor: list[int], critic: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.seen = seen
        self.policy_net, self.value_net = layers(seen, actor, activation), layers(width, critic, activation)
        self.latent_dim_pi, self.latent_dim_vf = actor[-1], critic[-1]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """What the choices are made from, [N, actor[-1]]."""
        return self.policy_net(features[:, :self.seen])

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """What the value is made from, [N, critic[-1]]."""
        return self.value_net(features)


class CentralCriticPolicy(MaskableActorCriticPolicy):
    """Centralised training, decentralised execution: the critic sees the whole row, the actor its first `seen` numbers.

    Source: MAPPO, Yu et al., arXiv 2103.01955.
    """

    def __init__(self, *args: Any, seen: int, **kwargs: Any) -> None:
        self.seen = seen
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        shape = self.net_arch if isinstance(self.net_arch, dict) else dict(pi=self.net_arch, vf=self.net_arch)
        self.mlp_extractor = Halves(  # type: ignore[assignment]
            self.features_dim, self.seen, shape["pi"], shape["vf"], self.activation_fn)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "seen": self.seen}
