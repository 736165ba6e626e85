"""The simulator's own walkers as a trace file that `mobility.trace` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import require
from ...files import write_whole
from .mobility import map_params, map_tables, motion_params, move, place
from .params import MobilityConfig
from .records import MAP_PARAMS, MOTION, MOTION_PARAMS, parameters
from .streams import keys


def export_trace(scene, phy, out: Path, *, seed: int, num_ues: int, duration_s: float, step_s: float,
                 mobility: MobilityConfig | None = None) -> int:
    """Write where the UEs of one seed are, every `step_s`; the number of rows.

    Args:
        scene, phy: as for mobility.map_tables and map_params.
        out: CSV file to write: time [s], id, x [m], y [m], to the millimetre.
        seed: of the episode.
        num_ues: UEs; their ids are padded with zeros.
        duration_s, step_s: length and sampling of the trace [s].
        mobility: who walks (default: MobilityConfig()).

    Raises:
        ValueError: a size that is not above 0.
        ConfigError: the file cannot be written.
    """
    require(num_ues >= 1, f"num_ues is {num_ues}: it must be at least 1")
    require(0 < step_s < np.inf, f"step_s is {step_s}: it must be above 0 and finite")
    require(duration_s >= step_s, f"duration_s is {duration_s}: it must be at least one step ({step_s} s)")
    tables, draws = map_tables(scene, phy), keys(seed)
    dtype = np.dtype([*MAP_PARAMS, *MOTION_PARAMS])
    p = parameters(dtype, map_params(scene), motion_params(mobility or MobilityConfig(), num_ues, step_s))[0]
    ue = np.zeros(num_ues, np.dtype(MOTION))
    for u in range(num_ues):
        place(ue, u, p, tables, draws)
    width = len(str(num_ues - 1))
    lines = ["time,id,x,y"]
    for k in range(round(duration_s / step_s) + 1):
        if k > 0:
            move(ue, p, tables, draws)
        lines += [f"{k * step_s:.6g},{u:0{width}d},{me['x']:.3f},{me['y']:.3f}" for u, me in enumerate(ue)]
    write_whole(out, lambda draft: draft.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return len(lines) - 1
