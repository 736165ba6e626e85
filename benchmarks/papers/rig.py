"""Two gNBs of the simulator in which nothing happens by itself: sessions move when, and as, they are told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.handover.world.state import IDLE, RESUMED
from kvroam.envs.scenes import load, load_phy_table
from kvroam.envs.sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)

Plan = Callable[[np.ndarray, float], None]
_ENDLESS = 1e9


class Outcome(NamedTuple):
    """What a group of handovers came to."""

    interruption_s: np.ndarray  # [K], until the first token after the handover
    token_s: float  # mean time per token afterwards, extra hops included; NaN when nobody streams


class Rig:
    """The simulator without its own events: users stand still, the air takes no time, links and servers are constant.

    Args:
        sessions: K.
        serving: the model and its GPU.
        compute: the servers; their speeds and memories are set to constants.
        backhaul: the links; set it up without spread and without cross traffic.
        radio_s: interruption of the radio at a change of cell [s].
        step_s: decision interval [s].
    """

    def __init__(self, sessions: int, serving: ServingConfig, compute: ComputeConfig, backhaul: BackhaulConfig, *,
                 radio_s: float, step_s: float) -> None:
        self.sim = Simulator(
            load("simple_street_canyon"), load_phy_table(), num_ues=sessions, interval_s=step_s,
            radio=RadioConfig(a3_offset_db=1000.0, measurement_noise_db=0.0, q_out_db=-1000.0, max_air_s=0.0,
                              interruption_s=radio_s),
            mobility=MobilityConfig(vehicle_speed_mps=(0.0, 0.0), pedestrian_speed_mps=(0.0, 0.0)),
            sessions=SessionConfig(script_tokens=10**6, answer_tokens=(_ENDLESS, 0.0), prompt_tokens=(0.0, 0.0)),
            serving=serving, compute=compute, backhaul=backhaul)
        self.sim.seed(0, 0)

    def play(self, context: np.ndarray, tau_s: np.ndarray, plan: Plan, *, streaming: bool = True,
             after_s: float = 0.0) -> Outcome:
        """Hand sessions over from gNB 0 to gNB 1.

        Args:
            context: tokens at the beginning, [K].
            tau_s: when session u changes cell, [K] [s].
            plan: called with the plans [1, K] of every step and its time, and fills them.
            streaming: whether the sessions answer all the time, or rest.
            after_s: how long to go on after the last one has resumed [s].
        """
        self.sim.reset()
        ue, now, users = self.sim.state.ue[0], 0.0, len(tau_s)
        ue["radio"] = ue["server"] = ue["target"] = ue["origin"] = 0
        ue["phase"], ue["streaming"], ue["answer_left"], ue["pause_left_s"] = IDLE, streaming, _ENDLESS, _ENDLESS
        for name in ("context", "held", "snapshot", "shipped"):
            ue[name] = context
        cut, seconds, tokens, over_s = np.full(users, np.nan), 0.0, 0.0, np.inf
        while now < over_s:
            plans = idle_plans(1, users)
            plan(plans, now)
            for u in np.flatnonzero((now <= tau_s) & (tau_s < now + self.sim.interval_s)):
                ue["fire_s"][u], ue["fire_cell"][u] = tau_s[u], 1
            self.sim.advance(plans)
            now = float(self.sim.state.world["time_s"][0])
            if np.isfinite(over_s):
                hops = self.sim.tables.hops[ue["server"], ue["radio"]]
                extra_s = self.sim.params["hop_s"][0] * hops * self.sim.state.flow[0]["tokens"]
                seconds += self.sim.state.flow["latency_s"].sum() + extra_s.sum()
                tokens += self.sim.state.flow["tokens"].sum()
            for event in self.sim.state.event[0, :self.sim.state.world["events"][0]]:
                if event["kind"] == RESUMED and np.isnan(cut[event["ue"]]):
                    cut[event["ue"]] = event["interruption_s"]
            if np.isfinite(cut).all():
                over_s = min(over_s, now + after_s)
        return Outcome(cut, seconds / tokens if tokens else np.nan)
