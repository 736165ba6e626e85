"""Write the paths of the simulator's own UEs as a trace file, an example of what `mobility.trace` reads.

    python -m kvroam.envs.handover.trace munich --out trace.csv
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...commands import Command, add_seed
from ...errors import KvroamError
from ..scenes import load, load_phy_table
from .world.export import export_trace


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("scene", help="shipped scene, or path of a built .npz")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV file to write: time, id, x, y")
    add_seed(parser, what="seed of the paths")
    parser.add_argument("--ues", type=int, default=16, help="users (default: %(default)s)")
    parser.add_argument("--duration", type=float, default=60.0, help="length of the trace, s (default: %(default)s)")
    parser.add_argument("--step", type=float, default=0.1,
                        help="time between two rows of a user, s (default: %(default)s)")


def execute(args: argparse.Namespace) -> None:
    """Walk, and write the file."""
    try:
        rows = export_trace(load(args.scene), load_phy_table(), args.out, seed=args.seed, num_ues=args.ues,
                            duration_s=args.duration, step_s=args.step)
    except ValueError as error:
        raise error if isinstance(error, KvroamError) else KvroamError(str(error)) from error
    print(f"wrote {args.out} ({rows} rows)")


command = Command("python -m kvroam.envs.handover.trace", __doc__, options, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
