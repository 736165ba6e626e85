"""The Handover environment with one controller for all UEs: a Gymnasium environment and its vectorised sibling."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from ..base.core import HandoverCore
from ..handover import observations
from ..handover.actions import action_space
from ..handover.config import HandoverConfig, resolve
from .controller import Config, ControllerEnv, ControllerVectorEnv


class Central:
    """Sees the rows of all UEs, acts for all, earns their mean reward."""

    def __init__(self, config: HandoverConfig) -> None:
        row, ues = observations.space(config), config.num_ues
        self.observation_space = spaces.Box(np.tile(row.low, ues), np.tile(row.high, ues), dtype=np.float32)
        self.action_space = action_space(config.actions, ues)

    def reset(self, core: HandoverCore) -> None:
        """Nothing to remember."""

    def plans(self, core: HandoverCore, action: np.ndarray) -> np.ndarray:
        """PLAN [E, U] from int [E, U * parts]."""
        return core.decode(action.reshape(core.num_envs, core.num_ues, -1))

    def observe(self, core: HandoverCore) -> np.ndarray:
        """The rows of all UEs one after the other, float32 [E, U * F]."""
        return core.observe().reshape(core.num_envs, -1)

    def terms(self, core: HandoverCore) -> np.ndarray:
        """Means over the UEs [E, len(TERMS)]."""
        return core.terms.mean(axis=1)

    def masks(self, core: HandoverCore) -> np.ndarray:
        """The masks of all UEs one after the other, bool [E, U * sum of sizes]."""
        return core.masks().reshape(core.num_envs, -1)

    def interruption_s(self, core: HandoverCore) -> np.ndarray:
        """Mean over the UEs [E] [s]."""
        return core.sim.state.flow["interruption_s"].mean(axis=1)


class HandoverCentralEnv(ControllerEnv):
    """One controller decides for all UEs: `gymnasium.make("kvroam:kvroam/HandoverCentral-v0")`.

    ## Description
    As kvroam/Handover-v0 (kvroam.envs.HandoverEnv), seen by the network itself instead of by each UE.

    ## Action Space
    MultiDiscrete: [target, medium, keep, precision, share] of ue_0, then of ue_1, and so on. `info["action_mask"]`
    marks the choices that can have an effect in the same order; no choice is ever refused.

    ## Observation Space
    Box float32 [U * F]: the rows `kvroam.envs.handover.observations.table(config)` of all UEs, one after the other.

    ## Rewards
    The mean over the UEs of their rewards (team reward). `info` has the mean of each term as `reward_<term>`; they sum
    to the reward exactly.

    ## Starting State
    As kvroam/Handover-v0.

    ## Episode End
    Truncation after `episode_s`; nothing terminates.

    ## Arguments
    `config`: a HandoverConfig, a mapping of its keys, a YAML path, or the name of a shipped file.
    `max_cycles`: decision intervals per episode instead of `episode_s`.
    `render_mode`: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.

    ## Version History
    * v0: initial version.
    """

    def __init__(self, config: Config = None, *, max_cycles: int | None = None,
                 render_mode: str | None = None) -> None:
        config = resolve(config)
        super().__init__(config, Central(config), max_cycles, render_mode)


class HandoverCentralVectorEnv(ControllerVectorEnv):
    """HandoverCentralEnv, `num_envs` times on one batched core; what `gymnasium.make_vec` makes by default."""

    def __init__(self, num_envs: int = 1, config: Config = None, *, max_cycles: int | None = None,
                 max_episode_steps: int | None = None, render_mode: str | None = None,
                 autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP, threads: int = 1) -> None:
        config = resolve(config)
        super().__init__(num_envs, config, Central(config), max_cycles, max_episode_steps, render_mode, autoreset_mode,
                         threads)
