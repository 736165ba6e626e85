"""What there is: one row per scene, read from the manifests alone."""

import json
from typing import Any

from ...errors import KvroamError
from . import assets, bank, raytrace
from .scene import available

COLUMNS = ("scene", "made by", "gNBs", "area [m]", "pitch [m]", "street cells", "in sight", "filled", "size [kB]")


def rows() -> list[tuple[str, ...]]:
    """One row of strings per shipped scene, in the order of COLUMNS.

    `in sight` is the share of street cells that see a gNB; `filled` the share of links that are stronger by the 3GPP
    background than by traced rays (a statistical scene has no rays).
    """
    found = [(name, (assets.ASSETS / f"{name}.json").read_text(encoding="utf-8")) for name in available()]
    return [_row(name, json.loads(manifest)) for name, manifest in found]


def _row(name: str, manifest: dict[str, Any]) -> tuple[str, ...]:
    grid, pitch = manifest["grid"], float(manifest["spec"]["cell_size_m"])
    traced = "rays_per_gnb" in manifest
    return (
        name,
        f"Sionna RT, {manifest['rays_per_gnb']:.1e} rays per gNB" if traced else f"TR 38.901 {name[:3]}",
        str(grid["gnbs"]),
        f"{grid['columns'] * pitch:.0f} x {grid['rows'] * pitch:.0f}",
        f"{pitch:g}",
        str(manifest["street_cells"]),
        f"{manifest['cells_in_sight_of_a_gnb']:.0%}",
        f"{manifest['links_where_background_dominates']:.0%}" if traced else "-",
        f"{manifest['npz_bytes'] / 1000:.0f}",
    )


def table() -> str:
    """The rows as aligned text, and the names of what can be built."""
    lines = [COLUMNS, *rows()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    try:
        text.append(f"Sionna RT scenes that can be built: {', '.join(raytrace.scene_names())}")
    except KvroamError as error:
        text.append(f"Sionna RT scenes cannot be built here: {error}")
    text.append(f"statistical scenes that can be built (all: bank): {', '.join(bank.names())}")
    return "\n".join(text)


def markdown() -> str:
    """The rows as a Markdown table."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
