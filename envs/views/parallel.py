"""The Handover environment for PettingZoo: every UE is an agent that says how its LLM session moves.

| property      | value                                                                  |
|---------------|------------------------------------------------------------------------|
| agents        | `ue_0` ... `ue_15` (num_ues), all alive until the common end             |
| action        | MultiDiscrete [target, medium, keep, precision, share]                  |
| observation   | Box float32, one row of `kvroam.envs.handover.observations.table(config)`        |
| state         | Box float32, the rows of all UEs one after the other                    |
| creation      | `kvroam.envs.parallel_env(config="handover", render_mode=None)`         |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from ..base.core import HandoverCore
from ..handover import observations
from ..handover.actions import action_space
from ..handover.config import HandoverConfig, resolve
from ..handover.rewards import TERMS
from ..render import RENDER_MODES, Viewer

_TERM_KEYS = tuple(f"reward_{name}" for name in TERMS)


class HandoverEnv(ParallelEnv):
    """UEs move through a city and change cell; policies choose what happens to their KV caches.

    ## Description
    Every UE runs an LLM session on the edge server of its cell. When it changes cell (event A3), streaming stops until
    the new cell's server holds the session's KV cache: sent over the backhaul, rebuilt from token ids, or both, whole
    or pruned and quantised. The session may also stay behind, and each token takes a detour. What a choice does to the
    language model is measured on a real one.

    ## Action Space
    | # | part      | choices                                                                                 |
    |---|-----------|-----------------------------------------------------------------------------------------|
    | 0 | target    | go on; own cell (for a session left behind); strongest neighbours 1..n; cancel           |
    | 1 | medium    | token, kv, split, detour                                                                |
    | 2 | keep      | share of the transferred tokens, `actions.keep`                                         |
    | 3 | precision | bits of the transferred KV, `actions.bits`                                              |
    | 4 | share     | bandwidth weight, `actions.weight`                                                      |

    `info["action_mask"]` marks the choices that can have an effect, part after part; no choice is ever refused.

    ## Observation Space
    Box float32 [F], times and powers scaled to about [-1, 1]; every number is documented by
    `kvroam.envs.handover.observations.table(config)` with name, meaning, unit and range.

    ## Rewards
    Minus the sum of named terms, each with its price in `reward`: seconds without service, drift in nats of the tokens
    produced in this step, detour delay, gigabytes, GPU seconds, waste, ping-pong. `info` has each term as
    `reward_<term>`; they sum to the reward exactly.

    ## Starting State
    UEs anywhere on the streets, in the middle of answers, caches whole, nothing migrating. One seed fixes motion,
    cells, sessions and noise, whatever the policy does.

    ## Episode End
    After `episode_s` all agents are truncated together; nothing terminates.

    ## Arguments
    `config`: a HandoverConfig, a mapping of its keys, a YAML path, or the name of a shipped file.
    `max_cycles`: decision intervals per episode instead of `episode_s`.
    `render_mode`: "human" opens a window that every step updates, "rgb_array" makes `render()` return a frame.

    ## Version History
    * v0: initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "name": "kvroam/Handover-v0", "render_modes": list(RENDER_MODES), "is_parallelizable": True, "render_fps": 10,
    }

    def __init__(self, config: HandoverConfig | Mapping | str | Path | None = None, *, max_cycles: int | None = None,
                 render_mode: str | None = None) -> None:
        if max_cycles is not None and max_cycles < 1:
            raise ValueError(f"max_cycles is {max_cycles}: it must be at least 1")
        self.config = resolve(config)
        self.render_mode = render_mode
        self.max_cycles = max_cycles or self.config.max_steps
        self.core = HandoverCore(self.config)
        self._viewer = Viewer(self.core, render_mode)
        self.metadata = self.metadata | {"render_fps": self._viewer.fps}
        self.possible_agents = [f"ue_{i}" for i in range(self.config.num_ues)]
        self.agents: list[str] = []
        self._observation_space = observations.space(self.config)
        self._action_space = action_space(self.config.actions)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self._observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, self._action_space)
        row, ues = self._observation_space, self.config.num_ues
        self.state_space = spaces.Box(np.tile(row.low, ues), np.tile(row.high, ues), dtype=np.float32)
        self._cycle = 0

    def observation_space(self, agent: str) -> spaces.Box:
        """The same object for all agents."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.MultiDiscrete:
        """The same object for all agents."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode; without a seed, the next one after the last seed."""
        self.core.reset([seed])
        self.agents = list(self.possible_agents)
        self._cycle = 0
        self._viewer.update()
        return self._observations(), self._infos()

    def step(self, actions: Mapping[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        """Advance by one decision interval.

        Raises:
            RuntimeError: before reset, or after the end.
            KeyError: an agent is missing or unknown.
            ValueError: an action outside the space.
        """
        if not self.agents:
            raise RuntimeError("the episode has not begun or is over: call reset() first")
        unknown = set(actions) ^ set(self.agents)
        if unknown:
            raise KeyError(f"{sorted(unknown)[0]!r} is missing or unknown: one action for each of "
                           f"{self.agents[0]} ... {self.agents[-1]} is needed")
        try:
            plans = self.core.decode(np.stack([np.asarray(actions[a]) for a in self.agents])[None])
        except ValueError:
            self._refuse_shapes(actions)
            raise
        self.core.step(plans)
        self._cycle += 1
        self._viewer.update()
        over = self._cycle >= self.max_cycles
        rewards = dict(zip(self.agents, self.core.reward[0].tolist(), strict=True))
        result = (self._observations(), rewards, dict.fromkeys(self.agents, False),
                  dict.fromkeys(self.agents, over), self._infos())
        if over:
            self.agents = []
        return result

    def state(self) -> np.ndarray:
        """The observations of all UEs one after the other, float32 [U * F], for centralised critics."""
        return self.core.observe().reshape(-1)

    def render(self) -> np.ndarray | None:
        """A frame, uint8 [600, 800, 3], with render_mode "rgb_array"; otherwise None."""
        return self._viewer.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self._viewer.close()

    def _refuse_shapes(self, actions: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError that names the first agent whose action has another shape or type than its space."""
        shape = self._action_space.shape
        for agent in self.agents:
            action = np.asarray(actions[agent])
            if action.shape != shape or not np.issubdtype(action.dtype, np.integer):
                raise ValueError(f"the action of {agent} is {action.dtype} {action.shape}: expected integers of shape "
                                 f"{shape}") from None

    def _observations(self) -> dict[str, np.ndarray]:
        rows = self.core.observe()[0]
        return {a: rows[i].copy() for i, a in enumerate(self.agents)}

    def _infos(self) -> dict[str, dict[str, Any]]:
        masks = self.core.masks()[0].astype(np.int8)
        terms = self.core.terms[0].tolist()
        flow = self.core.sim.state.flow[0]["interruption_s"].tolist() if self._cycle else [0.0] * len(self.agents)
        scored = int(self.core.scorer is not None)
        infos = {}
        for i, agent in enumerate(self.agents):
            info: dict[str, Any] = {"action_mask": masks[i].copy()}
            info.update(zip(_TERM_KEYS, terms[i], strict=True))
            info["interruption_s"], info["scored"] = flow[i], scored
            infos[agent] = info
        return infos


def parallel_env(config: HandoverConfig | Mapping | str | Path | None = None, **kwargs: Any) -> HandoverEnv:
    """The PettingZoo parallel environment."""
    return HandoverEnv(config, **kwargs)
