"""The simulator as an object: arrays allocated once, reset by seed, advanced by plans."""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np

from ....errors import ConfigError, require
from ...sim import xn
from ...sim.backhaul import link_params
from ...sim.cell_change import cell_change_params
from ...sim.compute import codec_values, memory_bytes, server_params
from ...sim.mobility import map_params, map_tables, motion_params
from ...sim.params import (
    PLAN_BITS,
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)
from ...sim.radio import radio_params
from ...sim.records import parameters
from ...sim.sessions import SHORTEST_PAUSE_S, session_params
from ...sim.streams import keys
from ...sim.traces import Tracks
from ...sim.workload import read_trace
from . import engine
from .plans import check as check_plans
from .state import CONTINUE, DETOUR, FLOW, PARAMS, PLAN, STAY, State, Tables, allocate


class Simulator:
    """E environments side by side, each with U UEs and the C cells of one scene.

    Args:
        scene: anything with path_gain_db [C, H, W], next_direction [D, H, W], destinations [D, 2], origin_m and
            cell_size_m (kvroam.envs.scenes.Scene); without gnb_xyz_m [C, 3], all gNBs are one Xn hop apart.
        phy: anything with sinr_db [N] (uniform) and efficiency [N] (kvroam.envs.scenes.PhyTable).
        num_ues: UEs per environment.
        interval_s: decision interval [s].
        num_envs: environments.
        threads: numba threads; 1 runs without the parallel backend.
        radio, mobility, sessions, serving, compute, backhaul: the world (kvroam.envs.sim.params).
        trigger: "a3", or "policy" when plans say who changes cell.
        tracks: positions of the UEs at every decision instant (traces.tracks_of(mobility, ...)); after the last one
            they stand still. None: they walk by themselves, whatever mobility.trace says.
        link: called with the State after every reset and step, to set `air_s` in another way
            (kvroam.envs.scenes.exact_phy).
        wire_bits: KV cache of one token on the wire [bit] at a precision [bit]; None: serving.kv_bits_per_token.
        ranking: tokens of prefill that ranking a token of a cache takes (kvroam.kvbackend.scorers).
    """

    def __init__(self, scene, phy, *, num_ues: int, interval_s: float, num_envs: int = 1, threads: int = 1,
                 radio: RadioConfig, mobility: MobilityConfig, sessions: SessionConfig, serving: ServingConfig,
                 compute: ComputeConfig, backhaul: BackhaulConfig, trigger: str = "a3",
                 tracks: Tracks | None = None, link=None,
                 wire_bits: Callable[[int], float] | None = None, ranking: float = 0.0) -> None:
        require(num_ues >= 1, f"num_ues is {num_ues}: it must be at least 1")
        require(num_envs >= 1, f"num_envs is {num_envs}: it must be at least 1")
        require(0 < interval_s < math.inf, f"interval_s is {interval_s}: it must be above 0 and finite")
        self.scene, self.serving, self.interval_s = scene, serving, interval_s
        self.num_envs, self.num_ues, self.num_cells = num_envs, num_ues, len(scene.path_gain_db)
        self.threads, self.link = threads, link
        self.state: State = allocate(num_envs, num_ues, self.num_cells,
                                     _events_per_ue(interval_s, sessions, serving, compute),
                                     _answers_per_ue(interval_s, serving, compute))
        _require_room(self.num_ues, self.num_cells, sessions, serving, compute)
        if tracks is not None:
            require(tracks.positions_m.shape[0] == num_ues and tracks.starts >= 1,
                    f"tracks has {tracks.positions_m.shape[0]} UEs and {tracks.starts} starts: give one track for each "
                    f"of the {num_ues} UEs (traces.tracks_of)")
        self.tables = Tables(city=map_tables(scene, phy, tracks), trace=_scaled_trace(sessions),
                             hops=_hops(scene, self.num_cells))
        self.params = parameters(
            PARAMS, map_params(scene), motion_params(mobility, num_ues, interval_s, tracks),
            radio_params(radio, phy, interval_s), cell_change_params(radio, trigger == "policy"),
            session_params(sessions, serving), server_params(serving, compute, ranking), link_params(backhaul),
            codec_values(PLAN_BITS, wire_bits or serving.kv_bits_per_token))
        self.scratch = engine.allocate_scratch.py_func(num_ues, self.num_cells)

    def seed(self, env: int, seed: int, episode: int = 0) -> None:
        """Set the random streams of one environment to episode number `episode` of `seed`; reset it afterwards."""
        self.state.keys[env] = keys(seed, episode)

    def reset(self, envs: np.ndarray | None = None) -> None:
        """Begin a new episode in the given environments (default: all) from their present streams."""
        which = np.arange(self.num_envs) if envs is None else np.asarray(envs, dtype=np.int64)
        self.state.flow[which] = np.zeros((), FLOW)
        engine.reset_some(which, self.state, self.params, self.tables, self.scratch)
        if self.link is not None:
            self.link(self.state)

    def parallel(self) -> bool:
        """Whether loops over the environments run on several threads; if so, numba is told on how many."""
        if self.threads < 2 or self.num_envs < 2:
            return False
        numba.set_num_threads(min(self.threads, vars(numba.config)["NUMBA_NUM_THREADS"]))
        return True

    def advance(self, plans: np.ndarray) -> None:
        """Advance every environment by one decision interval under `plans`, PLAN [E, U].

        Raises:
            ValueError: another shape or type, or a value outside its range (plans.check).
        """
        self.check(plans)
        if self.parallel():
            engine.advance_parallel(0, self.num_envs, self.state, plans, self.params, *self.tables)
        else:
            engine.advance(0, self.num_envs, self.state, plans, self.params, self.tables, self.scratch)
        self.finish()

    def check(self, plans: np.ndarray) -> None:
        """What comes before a step: plans that cannot be followed are refused."""
        shape = (self.num_envs, self.num_ues)
        if plans.dtype != PLAN or plans.shape != shape:
            raise ValueError(f"plans are {plans.dtype} {plans.shape}: start from idle_plans{shape}")
        check_plans(plans, self.num_cells, bool(self.params["policy_trigger"][0]), self.state.ue)

    def finish(self) -> None:
        """What comes after a step: another law of the link, where there is one."""
        if self.link is not None:
            self.link(self.state)


