"""A picture of a scene: which gNB is best where, and how strong the best and the second-best signals are."""

from pathlib import Path

import numpy as np

from .scene import Scene


def show(scene: Scene, out: Path) -> None:
    """Draw three maps side by side and save them.

    Args:
        scene: Any loaded scene.
        out: Image file; its suffix chooses the format.
    """
    from matplotlib.figure import Figure

    half = scene.cell_size_m / 2.0
    rows, columns = scene.street.shape
    x0, y0 = scene.origin_m[0] - half, scene.origin_m[1] - half
    extent = (x0, x0 + columns * scene.cell_size_m, y0, y0 + rows * scene.cell_size_m)
    ordered = np.sort(scene.path_gain_db, axis=0)
    lead = ordered[-1] - ordered[-2]
    figure = Figure(figsize=(21, 7 * rows / columns + 1), layout="constrained")
    panels = figure.subplots(1, 3)
    drawn = (
        ("best server", scene.path_gain_db.argmax(axis=0), "tab20", (-0.5, 19.5), None),
        ("best path gain", ordered[-1], "viridis", (-120.0, -60.0), "dB"),
        ("lead of the best over the second", lead, "magma", (0.0, 30.0), "dB"),
    )
    for axes, (title, values, colours, (low, high), unit) in zip(panels, drawn, strict=True):
        shown = np.where(scene.street, values % 20 if unit is None else values, np.nan)
        axes.set_facecolor("0.85")
        picture = axes.imshow(shown, origin="lower", extent=extent, cmap=colours, vmin=low, vmax=high)
        if unit:
            figure.colorbar(picture, ax=axes, label=unit, shrink=0.8)
        axes.plot(scene.gnb_xyz_m[:, 0], scene.gnb_xyz_m[:, 1], "k^", markersize=11, markeredgecolor="w")
        for index, (x, y, _) in enumerate(scene.gnb_xyz_m):
            axes.annotate(str(index), (x, y), xytext=(6, 6), textcoords="offset points", fontweight="bold")
        axes.set(title=title, xlabel="x [m]", ylabel="y [m]")
    place = scene.origin_m + scene.cell_size_m * scene.destinations[:, ::-1]
    panels[2].plot(place[:, 0], place[:, 1], "c.", markersize=6, label="destinations")
    panels[2].legend(loc="lower right")
    credit = scene.manifest.get("attribution", "")
    figure.suptitle(f"{scene.name}: {len(scene.gnb_xyz_m)} gNBs, {int(scene.street.sum())} street cells. {credit}")
    figure.savefig(out, dpi=70)
