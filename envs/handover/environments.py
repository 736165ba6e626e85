"""The Handover environments that users make: PettingZoo parallel and AEC, Gymnasium central, ego and vector.

| property      | value                                                                  |
|---------------|------------------------------------------------------------------------|
| agents        | `ue_0` ... `ue_15` (num_ues), all alive until the common end             |
| action        | MultiDiscrete [target, medium, keep, precision, share, backfill,        |
|               | arrival, repair, prefix]; with actions.trigger policy also handover             |
| observation   | Box float32, one row of `env.core.task.features`                        |
| state         | Box float32, the rows of all UEs one after the other                    |
| creation      | `kvroam.envs.parallel_env(config="handover", render_mode=None)`         |
"""

from __future__ import annotations

from typing import Any

from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from ..views.aec import AECView, in_order
from ..views.central import CentralVectorView, CentralView
from ..views.ego import EgoVectorView, EgoView
from ..views.parallel import ParallelView
from .task import HandoverTask


class HandoverEnv(ParallelView):
    """UEs move through a city and change cell; policies choose what happens to their KV caches.

    ## Description
    Every UE runs an LLM session on the edge server of its cell. When it changes cell (event A3), streaming stops until
    the new cell's server holds the session's KV cache: sent over the backhaul, rebuilt from token ids, or both, whole
    or pruned and quantised. The session may resume on a part of its cache while the rest follows, and a cache that is
    not whole may be rebuilt where it is. Where gNBs forward tokens, the session may also stay behind. What a choice
    does to the language model is measured on a real one. docs/environment.md tells how a handover goes.

    ## Action Space
    | # | part      | choices                                                                                 |
    |---|-----------|-----------------------------------------------------------------------------------------|
    | 0 | target    | go on; own cell (for a session left behind); strongest neighbours 1..n; cancel           |
    | 1 | medium    | token, kv, split, detour                                                                |
    | 2 | keep      | share of the transferred tokens, `actions.keep`                                         |
    | 3 | precision | bits of the transferred KV, `actions.bits`                                              |
    | 4 | share     | bandwidth weight of the transfer, `actions.weight`                                      |
    | 5 | backfill  | bandwidth weight of what keep leaves out, which follows; 0: nothing, `actions.backfill` |
    | 6 | arrival   | preparation unfinished at the handover: wait, resume on what is there, forward          |
    | 7 | repair    | no; rebuild a cache that is not whole from token ids, where it is                       |
    | 8 | prefix    | of a split: balanced, or the share of the context that is rebuilt, `actions.prefix`     |
    | 9 | handover  | only with `actions.trigger: policy`: stay, change to the target                         |

    `info["action_mask"]` marks the choices that can have an effect, part after part; no choice is ever refused.

    ## Observation Space
    Box float32 [F], times and powers scaled to about [-1, 1]; every number is documented by
    `env.core.task.features` with name, meaning, unit and range.

    ## Rewards
    Minus the sum of named terms, each with its price in `reward`: seconds in which a user waits (without service, for a
    first token, for the next ones), seconds without a radio link, drift in nats of the tokens produced in this step,
    wrong answers, delay by forwarding, gigabytes, GPU seconds, waste, ping-pong. `info` has each term as
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

    task = HandoverTask


class HandoverAEC(AECView):
    """HandoverEnv for PettingZoo's AEC API; the arguments are HandoverEnv's."""

    parallel = HandoverEnv


class HandoverCentralEnv(CentralView):
    """One controller decides for all UEs: `gymnasium.make("kvroam:kvroam/HandoverCentral-v0")`.

    ## Description
    As kvroam/Handover-v0 (kvroam.envs.HandoverEnv), seen by the network itself instead of by each UE.

    ## Action Space
    MultiDiscrete: [target, medium, keep, precision, share, backfill, arrival, repair, prefix] of ue_0, then of ue_1,
    and so on.
    `info["action_mask"]` marks the choices that can have an effect in the same order; no choice is ever refused.

    ## Observation Space
    Box float32 [U * F]: the rows (`env.unwrapped.core.task.features`) of all UEs, one after the other.

    ## Rewards
    The mean over the UEs of their rewards (team reward). `info` has the mean of each term as `reward_<term>`; they sum
    to the reward exactly.

    ## Starting State
    As kvroam/Handover-v0.

    ## Episode End
    Truncation after `episode_s`; nothing terminates.

    ## Arguments
    As kvroam/Handover-v0.

    ## Version History
    * v0: initial version.
    """

    task = HandoverTask


class HandoverCentralVectorEnv(CentralVectorView):
    """HandoverCentralEnv, `num_envs` times on one batched core; what `gymnasium.make_vec` makes by default."""

    task = HandoverTask


class HandoverEgoEnv(EgoView):
    """One UE learns among others that follow a policy: `gymnasium.make("kvroam:kvroam/HandoverEgo-v0")`.

    ## Description
    As kvroam/Handover-v0 (kvroam.envs.HandoverEnv), seen by one UE; the others are part of its world.

    ## Action Space
    MultiDiscrete [target, medium, keep, precision, share, backfill, arrival, repair, prefix] of the UE.
    `info["action_mask"]` marks the choices that can have an effect; no choice is ever refused.

    ## Observation Space
    Box float32 [F]: its row (`env.unwrapped.core.task.features`).

    ## Rewards
    Its own reward (with reward.sharing team, the mean over all UEs). `info` has each term as `reward_<term>`; they sum
    to the reward exactly.

    ## Starting State
    As kvroam/Handover-v0.

    ## Episode End
    Truncation after `episode_s`; nothing terminates.

    ## Arguments
    As kvroam/Handover-v0, and:
    `ego`: the UE that learns, `ue_0`.
    `others`: a policy's name or checkpoint, a policy, or a function from NetworkView to plans; `ctho`.

    ## Version History
    * v0: initial version.
    """

    task = HandoverTask


class HandoverEgoVectorEnv(EgoVectorView):
    """HandoverEgoEnv, `num_envs` times on one batched core; what `gymnasium.make_vec` makes by default."""

    task = HandoverTask


def parallel_env(config: Any = None, **kwargs: Any) -> HandoverEnv:
    """The PettingZoo parallel environment; the arguments are HandoverEnv's."""
    return HandoverEnv(config, **kwargs)


def raw_env(*args: Any, **kwargs: Any) -> HandoverAEC:
    """The AEC environment without wrappers; the arguments are HandoverEnv's."""
    return HandoverAEC(*args, **kwargs)


def env(*args: Any, **kwargs: Any) -> OrderEnforcingWrapper:
    """The AEC environment, which refuses calls in the wrong order; the arguments are HandoverEnv's."""
    return in_order(raw_env(*args, **kwargs))