def idle_plans(num_envs: int, num_ues: int) -> np.ndarray:
    """Plans that prepare nothing and leave every session where it is, PLAN [E, U]."""
    plans = np.zeros((num_envs, num_ues), PLAN)
    plans["target"], plans["medium"], plans["prefix"] = CONTINUE, DETOUR, -1
    plans["keep"], plans["bits"], plans["weight"], plans["handover"] = 1.0, 16, 1.0, STAY
    return plans


def _events_per_ue(interval_s: float, sessions: SessionConfig, serving: ServingConfig, compute: ComputeConfig) -> int:
    """The most events of one UE in one step.

    It changes cell or fails once, so it resumes three times at most, each time the rest of its cache may follow, and
    between the openings of two sessions a whole script is decoded, however fast.
    """
    # Prompts may fill a script in no time, but each is followed by a token at least.
    tokens = serving.context_scale * (sessions.script_tokens - sessions.context_tokens[1])
    if sessions.prompt_tokens[0] > 0:
        tokens = 1.0
    return 8 + math.ceil(interval_s / (SHORTEST_PAUSE_S + tokens / _fastest(serving, compute)))


def _answers_per_ue(interval_s: float, serving: ServingConfig, compute: ComputeConfig) -> int:
    """The most answers of one UE that end in one step: a token each, but for the last one of a session."""
    return 2 + 2 * math.ceil(interval_s / (SHORTEST_PAUSE_S + 1.0 / _fastest(serving, compute)))


def _fastest(serving: ServingConfig, compute: ComputeConfig) -> float:
    """The most tokens per second that a session may decode, alone on the fastest server."""
    return serving.decode_tokens_per_s * compute.speed_spread


def _hops(scene, cells: int) -> np.ndarray:
    """Xn hops between the gNBs of a scene, int64 [C, C]."""
    sites_m = getattr(scene, "gnb_xyz_m", None)
    return 1 - np.eye(cells, dtype=np.int64) if sites_m is None else xn.hops(sites_m[:, :2]).astype(np.int64)


def _scaled_trace(sessions: SessionConfig) -> np.ndarray:
    """Gap before each request, scaled to a mean of think_s [s], and tokens of its answer, float64 [N, 2]."""
    if not sessions.trace:
        return np.empty((0, 2))
    trace = read_trace(sessions.trace)
    return np.column_stack([trace.gap_s * (sessions.think_s / trace.gap_s.mean()), trace.response_tokens])


def _require_room(num_ues: int, num_cells: int, sessions: SessionConfig, serving: ServingConfig,
                  compute: ComputeConfig) -> None:
    """Refuse servers whose memory does not hold the sessions of all UEs."""
    each = serving.kv_bits_per_token(16) / 8 * serving.context_scale * sessions.script_tokens
    memory = memory_bytes(serving, compute)
    fit = num_cells * math.floor(memory / compute.memory_spread / each)
    enough = compute.memory_spread * each * math.ceil(num_ues / num_cells)
    if fit < num_ues:
        raise ConfigError(f"compute.kv_memory_bytes is {memory:g}, compute.memory_spread "
                          f"{compute.memory_spread:g}: {num_cells} servers may hold {fit} sessions of {each:g} bytes, "
                          f"but num_ues is {num_ues}; give each server {enough:g} bytes, or take fewer UEs")
