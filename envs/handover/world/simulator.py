"""The simulator as an object: arrays allocated once, reset by seed, advanced by plans."""

from __future__ import annotations

import math

import numba
import numpy as np

from ....errors import ConfigError, require
from ...sim.params import (
    BackhaulConfig,
    ComputeConfig,
    MobilityConfig,
    RadioConfig,
    ServingConfig,
    SessionConfig,
)
from ...sim.radio import filter_weight, noise_dbm
from ...sim.sessions import SHORTEST_PAUSE_S
from ...sim.state import CONTINUE, DETOUR, FLOW, PARAMS, PLAN, STAY, State, Tables, allocate
from ...sim.streams import keys, normal_quantiles
from ...sim.traces import Tracks
from ...sim.workload import read_trace
from . import engine
from .plans import check as check_plans

SUBCARRIER_HZ = 30e3


class Simulator:
    """E environments side by side, each with U UEs and the C cells of one scene.

    Args:
        scene: anything with path_gain_db [C, H, W], next_direction [D, H, W], destinations [D, 2], origin_m and
            cell_size_m (kvroam.envs.scenes.Scene).
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
    """

    def __init__(self, scene, phy, *, num_ues: int, interval_s: float, num_envs: int = 1, threads: int = 1,
                 radio: RadioConfig, mobility: MobilityConfig, sessions: SessionConfig, serving: ServingConfig,
                 compute: ComputeConfig, backhaul: BackhaulConfig, trigger: str = "a3",
                 tracks: Tracks | None = None, link=None) -> None:
        require(num_ues >= 1, f"num_ues is {num_ues}: it must be at least 1")
        require(num_envs >= 1, f"num_envs is {num_envs}: it must be at least 1")
        require(0 < interval_s < math.inf, f"interval_s is {interval_s}: it must be above 0 and finite")
        self.scene, self.serving, self.interval_s = scene, serving, interval_s
        self.num_envs, self.num_ues, self.num_cells = num_envs, num_ues, len(scene.path_gain_db)
        self.threads, self.link = threads, link
        self.state: State = allocate(num_envs, num_ues, self.num_cells,
                                     _events_per_ue(interval_s, sessions, serving),
                                     _answers_per_ue(interval_s, serving))
        _require_room(self.num_ues, self.num_cells, sessions, serving, compute)
        self.tables = Tables(
            gain_db=np.ascontiguousarray(np.moveaxis(scene.path_gain_db, 0, -1), dtype=np.float32),
            next_direction=np.ascontiguousarray(scene.next_direction, dtype=np.uint8),
            destinations=np.ascontiguousarray(scene.destinations, dtype=np.int16),
            efficiency=np.ascontiguousarray(phy.efficiency, dtype=np.float32),
            quantiles=normal_quantiles(),
            tracks=np.empty((0, 1, 2)) if tracks is None else np.ascontiguousarray(tracks.positions_m, np.float64),
            trace=_scaled_trace(sessions),
        )
        self.params = _params(scene, phy, num_ues, interval_s, radio, mobility, sessions, serving, compute, backhaul)
        self._policy_trigger = trigger == "policy"
        self.params["policy_trigger"] = self._policy_trigger
        if tracks is not None:
            require(tracks.positions_m.shape[0] == num_ues and tracks.starts >= 1,
                    f"tracks has {tracks.positions_m.shape[0]} UEs and {tracks.starts} starts: give one track for each "
                    f"of the {num_ues} UEs (traces.tracks_of)")
            self.params["trace_starts"] = tracks.starts

    def seed(self, env: int, seed: int, episode: int = 0) -> None:
        """Set the random streams of one environment to episode number `episode` of `seed`; reset it afterwards."""
        self.state.keys[env] = keys(seed, episode)

    def reset(self, envs: np.ndarray | None = None) -> None:
        """Begin a new episode in the given environments (default: all) from their present streams."""
        which = np.arange(self.num_envs) if envs is None else np.asarray(envs, dtype=np.int64)
        self.state.flow[which] = np.zeros((), FLOW)
        engine.reset_some(which, self.state, self.params, self.tables)
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
        shape = (self.num_envs, self.num_ues)
        if plans.dtype != PLAN or plans.shape != shape:
            raise ValueError(f"plans are {plans.dtype} {plans.shape}: start from idle_plans{shape}")
        check_plans(plans, self.num_cells, self._policy_trigger)
        advance = engine.advance_parallel if self.parallel() else engine.advance
        advance(0, self.num_envs, self.state, plans, self.params, self.tables)
        if self.link is not None:
            self.link(self.state)


def idle_plans(num_envs: int, num_ues: int) -> np.ndarray:
    """Plans that prepare nothing and leave every session where it is, PLAN [E, U]."""
    plans = np.zeros((num_envs, num_ues), PLAN)
    plans["target"], plans["medium"], plans["prefix"] = CONTINUE, DETOUR, -1
    plans["keep"], plans["bits"], plans["weight"], plans["handover"] = 1.0, 16, 1.0, STAY
    return plans


