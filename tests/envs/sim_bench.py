"""A laboratory for the simulator: UEs that stand still, cells that are all alike, handovers at chosen instants."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from kvroam.envs.handover.world.simulator import Simulator, idle_plans
from kvroam.envs.handover.world.state import DETOUR, IDLE, OPENED, RESUMED
from kvroam.envs.sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)

NEVER = 1e9
RADIO_S = 0.05  # radio interruption [s]
REESTABLISHMENT_S = 0.2  # after a radio-link failure [s]
LINK_BPS = 1e9
# A 16-bit token is 2 * 28 * 4 * 128 * 16 bit; prefill 0.1 ms per token + 2 ms; decoding 25 token/s.
SERVING = ServingConfig(preset="qwen2.5-7b", prefill_s_per_token=1e-4, prefill_overhead_s=2e-3,
                        decode_tokens_per_s=25.0, restore_bytes_per_s=10e9, attach_s_per_token=0.0)
KV_BITS = 458_752.0
FIRST_TOKEN_S = 1 / 25.0

CALM = dict(
    radio=RadioConfig(measurement_noise_db=0.0, a3_offset_db=1000.0, interruption_s=RADIO_S, q_out_db=-1000.0,
                      reestablishment_s=REESTABLISHMENT_S, max_air_s=1e-3, load_per_ue=0.1),
    mobility=MobilityConfig(vehicle_speed_mps=(0.0, 0.0), pedestrian_speed_mps=(0.0, 0.0)),
    sessions=SessionConfig(script_tokens=10**6, prompt_tokens=(0.0, 0.0), think_shape=1.0,
                           answer_tokens=(NEVER, 0.0)),
    serving=SERVING,
    compute=ComputeConfig(speed_spread=1.0, kv_memory_bytes=1e15, decode="alone", prefill="batch", chunk_tokens=512),
    backhaul=BackhaulConfig(capacity_bps=LINK_BPS, capacity_spread=1.0, variation=1.0, forwarding=8),
)


class Bench:
    """A Simulator in which nothing happens by itself, and a record of all that it reports.

    Args:
        city, phy: the fixtures.
        ues: UEs of the single environment; all at cell 0, thinking, with 1000 tokens, until `put` says otherwise.
        changes: fields of the configurations by their names, e.g. backhaul=dict(topology="pool").
    """

    def __init__(self, city: SimpleNamespace, phy: SimpleNamespace, ues: int = 1, interval_s: float = 0.1,
                 trigger: str = "a3", **changes: dict) -> None:
        worlds = {name: replace(config, **changes.get(name, {})) for name, config in CALM.items()}
        self.city = city
        self.sim = Simulator(city, phy, num_ues=ues, interval_s=interval_s, trigger=trigger, **worlds)
        self.sim.seed(0, 0)
        self.sim.reset()
        self.ue, self.cell = self.sim.state.ue[0], self.sim.state.cell[0]
        self.plans = idle_plans(1, ues)
        self.events: list[np.void] = []
        self.flows: list[np.ndarray] = []
        for u in range(ues):
            self.put(u)

    def put(self, u: int, radio: int = 0, server: int | None = None, context: float = 1000.0,
            streaming: bool = False, held: float | None = None) -> None:
        """UE `u` is idle at cell `radio`, its session of `context` tokens at `server` (default: the same cell).

        Its cache has `held` of them; all, unless it is said.
        """
        me = self.ue[u]
        me["radio"], me["previous"] = radio, -1
        me["phase"], me["stranded"] = IDLE, False
        me["server"] = me["target"] = me["origin"] = radio if server is None else server
        me["context"] = me["snapshot"] = me["shipped"] = context
        me["held"], me["healthy"] = context if held is None else held, held is None
        me["streaming"] = me["active"] = streaming
        me["answer_left"], me["pause_left_s"] = NEVER, NEVER

    def plan(self, u: int, **fields: float) -> None:
        """Change fields of the plan of UE `u`; they hold until changed again."""
        for name, value in fields.items():
            self.plans[0, u][name] = value

    def hand_over(self, u: int, cell: int, at_s: float) -> None:
        """UE `u` changes to `cell` at `at_s`, which must lie in the coming interval."""
        now = self.sim.state.world["time_s"][0]
        assert now - 1e-9 <= at_s < now + self.sim.interval_s
        self.ue[u]["fire_s"], self.ue[u]["fire_cell"] = at_s, cell

    def fail(self, u: int, at_s: float, cell: int) -> None:
        """T310 of UE `u` runs out at `at_s`, in the coming interval, and `cell` is the strongest from now on."""
        now = self.sim.state.world["time_s"][0]
        assert now - 1e-9 <= at_s < now + self.sim.interval_s
        self.ue[u]["t310_s"] = at_s
        self.ue[u]["x"], self.ue[u]["y"] = self.city.gnb_xyz_m[cell]
        self.sim.state.rsrp_dbm[0, u] = -100.0 - np.arange(self.sim.num_cells)
        self.sim.state.rsrp_dbm[0, u, cell] = -60.0

    def step(self, count: int = 1) -> None:
        """Advance by `count` intervals."""
        state = self.sim.state
        for _ in range(count):
            self.sim.advance(self.plans)
            self.events += list(state.event[0, :state.world["events"][0]].copy())
            self.flows.append(state.flow[0].copy())

    def resumed(self, u: int = 0) -> list[np.void]:
        """The events in which session `u` resumed."""
        return [e for e in self.events if e["kind"] == RESUMED and e["ue"] == u]

    def opened(self, u: int = 0) -> list[np.void]:
        """The events in which UE `u` opened a new session."""
        return [e for e in self.events if e["kind"] == OPENED and e["ue"] == u]

    def until_resumed(self, u: int = 0, most: int = 400) -> np.void:
        """Step until session `u` resumes; the event."""
        before = len(self.resumed(u))
        for _ in range(most):
            self.step()
            if len(self.resumed(u)) > before:
                return self.resumed(u)[before]
        raise AssertionError(f"session {u} has not resumed within {most} steps")

    def total(self, field: str, u: int | None = None) -> float:
        """A field of the flows, summed over all steps (and all UEs, or UE `u` alone)."""
        flows = np.array(self.flows)[field]
        return float(flows.sum() if u is None else flows[:, u].sum())


def restore_s(bits: float, bytes_per_s: float = 10e9) -> float:
    """Time to copy received bits into the memory of the GPU [s]."""
    return bits / 8.0 / bytes_per_s


def server_by_events(server: int, events: np.ndarray) -> int | None:
    """Where a session that was at `server` is after the events of its UE, None if a new one began last.

    Asserts that it left from where it was every time, and that a detour moved nothing.
    """
    at: int | None = server
    for event in events:
        if event["kind"] == OPENED:
            at = None
            continue
        assert at in (None, event["source"])
        at = event["target"]
        assert event["medium"] != DETOUR or event["source"] == event["target"]
    return at
