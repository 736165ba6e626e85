"""What a policy may see: the network's own knowledge, nothing of the future.

Heuristics read a NetworkView; observations are computed from the same values, so nobody sees more than anybody else.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from ..sim import predictor
from ..sim.compute import next_cycle
from ..sim.jit import entry, inlined, kernel, parallel_entry
from .world.chunked import queue_s
from .world.engine import BLOCKS, advance_one, allocate_scratch, decode_iterations
from .world.memory import second_server, session_bytes
from .world.simulator import Simulator
from .world.state import FOLLOWING, IDLE, INTERRUPTED, NO_JOB, PLAN, REPAIRING, WAITING, Tables


class NetworkView:
    """The network at the start of a decision interval, for E environments, U UEs, C cells, K candidates.

    Slot 0 of the candidates is the UE's own cell when its session lives elsewhere (else -1); slots 1..K-1 are the
    strongest other cells. Arrays are copies: a policy may keep and change them. `iteration_s` [E, C] is one decode
    iteration of every server with the sessions that decode there now [s]. `sim` is the simulator itself, for the
    environment; a policy that reads it knows more than the network does. `task` observes, masks and decodes.
    """

    # What the next refresh builds on: the predictor renews each UE twice a second only.
    REMEMBERED = ("_next_cell", "_at_cell", "_next_s")

    def __init__(self, sim: Simulator, candidates: int, task: Any = None) -> None:
        self.sim, self.task, self._count = sim, task, candidates + 1
        self.num_envs, self.num_ues, self.num_cells = sim.num_envs, sim.num_ues, sim.num_cells
        self.interval_s = sim.interval_s
        everybody = (sim.num_envs, sim.num_ues)
        self._next_cell, self._at_cell = np.full(everybody, -1, np.int32), np.full(everybody, -1, np.int32)
        self._next_s = np.full(everybody, np.inf)
        self._weight = predictor.filter_weight_of_step(float(sim.params["filter_a"][0]), sim.interval_s)
        self._scratch = predictor.allocate_scratch.py_func(sim.num_cells, predictor.STEPS)
        self._strongest = np.full((*everybody, self._count), -1, np.int32)
        self._no_plans = np.empty((0, 0), PLAN)
        self.refresh()

    def refresh(self) -> None:
        """Recompute what is derived, after a reset or when somebody else has advanced the simulator."""
        self._pass(None)

    def advance(self, plans: np.ndarray) -> None:
        """`sim.advance` and `refresh`, environment by environment: each is read once while it is in the cache.

        Raises:
            ValueError: plans that cannot be followed (Simulator.advance).
        """
        self.sim.check(plans)
        self._pass(plans)
        self.sim.finish()

    def _pass(self, plans: np.ndarray | None) -> None:
        """One pass over the environments; without plans no time passes."""
        sim = self.sim
        shape = (self.num_envs, self.num_ues, self._count)
        self.candidates = np.empty(shape, np.int32)
        self.margin_db = np.empty(shape, np.float64)
        self.prefill_wait_s = np.empty((self.num_envs, self.num_cells))
        self.egress_queue_bits = np.empty((self.num_envs, self.num_cells))
        self.ingress_queue_bits = np.empty((self.num_envs, self.num_cells))
        self.free_memory_bytes = np.empty((self.num_envs, self.num_cells))
        self.iteration_s = np.empty((self.num_envs, self.num_cells))
        derived = (self.candidates, self.margin_db, self.prefill_wait_s, self.egress_queue_bits,
                   self.ingress_queue_bits, self.free_memory_bytes, self.iteration_s)
        common = (0, self.num_envs, sim.state, plans is not None, self._no_plans if plans is None else plans,
                  sim.params, self._weight, predictor.refresh_intervals(sim.interval_s), self.known, derived)
        if sim.parallel():
            _pass_parallel(*common, *sim.tables)
        else:
            _pass(*common, sim.tables, sim.scratch, self._scratch)

    @property
    def known(self) -> tuple[np.ndarray, ...]:
        """What the next refresh builds on: of the predictor, next cell, absolute time of that handover [s], and cell at
        the prediction [E, U]; the last ranking [E, U, K], which saves work and decides nothing."""
        return self._next_cell, self._next_s, self._at_cell, self._strongest

    # time and network
    @property
    def time_s(self) -> np.ndarray:
        """Time since the start of the episode [E] [s]."""
        return self.sim.state.world["time_s"].copy()

    @property
    def egress_bps(self) -> np.ndarray:
        """Backhaul capacity out of each gNB [E, C] [bit/s]; with a pool, column 0 is the pool."""
        return self.sim.state.cell["egress_bps"].copy()

    @property
    def ingress_bps(self) -> np.ndarray:
        """Backhaul capacity into each gNB [E, C] [bit/s]."""
        return self.sim.state.cell["ingress_bps"].copy()

    def link(self, env, source, target) -> tuple[np.ndarray, np.ndarray]:
        """Capacity of the way from gNB to gNB [bit/s], and the time that what is queued on it takes [s].

        The narrower, and the busier, of the source's egress and the target's ingress; the pool where there is one.

        Args:
            env, source, target: indices, integers or integer arrays that broadcast.
        """
        if self.pool:
            capacity = self.egress_bps[env, 0]
            return capacity, self.egress_queue_bits[env, 0] / capacity
        out, into = self.egress_bps[env, source], self.ingress_bps[env, target]
        queues = self.egress_queue_bits[env, source] / out, self.ingress_queue_bits[env, target] / into
        return np.minimum(out, into), np.maximum(*queues)

    @property
    def pool(self) -> bool:
        """Whether all transfers share one link."""
        return bool(self.sim.params["pool"][0])

    @property
    def prefill_s_per_token(self) -> np.ndarray:
        """Prefill time per serving token on each server [E, C] [s]."""
        return self.sim.params["prefill_a"][0] / self.sim.state.cell["speed"]

    @property
    def prefill_overhead_s(self) -> float:
        """Prefill time of an empty batch [s]."""
        return float(self.sim.params["prefill_b"][0])

    @property
    def hops(self) -> np.ndarray:
        """Xn hops from gNB to gNB, int [C, C]."""
        return self.sim.tables.hops.copy()

    @property
    def forwarding_hops(self) -> int:
        """Most hops over which a server's tokens are forwarded; 0: none, who is not there is interrupted."""
        return int(self.sim.params["forwarding"][0])

    @property
    def hop_s(self) -> float:
        """Delay that each hop adds to a forwarded stream [s]."""
        return float(self.sim.params["hop_s"][0])

    @property
    def cycle_s(self) -> float:
        """Scheduling cycle of the servers [s]."""
        return float(self.sim.params["cycle_s"][0])

    @property
    def memory_bytes(self) -> np.ndarray:
        """Memory for KV caches of each server [E, C] [byte]; `free_memory_bytes` [E, C] is what is not reserved."""
        return self.sim.state.cell["memory_bytes"].copy()

    @property
    def session_bytes(self) -> float:
        """What a session reserves on its server, and at the target while it migrates [byte]."""
        p = self.sim.params[0]
        return float(p["kv_bits_16"] / 8.0 * p["context_scale"] * p["context_end"])

    @property
    def load(self) -> np.ndarray:
        """Share of the radio resources in use [E, C]."""
        return self.sim.state.cell["load"].copy()

    def kv_bits_per_token(self, bits: int) -> float:
        """KV cache of one serving token on the wire at 16, 8 or 4 bit [bit]."""
        return self.sim.serving.kv_bits_per_token(bits)

    # UEs: radio
    @property
    def position_m(self) -> np.ndarray:
        """[E, U, 2] [m]."""
        return np.stack([self.sim.state.ue["x"], self.sim.state.ue["y"]], axis=-1)

    @property
    def velocity_mps(self) -> np.ndarray:
        """Smoothed over about one second [E, U, 2] [m/s]."""
        return np.stack([self.sim.state.ue["vx"], self.sim.state.ue["vy"]], axis=-1)

    @property
    def radio_cell(self) -> np.ndarray:
        """Serving cell [E, U]."""
        return self.sim.state.ue["radio"].copy()

    @property
    def sinr_db(self) -> np.ndarray:
        """Downlink SINR [E, U] [dB]."""
        return self.sim.state.ue["sinr_db"].copy()

    @property
    def handover_in_s(self) -> np.ndarray:
        """Time until the running A3 time-to-trigger ends [E, U] [s]; inf when none runs."""
        return self.sim.state.ue["fire_s"] - self.sim.state.world["time_s"][:, None]

    @property
    def handover_cell(self) -> np.ndarray:
        """Target of that handover [E, U]; -1 when there is none."""
        return self.sim.state.ue["fire_cell"].copy()

    @property
    def predicted_cell(self) -> np.ndarray:
        """Next cell at constant velocity, within 5 s [E, U]; -1 when none is predicted (sim/predictor.py)."""
        return self._next_cell.copy()

    @property
    def predicted_in_s(self) -> np.ndarray:
        """Time until that handover [E, U] [s]; inf when none is predicted."""
        return np.maximum(self._next_s - self.sim.state.world["time_s"][:, None], 0.0)

    @property
    def link_failed(self) -> np.ndarray:
        """Whether the radio link has failed and the UE has not re-established yet [E, U]."""
        return np.isfinite(self.sim.state.ue["reconnect_s"])

    # UEs: sessions
    @property
    def server_cell(self) -> np.ndarray:
        """gNB whose server holds the session [E, U]."""
        return self.sim.state.ue["server"].copy()

    @property
    def context_tokens(self) -> np.ndarray:
        """Serving tokens in the KV cache [E, U]."""
        return self.sim.state.ue["context"].copy()

    @property
    def held_tokens(self) -> np.ndarray:
        """Of them, those whose KV is there: fewer once the cache was pruned [E, U]."""
        return self.sim.state.ue["held"].copy()

    @property
    def waiting(self) -> np.ndarray:
        """Whether the user waits for tokens: an answer streams or is due [E, U]."""
        ue = self.sim.state.ue
        return ue["streaming"] | (ue["prompt"] != NO_JOB)

    @property
    def following(self) -> np.ndarray:
        """Whether the rest of the session's cache follows it [E, U]; `bits_left` says how much."""
        return self._background() == FOLLOWING

    @property
    def repairing(self) -> np.ndarray:
        """Whether the session's cache is being rebuilt where it is [E, U]."""
        return self._background() == REPAIRING

    @property
    def stranded(self) -> np.ndarray:
        """Whether the session waits for a server in reach of its user that has room [E, U]."""
        return self.sim.state.ue["stranded"].copy()

    def _background(self) -> np.ndarray:
        ue = self.sim.state.ue
        return np.where(ue["phase"] == INTERRUPTED, ue["then"], ue["phase"])

    @property
    def streaming(self) -> np.ndarray:
        """Whether the model is answering (or would be, were it not interrupted) [E, U]."""
        return self.sim.state.ue["streaming"].copy()

    @property
    def prompting(self) -> np.ndarray:
        """Whether the session waits for the prefill of its user's prompt [E, U]."""
        return self.sim.state.ue["prompt"] != 0

    @property
    def opening(self) -> np.ndarray:
        """Whether that prompt is the whole context: there is no cache yet to send [E, U]."""
        return self.sim.state.ue["opening"].copy()

    @property
    def healthy(self) -> np.ndarray:
        """Whether the cache is whole and exact [E, U]."""
        return self.sim.state.ue["healthy"].copy()

    # UEs: migration
    @property
    def phase(self) -> np.ndarray:
        """IDLE, PREPARING, INTERRUPTED, FOLLOWING or REPAIRING (kvroam.envs.handover.world.state) [E, U]."""
        return self.sim.state.ue["phase"].copy()

    @property
    def migration_target(self) -> np.ndarray:
        """Cell that the session is moving to [E, U]; its own server when it is not moving."""
        return self.sim.state.ue["target"].copy()

    @property
    def bits_left(self) -> np.ndarray:
        """What the transfer still has to send [E, U] [bit]."""
        return self.sim.state.ue["bits_left"].copy()

    @property
    def interrupted_s(self) -> np.ndarray:
        """How long the session has been interrupted [E, U] [s]; 0 when it is not."""
        ue, time = self.sim.state.ue, self.sim.state.world["time_s"][:, None]
        return np.where(ue["phase"] == INTERRUPTED, time - ue["handover_s"], 0.0)


