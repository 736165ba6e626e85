"""Write docs/scenes.md from the manifests and docs/scenes.png from the maps: `python docs/make_scenes.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kvroam.commands import Command
from kvroam.envs.scenes import Scene, available, load
from kvroam.envs.scenes.bank import LOCAL_MEAN_M
from kvroam.envs.scenes.listing import markdown

PAGE = Path(__file__).with_name("scenes.md")
PICTURE = Path(__file__).with_name("scenes.png")
DRAWN = ("munich", "etoile", "florence", "san_francisco", "umi-04", "uma-01")


def page() -> str:
    """The page, from the manifests of the shipped scenes."""
    noise = [(name, load(name).manifest["noise"]["two_builds_p95_db"]) for name in traced()]
    return "\n".join([
        "# Scenes", "", "Made by `python docs/make_scenes.py`, from the manifests beside the assets "
        "(`python -m kvroam.envs.scenes list` prints the same table).", "",
        f"![{', '.join(DRAWN)}: the street coloured by its best gNB](scenes.png)", "", markdown(), "",
        "`in sight`: street cells that see a gNB. `filled`: links of street cells to gNBs, near and far, where the",
        "TR 38.901 NLoS background is stronger than the traced rays.", "",
        "## Use", "",
        "munich is for training, etoile, florence and san_francisco are held out for testing, simple_street_canyon is",
        "for quick tests. Set `scene: umi-03` in a configuration, or the path of a scene that you built.", "",
        "## Ray-traced scenes", "",
        "`python -m kvroam.envs.scenes build NAME` rebuilds one with its preset, and `build FILE.xml` builds a Mitsuba",
        "scene of your own (largest object: the ground; needs LLVM 19, Debian package libllvm19). Two such builds with",
        "other rays differ, at the 95th percentile of relevant links, by "
        + ", ".join(f"{value:.2f} dB ({name})" for name, value in noise) + ".", "",
        "City scenes: computed from Sionna RT scenes derived from OpenStreetMap, (c) OpenStreetMap contributors, ODbL.",
        "", "## Statistical scenes", "",
        "`umi-00` to `umi-07` and `uma-00` to `uma-07`: TR 38.901 UMi street canyon and UMa for outdoor UEs over",
        "random Manhattan streets. LoS probability (table 7.4.2-1), path loss (7.4.1-1), shadowing with exponential",
        "correlation (7.4.4, 7.5-6) and the soft LoS state (7.6.3.3) correlated over 50 m, independent between sites.",
        "The line of sight of the standard knows no walls: streets bound where UEs go, not what they see.",
        "`build umi-03` or `build bank` rebuilds them from their seeds, without a ray tracer.", "",
        "What is the standard's, and what is ours:", "",
        "- From the standard: LoS probability, path loss, sigma of the shadowing, independence of the sites, and the",
        "  soft state 1/2 + arctan(sqrt(20 / wavelength) (G + F(d))) / pi; sqrt(20 / wavelength) is 15.3 at 3.5 GHz.",
        "  Where the LoS probability is constant, it rises from 1/4 to 3/4 within 0.13 of the Gaussian field G, which",
        "  is 4.6 m for the rms slope of G (sqrt(2) / 50 m): about one cell of the grid.",
        "- After the standard: the power with line of sight is weighed by the square of the soft state and the power",
        "  without it by the rest (7.6-19 weighs the channel matrices so). That path loss and shadowing belong to the",
        "  channels that are weighed is our reading. The edge of a shadow costs 6 dB, as a knife edge does.",
        "- Ours: the autocorrelation of G is Gaussian, because an exponential one speckles the edge of a shadow.",
        "- Ours, and tuned by the share of handovers that fail ([mobility.md](mobility.md)): the weights and the",
        f"  shadowing are local means, Gaussian weights of {LOCAL_MEAN_M:g} m standard deviation, "
        "as of a disc of radius 10 m.",
        "  The sigma of the means is that of the standard; they decorrelate more slowly than its tables say, the more",
        "  so where these say 10 and 13 m (UMi).",
        "- Not tuned: sites, powers, load, measurements and link monitoring, in which no scene differs from another.",
        "- What follows: the trace of line of sight that the arctangent leaves behind an edge raises the mean gain,",
        "  and the spread falls, compared with a state that is either 0 or 1. tests/envs/test_scene_bank.py compares",
        "  the shipped maps with draws of the law without local means.", "",
    ])  # fmt: skip


def traced() -> list[str]:
    """Names of the shipped scenes that were ray-traced."""
    return [name for name in available() if "noise" in load(name).manifest]


def draw(out: Path) -> None:
    """The scenes of DRAWN, their streets coloured by best gNB."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 10), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, DRAWN, strict=True):
        _panel(axes, load(name))
    figure.text(0.995, 0.002, "city maps: (c) OpenStreetMap contributors, ODbL", ha="right", fontsize=8)
    figure.savefig(out, dpi=60, metadata={"Software": None})


def _panel(axes: Any, scene: Scene) -> None:
    half = scene.cell_size_m / 2.0
    rows, columns = scene.street.shape
    x0, y0 = scene.origin_m[0] - half, scene.origin_m[1] - half
    extent = (x0, x0 + columns * scene.cell_size_m, y0, y0 + rows * scene.cell_size_m)
    best = np.where(scene.street, scene.path_gain_db.argmax(axis=0) % 20, np.nan)
    axes.set_facecolor("0.85")
    axes.imshow(best, origin="lower", extent=extent, cmap="tab20", vmin=-0.5, vmax=19.5, interpolation="nearest")
    axes.plot(scene.gnb_xyz_m[:, 0], scene.gnb_xyz_m[:, 1], "k^", markersize=8, markeredgecolor="w")
    axes.set(title=f"{scene.name}: {len(scene.gnb_xyz_m)} gNBs", xlabel="x [m]", ylabel="y [m]")


def execute(args: argparse.Namespace) -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")
    draw(PICTURE)


command = Command("python docs/make_scenes.py", __doc__, lambda parser: None, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