def _events_per_ue(interval_s: float, sessions: SessionConfig, serving: ServingConfig) -> int:
    """The most events of one UE in one step: it changes cell or fails once, so it resumes three times at most, and
    between the openings of two sessions a whole script is decoded, however fast."""
    # Prompts may fill a script in no time, but each is followed by a token at least.
    tokens = serving.context_scale * (sessions.script_tokens - sessions.context_tokens[1])
    if sessions.prompt_tokens[0] > 0:
        tokens = 1.0
    return 4 + math.ceil(interval_s / (SHORTEST_PAUSE_S + tokens / serving.decode_tokens_per_s))


def _answers_per_ue(interval_s: float, serving: ServingConfig) -> int:
    """The most answers of one UE that end in one step: a token each, but for the last one of a session."""
    return 2 + 2 * math.ceil(interval_s / (SHORTEST_PAUSE_S + 1.0 / serving.decode_tokens_per_s))


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
    fit = num_cells * math.floor(compute.kv_memory_bytes / compute.memory_spread / each)
    enough = compute.memory_spread * each * math.ceil(num_ues / num_cells)
    if fit < num_ues:
        raise ConfigError(f"compute.kv_memory_bytes is {compute.kv_memory_bytes:g}, compute.memory_spread "
                          f"{compute.memory_spread:g}: {num_cells} servers may hold {fit} sessions of {each:g} bytes, "
                          f"but num_ues is {num_ues}; give each server {enough:g} bytes, or take fewer UEs")


def _params(scene, phy, num_ues, interval_s, radio, mobility, sessions, serving, compute, backhaul) -> np.ndarray:
    """One PARAMS record from the configuration, float64 throughout."""
    vehicles = round(mobility.vehicle_share * num_ues)
    values = dict(
        dt=interval_s, tx_power_dbm=radio.tx_power_dbm, noise_dbm=noise_dbm(radio.bandwidth_hz, radio.noise_figure_db),
        subcarriers_db=10.0 * np.log10(radio.bandwidth_hz / SUBCARRIER_HZ), bandwidth_hz=radio.bandwidth_hz,
        idle_load=radio.idle_load, load_per_ue=radio.load_per_ue, token_payload_bits=radio.token_payload_bits,
        max_air_s=radio.max_air_s, filter_a=filter_weight(radio.filter_k, interval_s),
        measurement_noise_db=radio.measurement_noise_db, a3_offset_db=radio.a3_offset_db,
        hysteresis_db=radio.hysteresis_db, time_to_trigger_s=radio.time_to_trigger_s,
        radio_interruption_s=radio.interruption_s, pingpong_window_s=radio.pingpong_window_s,
        q_out_db=radio.q_out_db, q_in_db=radio.q_in_db, t310_s=radio.t310_s,
        reestablishment_s=radio.reestablishment_s, monitoring_load=radio.monitoring_load,
        convoy_gap_s=mobility.convoy_gap_s, vehicle_low=mobility.vehicle_speed_mps[0],
        vehicle_high=mobility.vehicle_speed_mps[1], walk_low=mobility.pedestrian_speed_mps[0],
        walk_high=mobility.pedestrian_speed_mps[1], context_low=sessions.context_tokens[0],
        context_high=sessions.context_tokens[1], context_end=sessions.script_tokens,
        context_scale=serving.context_scale, answer_median=sessions.answer_tokens[0],
        answer_sigma=sessions.answer_tokens[1], think_s=sessions.think_s, prefill_a=serving.prefill_s_per_token,
        prefill_b=serving.prefill_overhead_s, decode_rate=serving.decode_tokens_per_s,
        restore_bps=serving.restore_bytes_per_s, kv_bits_16=serving.kv_bits_per_token(16),
        kv_bits_8=serving.kv_bits_per_token(8), kv_bits_4=serving.kv_bits_per_token(4), cycle_s=compute.cycle_s,
        speed_spread=compute.speed_spread, decode_slowdown=compute.decode_slowdown, capacity_bps=backhaul.capacity_bps,
        capacity_spread=backhaul.capacity_spread, hop_s=backhaul.hop_s, origin_x=scene.origin_m[0],
        origin_y=scene.origin_m[1], pitch_m=scene.cell_size_m, sinr_low_db=float(phy.sinr_db[0]),
        sinr_step_db=float(phy.sinr_db[1] - phy.sinr_db[0]), vehicles=vehicles, convoy=mobility.convoy,
        think_shape=sessions.think_shape, prompt_median=sessions.prompt_tokens[0],
        prompt_sigma=sessions.prompt_tokens[1], chunk_tokens=compute.chunk_tokens,
        memory_bytes=compute.kv_memory_bytes, memory_spread=compute.memory_spread, variation=backhaul.variation,
        variation_period_s=backhaul.variation_period_s, chunked=int(compute.prefill == "chunked"),
        scripts=sessions.scripts, pool=int(backhaul.topology == "pool"),
    )
    params = np.zeros(1, PARAMS)
    for name, value in values.items():
        params[name] = value
    return params
