"""Commands for radio assets: build a scene or the link curve, list what there is, draw a scene."""

import argparse
import shlex
import sys
from pathlib import Path

from ...commands import Command
from ...errors import SceneError
from . import assets, bank
from .build import PRESETS, BuildSpec, build, spec_for
from .listing import table
from .phy import build_phy
from .scene import load
from .show import show

PROGRAM = "python -m kvroam.envs.scenes"
# Options of `build` that only a ray-traced scene understands.
_RAY_TRACING = (
    "window", "inter_site", "mast", "cell", "carrier", "samples", "passes", "depth", "destinations", "seed"
)  # fmt: skip


def _build(options: argparse.Namespace, command: str) -> None:
    if options.name == "phy":
        manifest = build_phy(options.out, command)
        print(f"wrote {options.out / 'phy.npz'} ({manifest['npz_bytes']} bytes)")
        return
    if options.name == "bank" or options.name in bank.names():
        _build_bank(options)
        return
    changes = {
        "window_m": tuple(options.window) if options.window else None,
        "inter_site_m": options.inter_site,
        "mast_m": options.mast,
        "cell_size_m": options.cell,
        "carrier_hz": options.carrier,
        "samples_per_pass": options.samples,
        "passes": options.passes,
        "max_depth": options.depth,
        "destinations": options.destinations,
        "seed": options.seed,
    }
    manifest = build(spec_for(options.name, **changes), options.out, command, progress=True)
    noise, grid = manifest["noise"], manifest["grid"]
    print(
        f"wrote {options.out / manifest['name']}.npz ({manifest['npz_bytes']} bytes): {grid['gnbs']} gNBs, "
        f"{grid['rows']} x {grid['columns']} cells; two such builds differ by {noise['two_builds_p95_db']:.2f} dB "
        "at the 95th percentile of relevant links"
    )


def _build_bank(options: argparse.Namespace) -> None:
    given = [name for name in _RAY_TRACING if getattr(options, name) is not None]
    if given:
        raise SceneError(f"--{given[0].replace('_', '-')} does not apply to {options.name}: leave it out")
    for name in bank.names() if options.name == "bank" else [options.name]:
        manifest = bank.build(bank.spec(name), options.out, f"{PROGRAM} build {name}")
        grid = manifest["grid"]
        print(
            f"wrote {options.out / name}.npz ({manifest['npz_bytes']} bytes): {grid['gnbs']} gNBs, "
            f"{grid['rows']} x {grid['columns']} cells"
        )


def _list(options: argparse.Namespace, command: str) -> None:
    print(table())


def _show(options: argparse.Namespace, command: str) -> None:
    show(load(options.name), options.out)
    print(f"wrote {options.out}")


def _options(parser: argparse.ArgumentParser) -> None:
    default = BuildSpec("")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    make = commands.add_parser("build", help="build a scene, the bank, or the link curve")
    make.set_defaults(run=_build)
    make.add_argument("name", help="Sionna RT scene, path of a Mitsuba .xml, umi-03, bank, or phy")
    make.add_argument("--out", type=Path, default=assets.ASSETS, help="folder to write to (default: the package's)")
    make.add_argument("--window", type=float, nargs=4, metavar=("XMIN", "YMIN", "XMAX", "YMAX"), help="metres")
    presets = f"preset for {', '.join(PRESETS)}; otherwise"
    make.add_argument("--inter-site", type=float, help=f"distance of gNBs, m ({presets} {default.inter_site_m:g})")
    make.add_argument("--mast", type=float, help=f"gNB antenna height above ground, m ({presets} {default.mast_m:g})")
    make.add_argument("--cell", type=float, help=f"grid pitch, m (default {default.cell_size_m:g})")
    make.add_argument("--carrier", type=float, help=f"carrier, Hz (default {default.carrier_hz:g})")
    make.add_argument("--samples", type=int, help=f"rays per gNB and pass ({presets} {default.samples_per_pass})")
    make.add_argument("--passes", type=int, help=f"passes to average, even ({presets} {default.passes})")
    make.add_argument("--depth", type=int, help=f"most interactions of a ray (default {default.max_depth})")
    make.add_argument("--destinations", type=int, help=f"places to go to ({presets} {default.destinations})")
    make.add_argument("--seed", type=int, help=f"seed of rays and shadowing (default {default.seed})")

    commands.add_parser("list", help="shipped scenes, and those that can be built").set_defaults(run=_list)

    draw = commands.add_parser("show", help="draw coverage, streets and gNBs")
    draw.set_defaults(run=_show)
    draw.add_argument("name", help="shipped scene, or path of a built .npz")
    draw.add_argument("--out", type=Path, required=True, help="image file to write")


def _execute(options: argparse.Namespace) -> None:
    options.run(options, f"{PROGRAM} {shlex.join(options.given)}")


main = Command(PROGRAM, __doc__, _options, _execute, torch=False).main

if __name__ == "__main__":
    sys.exit(main())
