"""The Handover environment of one UE: the others follow a fixed policy. A Gymnasium environment and its sibling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode

from ..base.core import HandoverCore
from ..handover import observations
from ..handover.actions import action_space
from ..handover.config import HandoverConfig, resolve
from ..handover.view import NetworkView
from ..handover.world.state import PLAN
from .controller import Config, ControllerEnv, ControllerVectorEnv

Others = str | Path | Callable[[NetworkView], np.ndarray] | Any


class Ego:
    """Sees the row of one UE, acts for it, earns its reward; a policy acts for the others.

    Args:
        config: the environment.
        ego: name of the UE that learns.
        others: a policy by name or checkpoint (kvroam.agents.make), a policy object (kvroam.agents.Policy), or a
            function from NetworkView to PLAN [E, U]. With actions.trigger policy the first two follow event A3 unless
            they decide handovers themselves; a function decides all.

    Raises:
        ValueError: no such UE, or `others` is nothing of the kind.
        PolicyError: no such policy.
    """

    def __init__(self, config: HandoverConfig, ego: str = "ue_0", others: Others = "ctho") -> None:
        names = [f"ue_{i}" for i in range(config.num_ues)]
        if ego not in names:
            raise ValueError(f"ego is {ego!r}: choose among {names[0]} ... {names[-1]}")
        self.ego = names.index(ego)
        self.observation_space, self.action_space = observations.space(config), action_space(config.actions)
        if isinstance(others, (str, Path)):
            # Policies import the environments, so the environments find them only when they are asked for.
            from ...agents import make

            others = make(str(others), config)
        elif hasattr(others, "act"):
            from ...agents import Policy, in_charge

            others = in_charge(cast(Policy, others), config.actions)
        self._act: Any = getattr(others, "act", others)
        self._reset: Any = getattr(others, "reset", None)
        if not callable(self._act):
            raise ValueError(f"others is {others!r}: give a policy's name, a policy, or a function of NetworkView")

    def reset(self, core: HandoverCore) -> None:
        """Tell the others' policy."""
        if self._reset is not None:
            self._reset(core.view)

    def plans(self, core: HandoverCore, action: np.ndarray) -> np.ndarray:
        """The others' plans with that of int [E, parts] among them, PLAN [E, U].

        Raises:
            ValueError: the action is outside the space, or the others' policy returned no plans.
        """
        actions = np.zeros((core.num_envs, core.num_ues, action.shape[-1]), action.dtype)
        actions[:, self.ego] = action
        own = core.decode(actions)
        plans = np.array(self._act(core.view))
        if plans.dtype != PLAN or plans.shape != own.shape:
            raise ValueError(f"the others' policy returned {plans.dtype} {plans.shape}: expected PLAN {own.shape}")
        plans[:, self.ego] = own[:, self.ego]
        return plans

    def observe(self, core: HandoverCore) -> np.ndarray:
        """The row of the UE, float32 [E, F]."""
        return core.observe()[:, self.ego].copy()

    def terms(self, core: HandoverCore) -> np.ndarray:
        """Of the UE [E, len(TERMS)]."""
        return core.terms[:, self.ego]

    def masks(self, core: HandoverCore) -> np.ndarray:
        """Of the UE, bool [E, sum of the action sizes]."""
        return core.masks()[:, self.ego]

    def interruption_s(self, core: HandoverCore) -> np.ndarray:
        """Of the UE [E] [s]."""
        return core.sim.state.flow["interruption_s"][:, self.ego]


class HandoverEgoEnv(ControllerEnv):
    """One UE learns among others that follow a policy: `gymnasium.make("kvroam:kvroam/HandoverEgo-v0")`.

    ## Description
    As kvroam/Handover-v0 (kvroam.envs.HandoverEnv), seen by one UE; the others are part of its world.

    ## Action Space
    MultiDiscrete [target, medium, keep, precision, share] of the UE. `info["action_mask"]` marks the choices that can
    have an effect; no choice is ever refused.

    ## Observation Space
    Box float32 [F]: its row, `kvroam.envs.handover.observations.table(config)`.

    ## Rewards
    Its own reward (with reward.sharing team, the mean over all UEs). `info` has each term as `reward_<term>`; they sum
    to the reward exactly.

    ## Starting State
    As kvroam/Handover-v0.

    ## Episode End
    Truncation after `episode_s`; nothing terminates.

    ## Arguments
    `config`: a HandoverConfig, a mapping of its keys, a YAML path, or the name of a shipped file.
    `ego`: the UE that learns, `ue_0`.
    `others`: a policy's name or checkpoint, a policy, or a function from NetworkView to plans; `ctho`.
    `max_cycles`: decision intervals per episode instead of `episode_s`.
    `render_mode`: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.

    ## Version History
    * v0: initial version.
    """

    def __init__(self, config: Config = None, *, ego: str = "ue_0", others: Others = "ctho",
                 max_cycles: int | None = None, render_mode: str | None = None) -> None:
        config = resolve(config)
        super().__init__(config, Ego(config, ego, others), max_cycles, render_mode)


class HandoverEgoVectorEnv(ControllerVectorEnv):
    """HandoverEgoEnv, `num_envs` times on one batched core; what `gymnasium.make_vec` makes by default.

    A policy that draws random numbers (`others="random"`) draws them for all environments together, so that
    environment i is then not the single environment seeded s + i; with every other named policy it is.
    """

    def __init__(self, num_envs: int = 1, config: Config = None, *, ego: str = "ue_0", others: Others = "ctho",
                 max_cycles: int | None = None, max_episode_steps: int | None = None, render_mode: str | None = None,
                 autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, threads: int = 1) -> None:
        config = resolve(config)
        super().__init__(num_envs, config, Ego(config, ego, others), max_cycles, max_episode_steps, render_mode,
                         autoreset_mode, threads)