@entry
def _pass(first, last, state, moving, plan, params, weight, every, known, derived, tables: Tables, scratch, own):
    next_cell, next_s, at_cell, strongest = known
    for e in range(first, last):
        if moving:
            advance_one(state.ue[e], state.cell[e], state.world[e], state.keys[e], state.rsrp_dbm[e],
                        state.a3_since_s[e], state.flow[e], state.event[e], state.answer[e], plan[e], params, tables,
                        scratch)
        predictor.predict_env(e, state, params, tables.city, weight, every, next_cell, next_s, at_cell, own)
        _derive(e, state, params, strongest, derived)


@parallel_entry
def _pass_parallel(first, last, state, moving, plan, params, weight, every, known, derived, city, trace, hops):
    blocks = min(last - first, BLOCKS)
    for b in nb.prange(blocks):
        cells = state.cell.shape[1]
        _pass(first + (last - first) * b // blocks, first + (last - first) * (b + 1) // blocks, state, moving, plan,
              params, weight, every, known, derived, Tables(city, trace, hops),
              allocate_scratch(state.ue.shape[1], cells), predictor.allocate_scratch(cells, predictor.STEPS))


@inlined
def _derive(e, state, params, strongest, derived):
    (candidates, margin_db, prefill_wait_s, egress_queue_bits, ingress_queue_bits, free_memory_bytes,
     iteration_s) = derived
    p = params[0]
    cells, slots = state.cell.shape[1], candidates.shape[2]
    ue, cell, now = state.ue[e], state.cell[e], state.world[e].time_s
    session = session_bytes(p)
    decode_iterations(ue, cell, p, iteration_s[e])
    for c in range(cells):
        egress_queue_bits[e, c] = ingress_queue_bits[e, c] = prefill_wait_s[e, c] = 0.0
        free_memory_bytes[e, c] = 0.0  # the sessions that have reserved memory, for now
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.server >= 0:
            free_memory_bytes[e, me.server] += 1.0
        if me.phase != IDLE:
            second = second_server(me)
            if second >= 0:
                free_memory_bytes[e, second] += 1.0
            egress_queue_bits[e, 0 if p.pool == 1 else me.origin] += me.bits_left
            if p.pool == 0:
                ingress_queue_bits[e, me.target] += me.bits_left
            if me.job == WAITING:
                # It joins the next batch, whose length its longest prefix decides.
                work = p.prefill_a * me.prefix / cell[me.target].speed + p.prefill_b
                prefill_wait_s[e, me.target] = max(prefill_wait_s[e, me.target], work)
        if me.prompt == WAITING and me.phase != INTERRUPTED:
            work = p.prefill_a * me.prompt_tokens / cell[me.server].speed + p.prefill_b
            prefill_wait_s[e, me.server] = max(prefill_wait_s[e, me.server], work)
        radio, power = me.radio, state.rsrp_dbm[e, u]
        candidates[e, u, 0], margin_db[e, u, 0] = radio if me.server != radio else -1, 0.0
        if not _still_strongest(power, radio, strongest[e, u]):
            _rank(power, radio, strongest[e, u], margin_db[e, u])
        for k in range(1, slots):
            c = strongest[e, u, k]
            candidates[e, u, k], margin_db[e, u, k] = c, power[c] - power[radio] if c >= 0 else 0.0
    for c in range(cells):
        free_memory_bytes[e, c] = cell[c].memory_bytes - free_memory_bytes[e, c] * session
        if p.chunked == 1:
            prefill_wait_s[e, c] = queue_s(ue, cell, c, p)
            continue
        start = next_cycle(max(now, cell[c].busy_until), p.cycle_s)
        prefill_wait_s[e, c] += start - now


@kernel
def _still_strongest(power, radio, strongest):
    """Whether the cells strongest[1:] are the strongest ones but `radio`, in this order, with no two alike."""
    weakest, count = np.inf, 0
    for k in range(1, strongest.shape[0]):
        c = strongest[k]
        if c < 0 or c == radio or not power[c] < weakest:
            return False
        weakest = power[c]
    for c in range(power.shape[0]):
        count += power[c] >= weakest
    return count - (power[radio] >= weakest) == strongest.shape[0] - 1


@kernel
def _rank(power, radio, strongest, ranked):
    """Write the strongest cells but `radio` into strongest[1:], in order, -1 behind the last; of equals the first is
    ahead. `ranked` is scratch."""
    slots, weakest = strongest.shape[0], -np.inf
    for k in range(1, slots):
        strongest[k], ranked[k] = -1, -np.inf
    for c in range(power.shape[0]):
        k = slots - 1
        if not power[c] > weakest or c == radio or k < 1:
            continue
        while k > 1 and power[c] > ranked[k - 1]:
            strongest[k], ranked[k] = strongest[k - 1], ranked[k - 1]
            k -= 1
        strongest[k], ranked[k] = c, power[c]
        weakest = ranked[slots - 1]
