"""The simulator's own walkers as a trace file that `mobility.trace` reads."""

from __future__ import annotations

from pathlib import Path

from ....errors import require
from ....files import write_whole
from ...sim.params import BackhaulConfig, ComputeConfig, MobilityConfig, RadioConfig, ServingConfig, SessionConfig
from .simulator import Simulator, idle_plans


def export_trace(scene, phy, out: Path, *, seed: int, num_ues: int, duration_s: float, step_s: float,
                 mobility: MobilityConfig | None = None) -> int:
    """Write where the UEs of one seed are, every `step_s`; the number of rows.

    Args:
        scene, phy: as for Simulator.
        out: CSV file to write: time [s], id, x [m], y [m], to the millimetre.
        seed: of the episode.
        num_ues: UEs; their ids are padded with zeros.
        duration_s, step_s: length and sampling of the trace [s].
        mobility: who walks (default: MobilityConfig()).

    Raises:
        ValueError: a size that is not above 0.
        ConfigError: the file cannot be written.
    """
    require(duration_s >= step_s, f"duration_s is {duration_s}: it must be at least one step ({step_s} s)")
    sim = Simulator(scene, phy, num_ues=num_ues, interval_s=step_s, radio=RadioConfig(),
                    mobility=mobility or MobilityConfig(), sessions=SessionConfig(), serving=ServingConfig(),
                    compute=ComputeConfig(), backhaul=BackhaulConfig())
    sim.seed(0, seed)
    sim.reset()
    plans, width = idle_plans(1, num_ues), len(str(num_ues - 1))
    lines = ["time,id,x,y"]
    steps = round(duration_s / step_s)
    for k in range(steps + 1):
        lines += [f"{k * step_s:.6g},{u:0{width}d},{me['x']:.3f},{me['y']:.3f}"
                  for u, me in enumerate(sim.state.ue[0])]
        if k < steps:
            sim.advance(plans)
    write_whole(out, lambda draft: draft.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return len(lines) - 1
