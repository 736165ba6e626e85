"""The configuration of an environment: the world (envs.sim.params) plus actions, reward, scoring and episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from ...errors import require
from ..base.config import TaskConfig
from ..base.config import resolve as resolve_task
from ..base.declare import price, terms_of
from ..sim.params import (
    PLAN_BITS,
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
    require_finite,
)

LONGEST_INTERVAL_S = 60.0  # what happens within an interval is kept until its end
MOST_STEPS = 10**9


@dataclass(frozen=True)
class ActionConfig:
    """Levels behind the MultiDiscrete action [target, medium, keep, precision, share, backfill, arrival, repair,
    prefix]."""

    trigger: Literal["a3", "policy"] = "a3"  # who hands a UE over: event A3, or the action (one more part)
    candidates: int = 3  # strongest neighbour cells that may be prepared [cells]
    prepare: bool = True  # neighbours can be prepared; false: sessions move at the handover, or after it
    keep: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.1)  # share of the transferred tokens that is kept [1]
    bits: tuple[int, ...] = PLAN_BITS  # precision of the transferred KV [bit]
    weight: tuple[float, ...] = (1.0, 4.0, 0.25, 0.0)  # bandwidth weight of the transfer; 0 waits [1]
    # weight of what keep leaves out, which follows; 0: it does not [1]
    backfill: tuple[float, ...] = (0.0, 0.1, 0.25, 1.0)
    prefix: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)  # share of a context that a split rebuilds, besides balanced [1]

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.candidates >= 1, f"candidates is {self.candidates}: it must be at least 1")
        for name in ("keep", "bits", "weight", "backfill"):
            require(len(getattr(self, name)) > 0, f"{name} is empty: it needs at least one level")
        for keep in self.keep:
            require(0.0 < keep <= 1.0, f"keep contains {keep}: a keep ratio must lie in (0, 1]")
        for bits in self.bits:
            require(bits in PLAN_BITS, f"bits contains {bits}: choose among {', '.join(map(str, PLAN_BITS))}")
        for weight in self.weight:
            require(weight >= 0.0, f"weight contains {weight}: a bandwidth weight must not be negative")
        for share in self.prefix:
            require(0.0 < share < 1.0, f"prefix contains {share}: a split rebuilds a share in (0, 1)")
        for weight in self.backfill:
            require(weight >= 0.0, f"backfill contains {weight}: a bandwidth weight must not be negative")
        require(max(self.weight) > 0.0, f"weight is {self.weight}: at least one level must be above 0")


@dataclass(frozen=True)
class RewardConfig:
    """Price of each term of the reward; a UE's reward is minus the sum of price times amount, per step."""

    interruption: float = price(1.0, "second without service while the user waits for tokens")
    late: float = price(1.0, "second of waiting for a first token beyond the TTFT objective")
    slow: float = price(1.0, "second that tokens take beyond the TPOT objective")
    outage: float = price(0.1, "second without a usable radio link")
    drift: float = price(0.01, "nat of KL divergence, summed over the tokens of the step")
    wrong: float = price(1.0, "wrong answer where the whole cache would have given the right one")
    detour: float = price(1.0, "second of delay that forwarding adds to a stream")
    traffic: float = price(0.1, "gigabyte on the backhaul")
    gpu: float = price(0.1, "second of prefill for a migration or a repair")
    waste: float = price(0.1, "gigabyte sent, and second computed, for a migration that was cancelled")
    # A price here needs a policy that decides handovers.
    pingpong: float = price(0.0, "return to the previous cell")
    sharing: Literal["individual", "team"] = "individual"  # team: every UE receives the mean over the UEs

    def __post_init__(self) -> None:
        require_finite(self)
        for term in terms_of(RewardConfig):
            value = getattr(self, term.name)
            require(value >= 0, f"{term.name} is {value}: a price must not be negative")


TERMS = terms_of(RewardConfig)


@dataclass(frozen=True)
class ScoringConfig:
    """How a step is scored: by a language model whose KV cache is really moved, or not at all."""

    # kv: real caches on a real model; table: drift and wrong answers as they were measured beforehand; none: physics
    # only, drift and recall are then absent, and results say so
    mode: Literal["kv", "table", "none"] = "kv"
    model: str = "embedded"  # the shipped model; the only one that works here for now
    device: str = "auto"  # auto: CUDA when there is one
    scorer: str = "reconstruction"  # what ranks tokens when a cache is pruned (kvroam.kvbackend)
    window: int = 32  # queries that the window scorer looks at [tokens]
    pool: int = 5  # width of its max-pooling [tokens]
    sinks: int = 4  # first tokens that are always kept [tokens]
    recent: int = 8  # last tokens that are always kept [tokens]
    scope: Literal["sequence", "head"] = "head"  # what keeps tokens of its own: a session, or each layer and head
    situation: str = "mixed"  # what sessions are about: mixed, pending, answered, adverse or text
    script_seed: int = 0  # seed of the bank of session scripts
    answers: Literal["teacher", "free"] = "teacher"  # sessions read right answers, or those they give
    drift: Literal["stream", "resume"] = "stream"  # charged with each token, or at once when a session resumes
    horizon: int = 64  # what drift: resume looks ahead [tokens of the measured model]

    def __post_init__(self) -> None:
        require(self.horizon >= 1, f"horizon is {self.horizon}: it must be at least 1")


@dataclass(frozen=True)
class HandoverConfig(TaskConfig):
    """One handover environment; see configs/handover.yaml for the same keys with comments."""

    task: ClassVar[str] = "handover"

    scene: str = "munich"  # a shipped scene (python -m kvroam.envs.scenes list) or the path of a built one
    num_ues: int = 16  # [UEs]
    interval_s: float = 0.1  # decision interval [s]
    episode_s: float = 60.0  # the horizon; it truncates [s]
    radio: RadioConfig = field(default_factory=RadioConfig)
    mobility: MobilityConfig = field(default_factory=MobilityConfig)
    sessions: SessionConfig = field(default_factory=SessionConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    backhaul: BackhaulConfig = field(default_factory=BackhaulConfig)
    actions: ActionConfig = field(default_factory=ActionConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def __post_init__(self) -> None:
        require(self.num_ues >= 1, f"num_ues is {self.num_ues}: it must be at least 1")
        require_finite(self)
        require(0 < self.interval_s <= LONGEST_INTERVAL_S,
                f"interval_s is {self.interval_s}: it must lie in (0, {LONGEST_INTERVAL_S:g}]")
        require(self.episode_s >= self.interval_s,
                f"episode_s is {self.episode_s}: it must be at least one interval ({self.interval_s})")
        require(self.episode_s / self.interval_s <= MOST_STEPS,
                f"episode_s is {self.episode_s}: at most {MOST_STEPS} intervals of interval_s ({self.interval_s}) make "
                "an episode")


def resolve(config: HandoverConfig | Mapping | str | Path | None, overrides: Sequence[str] = ()) -> HandoverConfig:
    """A HandoverConfig from what a user may pass: itself, a mapping, a YAML path, a shipped name, or None (default).

    The sections `train` and `evaluate` of an experiment file are left aside.

    Raises:
        ConfigError: unknown key, value out of range, file that does not exist.
    """
    return resolve_task(HandoverConfig, config, overrides)
