"""What the simulated world is made of: one frozen dataclass per concern, every field with its unit.

The defaults are the `handover` experiment (configs/handover.yaml). Values are checked here, so that an impossible
world is refused before anything is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from ...errors import require
from ...kvbackend.codecs.table import CODECS, codec
from . import roofline
from .presets import GPUS, MODELS

# What a preset fills may be null in a configuration file, and is a number once the object is made.
if TYPE_CHECKING:
    PresetInt = int
    PresetFloat = float
else:
    PresetInt = int | None
    PresetFloat = float | None
OF_THE_PRESET: Any = None

# Precisions at which a plan may send a KV cache, the whole one first [bit].
PLAN_BITS = tuple(row.bits for row in CODECS if row.in_plans)


def require_finite(config) -> None:
    """Raise ValueError if a number in the dataclass `config` is infinite or not a number: time would stand still."""
    for field in fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            require(not isinstance(number, float) or math.isfinite(number),
                    f"{field.name} is {value}: it must be finite")


@dataclass(frozen=True)
class RadioConfig:
    """Downlink of one carrier and the A3 event that moves a UE to another cell (3GPP TS 38.331, 5.5.4.4)."""

    tx_power_dbm: float = 38.0  # per gNB, over the whole band [dBm]
    bandwidth_hz: float = 20e6  # [Hz]
    noise_figure_db: float = 7.0  # of the UE [dB]
    idle_load: float = 0.2  # share of its resources a gNB uses with nobody streaming [1]
    load_per_ue: float = 0.005  # share that every streaming UE adds [1]
    token_payload_bits: float = 4096.0  # what one streamed token costs on the air, headers included [bit]
    max_air_s: float = 0.5  # what one token waits at most when the link is in outage [s]
    phy: Literal["table", "exact"] = "table"  # exact: Sionna's PHYAbstraction in every step, sampled decoding errors
    filter_k: float = 4.0  # layer-3 filter coefficient (TS 38.331, 5.5.3.2); 0 = no filter [1]
    measurement_noise_db: float = 1.0  # standard deviation of one RSRP measurement [dB]
    a3_offset_db: float = 3.0  # [dB]
    hysteresis_db: float = 1.0  # [dB]
    time_to_trigger_s: float = 0.16  # [s]
    interruption_s: float = 0.05  # random access and RRC at the new cell [s]
    pingpong_window_s: float = 2.0  # back to the previous cell within this time counts as ping-pong [s]
    q_out_db: float = -8.0  # SINR below which the link is out of sync (TS 38.133, 8.1) [dB]
    q_in_db: float = -6.0  # SINR above which it is in sync again [dB]
    t310_s: float = 1.0  # out of sync for this long is a radio-link failure (TS 38.331, 5.3.10) [s]
    reestablishment_s: float = 0.2  # from the failure to the connection at the strongest cell [s]
    monitoring_load: float = 0.2  # load of every interferer in the SINR of link monitoring [1]

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.bandwidth_hz > 0, f"bandwidth_hz is {self.bandwidth_hz}: it must be above 0")
        require(0 <= self.idle_load <= 1, f"idle_load is {self.idle_load}: it must lie in [0, 1]")
        require(self.load_per_ue >= 0, f"load_per_ue is {self.load_per_ue}: it must not be negative")
        require(self.token_payload_bits > 0,
                f"token_payload_bits is {self.token_payload_bits}: it must be above 0")
        for name in ("filter_k", "measurement_noise_db", "hysteresis_db", "time_to_trigger_s", "interruption_s",
                     "pingpong_window_s", "max_air_s", "t310_s", "reestablishment_s"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")
        require(self.q_out_db <= self.q_in_db,
                f"q_out_db is {self.q_out_db}: it must not be above q_in_db ({self.q_in_db})")
        require(0 <= self.monitoring_load <= 1,
                f"monitoring_load is {self.monitoring_load}: it must lie in [0, 1]")


@dataclass(frozen=True)
class MobilityConfig:
    """Street-bound users: vehicles in convoys (the passengers of one bus) and pedestrians."""

    vehicle_share: float = 0.75  # share of the UEs that ride vehicles [1]
    convoy: int = 4  # vehicle UEs that ride one behind the other [UEs]
    convoy_gap_s: float = 0.8  # time between two UEs of a convoy [s]
    vehicle_speed_mps: tuple[float, float] = (8.0, 16.0)  # uniform [m/s]
    pedestrian_speed_mps: tuple[float, float] = (1.0, 2.0)  # uniform [m/s]
    trace: str | None = None  # CSV file (time, id, x, y) that the UEs follow instead (kvroam.envs.sim.traces)
    max_gap_s: float = 1.0  # longest time between two rows of an id of the trace [s]
    off_street_m: float = 5.0  # how far from a street a point of the trace may lie [m]

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.vehicle_share <= 1, f"vehicle_share is {self.vehicle_share}: it must lie in [0, 1]")
        require(self.convoy >= 1, f"convoy is {self.convoy}: it must be at least 1")
        require(self.convoy_gap_s >= 0, f"convoy_gap_s is {self.convoy_gap_s}: it must not be negative")
        require(self.max_gap_s > 0, f"max_gap_s is {self.max_gap_s}: it must be above 0")
        require(self.off_street_m >= 0, f"off_street_m is {self.off_street_m}: it must not be negative")
        for name in ("vehicle_speed_mps", "pedestrian_speed_mps"):
            low, high = getattr(self, name)
            require(0 <= low <= high, f"{name} is ({low}, {high}): it must be an increasing pair, not negative")


@dataclass(frozen=True)
class SessionConfig:
    """Turns of an LLM session: a prompt is prefilled, the model streams an answer, the user thinks, and so on.

    Source: BurstGPT (arXiv 2401.17644): Gamma-distributed gaps and heavy-tailed lengths. Ours: log-normal instead of
    Zipf, and the values, which have the shape of the first 43 requests of the public trace (37 answered: standard
    deviation of the log length 0.89; coefficient of variation of the gaps 1.7, that is a Gamma shape of 0.35); prompts
    are our guess, because the requests of that trace hold the conversation so far.
    """

    context_tokens: tuple[int, int] = (256, 576)  # length of the context at the start, uniform [measured tokens]
    script_tokens: int = 960  # a session ends here and a new one begins [measured tokens]
    scripts: int = 64  # different scripts that sessions are drawn from [1]
    prompt_tokens: tuple[float, float] = (60.0, 0.8)  # of one turn, log-normal: median, sigma; median 0: no prefill
    answer_tokens: tuple[float, float] = (260.0, 0.9)  # log-normal: median, sigma of the log [serving tokens]
    think_s: float = 1.5  # mean of the Gamma-distributed thinking time [s]
    think_shape: float = 0.35  # of that Gamma; below 1 is bursty, 1 is exponential [1]
    trace: str = ""  # CSV file in BurstGPT's format: answers and gaps (scaled to a mean of think_s) come from it
    ttft_objective_s: float = 0.5  # users accept to wait so long for the first token of an answer [s]
    tpot_objective_s: float = 0.1  # and, on average, so long for each of the others [s]

    def __post_init__(self) -> None:
        require_finite(self)
        low, high = self.context_tokens
        require(0 < low <= high, f"context_tokens is ({low}, {high}): it must be an increasing pair above 0")
        require(high < self.script_tokens,
                f"context_tokens ends at {high}: it must stay below script_tokens ({self.script_tokens})")
        require(self.scripts >= 1, f"scripts is {self.scripts}: it must be at least 1")
        require(self.prompt_tokens[0] >= 0 and self.prompt_tokens[1] >= 0,
                f"prompt_tokens is {self.prompt_tokens}: neither median nor sigma may be negative")
        require(self.think_shape > 0, f"think_shape is {self.think_shape}: it must be above 0")
        require(self.answer_tokens[0] > 0 and self.answer_tokens[1] >= 0,
                f"answer_tokens is {self.answer_tokens}: median above 0 and sigma not negative")
        require(self.think_s >= 0, f"think_s is {self.think_s}: it must not be negative")
        for name in ("ttft_objective_s", "tpot_objective_s"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be above 0")


@dataclass(frozen=True)
class ServingConfig:
    """The LLM that the delays are for and the GPU that runs it (kvroam.envs.sim.presets); any key may be set.

    A key that is None takes the preset's value, or what the roofline says, when the object is made, so
    `dataclasses.replace(config, preset=...)` would keep the old values: make a new ServingConfig(preset=...) instead.
    """

    preset: Literal["qwen2.5-7b", "llama-3-8b", "qwen3-14b", "qwen3-32b"] = "qwen3-14b"
    gpu: Literal["a6000", "l40s", "a100", "h100"] = "a100"  # of every edge server
    layers: PresetInt = OF_THE_PRESET
    kv_heads: PresetInt = OF_THE_PRESET
    head_dim: PresetInt = OF_THE_PRESET
    parameters: PresetFloat = OF_THE_PRESET  # [1]
    weight_bits: PresetFloat = OF_THE_PRESET  # of one weight in GPU memory, on average [bit]
    prefill_s_per_token: PresetFloat = OF_THE_PRESET  # a of p(L) = a L + b [s]
    prefill_overhead_s: PresetFloat = OF_THE_PRESET  # b of p(L) = a L + b, and of every chunk [s]
    decode_tokens_per_s: PresetFloat = OF_THE_PRESET  # one session with an empty cache, undisturbed [token/s]
    restore_bytes_per_s: float = 20e9  # received KV from host to GPU memory [byte/s]
    attach_s_per_token: float = 1e-6  # entering received KV into block tables; ours: 16 us for a block of 16 tokens [s]
    context_scale: float = 8.0  # serving tokens that one token of the measured model stands for [1]

    def __post_init__(self) -> None:
        require(self.preset in MODELS, f"preset is {self.preset!r}: choose among {', '.join(MODELS)}")
        require(self.gpu in GPUS, f"gpu is {self.gpu!r}: choose among {', '.join(GPUS)}")
        for name, value in MODELS[self.preset]._asdict().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("layers", "kv_heads", "head_dim", "parameters", "weight_bits"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be above 0")
        for name, value in (("prefill_s_per_token", self._prefill_s()),
                            ("prefill_overhead_s", roofline.PREFILL_OVERHEAD_S),
                            ("decode_tokens_per_s", 1.0 / self._iteration_s(0.0))):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        require_finite(self)
        for name in ("prefill_s_per_token", "decode_tokens_per_s", "restore_bytes_per_s", "context_scale"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("prefill_overhead_s", "attach_s_per_token"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")

    def _weight_bytes(self) -> float:
        return roofline.weight_bytes.py_func(self.parameters, self.weight_bits)

    def _prefill_s(self) -> float:
        return roofline.prefill_s_per_token.py_func(self.parameters, GPUS[self.gpu].flops_per_s,
                                                    roofline.PREFILL_EFFICIENCY)

    def _iteration_s(self, resident_bytes: float) -> float:
        efficiency = roofline.decode_efficiency.py_func(self.weight_bits)
        return roofline.iteration_s.py_func(self._weight_bytes(), resident_bytes, GPUS[self.gpu].bandwidth_bytes_per_s,
                                            efficiency, roofline.ITERATION_OVERHEAD_S)

    @property
    def kv_read_s_per_token(self) -> float:
        """What every token in the caches of the sessions that decode adds to an iteration of their server [s]."""
        return self._iteration_s(self.kv_bits_per_token(16) / 8.0) - self._iteration_s(0.0)

    @property
    def kv_room_bytes(self) -> float:
        """GPU memory that the weights leave for KV caches [byte]."""
        return roofline.kv_room_bytes.py_func(GPUS[self.gpu].memory_bytes, self._weight_bytes())

    def kv_bits_per_token(self, bits: int) -> float:
        """KV cache of one token on the wire [bit], quantisation scales included, as kvbackend's codec writes it.

        16 bit: 2 * layers * kv_heads * head_dim * 16 (arXiv 2603.28018, eq. 1).

        Raises:
            ValueError: no codec has so many bits.
        """
        return codec(bits).wire_bits_per_token(self.layers, self.kv_heads, self.head_dim)


@dataclass(frozen=True)
class ComputeConfig:
    """One edge server per gNB: prefill in chunks between decode iterations, or in batches that start on a cycle."""

    decode: Literal["shared", "alone"] = "shared"  # shared: every resident context slows all sessions; alone: none does
    prefill: Literal["chunked", "batch"] = "chunked"  # chunked: one job after the other, no cycle, no padding
    chunk_tokens: int = 256  # longest chunk between two decode iterations of a chunked prefill [serving tokens]
    cycle_s: float = 0.01  # scheduling cycle T_c of arXiv 2603.28018 [s]
    speed_spread: float = 2.0  # server speeds per episode: log-uniform in [1/spread, spread] [1]
    decode_slowdown: float = 0.5  # share of its decode rate that a session loses while a batch is prefilled [1]
    kv_memory_bytes: float | None = None  # for KV caches; None: what the weights leave of the GPU's memory [byte]
    memory_spread: float = 1.0  # memories per episode and server: log-uniform in [1/spread, spread] [1]

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.cycle_s > 0, f"cycle_s is {self.cycle_s}: it must be above 0")
        require(self.speed_spread >= 1, f"speed_spread is {self.speed_spread}: it must be at least 1")
        require(self.chunk_tokens >= 1, f"chunk_tokens is {self.chunk_tokens}: it must be at least 1")
        require(self.kv_memory_bytes is None or self.kv_memory_bytes > 0,
                f"kv_memory_bytes is {self.kv_memory_bytes}: it must be above 0")
        require(self.memory_spread >= 1, f"memory_spread is {self.memory_spread}: it must be at least 1")
        require(0 <= self.decode_slowdown < 1, f"decode_slowdown is {self.decode_slowdown}: it must lie in [0, 1)")


@dataclass(frozen=True)
class BackhaulConfig:
    """Links between the gNBs: egress and ingress per gNB, or one pool that all transfers share."""

    capacity_bps: float = 1.0e9  # per gNB and direction, or of the pool [bit/s]
    capacity_spread: float = 2.0  # capacities per episode and gNB: log-uniform in [1/spread, spread] [1]
    topology: Literal["mesh", "pool"] = "mesh"  # pool: the single shared link of arXiv 2603.28018
    # Cross traffic: what it leaves of each link is redrawn every period, log-uniform in [1/v, v]; 1: constant [1]
    variation: float = 2.0
    variation_period_s: float = 1.0  # [s]
    forwarding: Literal["none"] | int = "none"  # most Xn hops tokens are forwarded over; none: local breakout [hops]
    hop_s: float = 0.02  # delay that each hop adds to a forwarded stream [s]

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.capacity_bps > 0,
                f"capacity_bps is {self.capacity_bps}: a bandwidth must be above 0")
        require(self.capacity_spread >= 1, f"capacity_spread is {self.capacity_spread}: it must be at least 1")
        require(self.variation >= 1, f"variation is {self.variation}: it must be at least 1")
        require(self.variation_period_s > 0,
                f"variation_period_s is {self.variation_period_s}: it must be above 0")
        require(self.hops >= 0, f"forwarding is {self.forwarding}: give a number of hops, or none")
        require(self.hop_s >= 0, f"hop_s is {self.hop_s}: it must not be negative")

    @property
    def hops(self) -> int:
        """Most Xn hops that tokens are forwarded over; 0: only the server of the UE's own gNB can serve it."""
        return 0 if self.forwarding == "none" else int(self.forwarding)
