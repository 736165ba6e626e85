"""What the simulated world is made of: one frozen dataclass per concern, every field with its unit.

The defaults are the `handover` experiment (configs/handover.yaml). Values are checked here, so that an impossible
world is refused before anything is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from ...errors import require


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
    load_per_ue: float = 0.1  # share that every streaming UE adds [1]
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
    """Turns of an LLM session: the model streams an answer, the user thinks, and so on."""

    context_tokens: tuple[int, int] = (256, 576)  # length of the context at the start, uniform [measured tokens]
    script_tokens: int = 960  # a session ends here and a new one begins [measured tokens]
    scripts: int = 64  # different scripts that sessions are drawn from [1]
    answer_tokens: tuple[float, float] = (200.0, 0.6)  # log-normal: median, sigma of the log [serving tokens]
    think_s: float = 1.5  # mean of the exponential thinking time [s]

    def __post_init__(self) -> None:
        require_finite(self)
        low, high = self.context_tokens
        require(0 < low <= high, f"context_tokens is ({low}, {high}): it must be an increasing pair above 0")
        require(high < self.script_tokens,
                f"context_tokens ends at {high}: it must stay below script_tokens ({self.script_tokens})")
        require(self.scripts >= 1, f"scripts is {self.scripts}: it must be at least 1")
        require(self.answer_tokens[0] > 0 and self.answer_tokens[1] >= 0,
                f"answer_tokens is {self.answer_tokens}: median above 0 and sigma not negative")
        require(self.think_s >= 0, f"think_s is {self.think_s}: it must not be negative")


@dataclass(frozen=True)
class ServingConfig:
    """The LLM that the delays are for; the default is Qwen2.5-7B-Instruct as in arXiv 2603.28018, section V."""

    layers: int = 28
    kv_heads: int = 4
    head_dim: int = 128
    prefill_s_per_token: float = 9.4267e-5  # a of p(L) = a L + b [s]
    prefill_overhead_s: float = 2.4e-3  # b of p(L) = a L + b [s]
    decode_tokens_per_s: float = 30.0  # one session, undisturbed [token/s]
    restore_bytes_per_s: float = 20e9  # received KV into GPU memory [byte/s]
    context_scale: float = 8.0  # serving tokens that one token of the measured model stands for [1]

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("layers", "kv_heads", "head_dim", "prefill_s_per_token", "decode_tokens_per_s",
                     "restore_bytes_per_s", "context_scale"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be above 0")
        require(self.prefill_overhead_s >= 0,
                f"prefill_overhead_s is {self.prefill_overhead_s}: it must not be negative")

    def kv_bits_per_token(self, bits: int) -> float:
        """KV cache of one token on the wire [bit], quantisation scales included.

        16 bit: 2 * layers * kv_heads * head_dim * 16 (arXiv 2603.28018, eq. 1). Below 16 bit the codec of kvbackend
        adds an fp16 scale and zero point per token and head for V, and per channel and 32 tokens for K.
        """
        heads = self.layers * self.kv_heads
        payload = 2.0 * heads * self.head_dim * bits
        return payload if bits >= 16 else payload + heads * (32.0 + self.head_dim)


@dataclass(frozen=True)
class ComputeConfig:
    """One edge server per gNB: prefill in batches that start on a cycle."""

    cycle_s: float = 0.01  # scheduling cycle T_c of arXiv 2603.28018 [s]
    speed_spread: float = 2.0  # server speeds per episode: log-uniform in [1/spread, spread] [1]
    decode_slowdown: float = 0.5  # share of its decode rate that a session loses while its server prefills [1]

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.cycle_s > 0, f"cycle_s is {self.cycle_s}: it must be above 0")
        require(self.speed_spread >= 1, f"speed_spread is {self.speed_spread}: it must be at least 1")
        require(0 <= self.decode_slowdown < 1, f"decode_slowdown is {self.decode_slowdown}: it must lie in [0, 1)")


@dataclass(frozen=True)
class BackhaulConfig:
    """Links between the gNBs: egress and ingress per gNB, or one pool that all transfers share."""

    capacity_bps: float = 4.0e9  # per gNB and direction, or of the pool [bit/s]
    capacity_spread: float = 2.0  # capacities per episode and gNB: log-uniform in [1/spread, spread] [1]
    topology: Literal["mesh", "pool"] = "mesh"  # pool: the single shared link of arXiv 2603.28018
    hop_s: float = 0.02  # extra delay of a token that is forwarded to another gNB and delivered there [s]

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.capacity_bps > 0,
                f"capacity_bps is {self.capacity_bps}: a bandwidth must be above 0")
        require(self.capacity_spread >= 1, f"capacity_spread is {self.capacity_spread}: it must be at least 1")
        require(self.hop_s >= 0, f"hop_s is {self.hop_s}: it must not be negative")
