"""The mobility report as a page, and the figure of a scene with cells, streets, tracks and handovers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

INTRODUCTION = """\
A3 handovers at the settings of the configuration. A ping-pong is a return to the previous cell after a stay of less
than 1 s (the minimum time of stay of 3GPP TR 36.839). Stays count when they begin and end within an episode, so those
of pedestrians, which are longer than an episode can show, come out too short. A handover fails when its command is
sent on a link that is out of sync. Fluid flow is what a hexagonal grid with the scene's inter-site distance gives for
motion in any direction at the mean speed: an order of magnitude for the rate, from geometry alone. It fits a city with
cells on all sides, and not a single street with a few gNBs, where UEs turn back at the ends.
"""
TUNING = """\
Tuned for this table: the local mean of the statistical scenes (umi, uma; see [scenes.md](scenes.md)), without which
line of sight and shadowing change faster than measurement and time-to-trigger can follow at the speed of vehicles. Not
tuned: radio, measurements, monitoring and speeds, which are those of the configuration in every scene, and the
ray-traced maps.

Ray-traced cities differ in how many links rest on the TR 38.901 background instead of rays (`filled` in scenes.md).
Its shadowing decorrelates over 13 m and is independent between gNBs, so that a vehicle can lose its cell within a
second where no wall is. florence has the most of such links and the most failures: do not read its share of handovers
that fail as the effect of street corners alone.
"""
PREDICTIONS = """\
What two predictors said one lead before each handover, and how many of their predictions within that lead came to
nothing in the 5 s after they were made. *Constant velocity* (and heading) is what every policy sees.
*Street map* knows the streets and learns from watching where each user is likely to go
([training](training.md#the-shipped-policy)); what it takes to be less likely than one half is not counted as
predicted. Handovers that failed are not asked about, nor those of UEs that were not yet in the same stay one lead
before. Both read the map that the world is made of, and users really take shortest ways: a network with a measured
map, and people with minds of their own, would make both worse.
"""
PREDICTORS = {"velocity": "constant velocity", "streets": "street map"}


def page(results: Mapping[str, Any]) -> str:
    """The report in Markdown.

    Args:
        results: what benchmarks.mobility writes as JSON.
    """
    rows = [(scene, group, entry) for scene, groups in results["scenes"].items() for group, entry in groups.items()]
    lines = ["# Mobility and handover prediction", "", f"Made by `{results['command']}`.", "", INTRODUCTION,
             "| scene | who | UE-min | handovers/min | fluid flow | stay p10 / median / p90 [s] | ping-pong "
             "| failures (RLF)/min | handovers that fail | out of coverage |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for scene, group, e in rows:
        lines.append(
            f"| {scene} | {group} | {e['ue_minutes']:.0f} | {e['handovers_per_min']:.2f} "
            f"| {_number(e['fluid_flow_per_min'], '.2f')} | {_number(e['stay_p10_s'], '.1f')} / "
            f"{_number(e['stay_median_s'], '.1f')} / {_number(e['stay_p90_s'], '.1f')} | {e['pingpong_share']:.1%} "
            f"| {e['rlf_per_min']:.3f} | {e['handover_failure_share']:.1%} | {e['out_of_coverage_share']:.2%} |")
    lines += ["", TUNING.rstrip()]
    lines += ["", "## Predictors", "", PREDICTIONS,
              "| scene | who | lead [s] | predictor | handovers | right cell | other cell | none "
              "| error of the time [s] | alarms | false |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for scene, group, entry in rows:
        for lead in entry["predictor"]["velocity"]:
            for name, says in PREDICTORS.items():
                a = entry["predictor"][name][lead]
                lines.append(f"| {scene} | {group} | {lead} | {says} | {a['handovers']} | {a['hit_share']:.1%} "
                             f"| {a['other_cell_share']:.1%} | {a['none_share']:.1%} "
                             f"| {_number(a['time_error_s'], '.2f')} | {a['alarms']} | {a['false_alarm_share']:.1%} |")
    lines += [""]
    for scene in results["figures"]:
        lines += [f"![{scene}](mobility_{scene}.png)", ""]
    return "\n".join(lines)


def figure(scene, seen: Mapping[str, np.ndarray], out: Path) -> None:
    """Draw the streets in the colours of their strongest cell, tracks of the first episode, and all handovers.

    Args:
        scene: kvroam.envs.scenes.Scene.
        seen: what benchmarks.mobility.observe returns.
        out: image file; its suffix chooses the format.
    """
    from matplotlib.figure import Figure

    half = scene.cell_size_m / 2.0
    rows, columns = scene.street.shape
    x0, y0 = scene.origin_m[0] - half, scene.origin_m[1] - half
    extent = (x0, x0 + columns * scene.cell_size_m, y0, y0 + rows * scene.cell_size_m)
    canvas = Figure(figsize=(9, 9 * rows / columns + 0.6), layout="constrained")
    axes = canvas.subplots()
    axes.set_facecolor("0.88")
    axes.imshow(np.where(scene.street, scene.path_gain_db.argmax(axis=0) % 20, np.nan), origin="lower", extent=extent,
                cmap="tab20", vmin=-0.5, vmax=19.5, alpha=0.35)
    for u in range(seen["x"].shape[2]):
        axes.plot(seen["x"][:, 0, u], seen["y"][:, 0, u], color="0.35", linewidth=0.6,
                  label="tracks (first episode)" if u == 0 else None)
    for name, marker, colour, label in (("handovers", ".", "k", "handover"), ("rlf", "x", "r", "radio-link failure")):
        step, env, who = np.nonzero(seen[name])
        axes.plot(seen["x"][step + 1, env, who], seen["y"][step + 1, env, who], marker, color=colour, markersize=3.5,
                  alpha=0.5, label=label)
    axes.plot(scene.gnb_xyz_m[:, 0], scene.gnb_xyz_m[:, 1], "^", color="w", markersize=11, markeredgecolor="k",
              label="gNB")
    axes.set(xlabel="x [m]", ylabel="y [m]", title=f"{scene.name}: {scene.manifest.get('attribution', '')}")
    axes.title.set_fontsize(8)
    axes.legend(loc="upper right", fontsize=8)
    canvas.savefig(out, dpi=90)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)
