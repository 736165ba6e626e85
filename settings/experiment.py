"""How an experiment is trained and evaluated; with the environment's keys they make up one YAML file."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import require


@dataclass(frozen=True)
class TrainConfig:
    """Stable-Baselines3 PPO with parameters shared by all UEs."""

    total_steps: int = 1_000_000  # agent-steps (environment steps times UEs)
    num_envs: int = 8  # environments side by side
    seed: int = 0
    rollout_steps: int = 128  # per environment and update
    batch_size: int = 2048  # agent-steps per gradient step
    epochs: int = 6  # passes over a rollout
    learning_rate: float = 1e-3  # at the start; it falls linearly to 0
    gamma: float = 0.997  # discount per decision interval
    gae_lambda: float = 0.97
    entropy: float = 0.001  # weight of the entropy bonus
    clip: float = 0.2  # PPO's clipping range
    harmless_bias: float = 3.0  # logit bonus at the start for: prepare nothing, keep all, 16 bit, equal share
    reward_scale: float = 5.0  # rewards are multiplied by this for PPO only
    hidden: tuple[int, ...] = (128, 128)  # units per layer, of the policy and of the value function
    checkpoint_every: int = 100_000  # agent-steps between checkpoints

    def __post_init__(self) -> None:
        for name in ("total_steps", "num_envs", "rollout_steps", "batch_size", "epochs", "learning_rate",
                     "checkpoint_every", "reward_scale"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be above 0")
        require(self.batch_size >= 2,
                f"batch_size is {self.batch_size}: it must be at least 2, PPO normalises the advantages of a batch")
        require(0 <= self.gamma <= 1, f"gamma is {self.gamma}: it must lie in [0, 1]")


@dataclass(frozen=True)
class EvaluateConfig:
    """What evaluate.py does when the command line does not say otherwise."""

    policies: tuple[str, ...] = ("random", "tho", "cho", "ctho", "token-aware")
    episodes: int = 8
    seed: int = 0
    ttft_objective_s: float = 0.5  # a handover, or a request, meets its objective below this [s]
    tpot_objective_s: float = 0.1  # and if tokens then come faster than this [s]
