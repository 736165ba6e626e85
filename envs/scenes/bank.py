"""A bank of statistical scenes: TR 38.901 UMi and UMa over random Manhattan streets, built from seeds in seconds.

Ray tracing is not involved: line of sight, path loss and shadowing are those of the standard, correlated in space, so
that a UE that returns to a place finds the radio it left. The standard's line of sight knows no walls: the streets
bound where UEs go, not what they see.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SceneError
from . import assets, background, maps, routes, sites
from .scene import Scene
from .tr38901 import SCENARIOS, STATE_CORRELATION_M, Scenario, los_probability, path_loss_db, soft_state

MAPS = 8
# Width and height of the windows in lattice columns and rows; they hold 7, 11, 13 or 17 gNBs.
EXTENTS = {
    "umi": ((3, 3), (4, 3), (5, 3), (3, 5), (4, 5), (4, 3), (3, 3), (3, 5)),
    "uma": ((3, 3), (4, 3), (5, 3), (3, 5), (3, 3), (4, 3), (3, 3), (4, 3)),
}
PITCH_M = {"umi": 5.0, "uma": 10.0}
BLOCK_M = {"umi": (40.0, 100.0), "uma": (80.0, 160.0)}
STREET_M = {"umi": (12.0, 25.0), "uma": (20.0, 40.0)}
SQUARE_SHARE = 0.05
# Sites move off their lattice points by at most this share of the inter-site distance.
JITTER_SHARE = 0.1
# Shape of the state's autocorrelation; the clause names its distance only. With 1 the edge of a shadow is speckled, and
# vehicles cross it several times where a street has one corner.
STATE_EXPONENT = 2.0
# Shadowing and soft state are local means with Gaussian weights of this standard deviation, that of a disc of radius
# 10 m: shadow fading is defined for local means, and the grid cannot carry what is finer than its pitch.
LOCAL_MEAN_M = 5.0
# Gains are rounded to this: far below the shadowing, and the file is little more than half as large as at 0.01 dB.
RESOLUTION_DB = 0.25
_CONCERNS = ("streets", "sites", "sight", "shadow")


@dataclass(frozen=True)
class BankSpec:
    """Everything that decides the content of one statistical scene.

    Attributes:
        name: Name of the asset, such as umi-03.
        scenario: umi or uma.
        extent: Columns and rows of the lattice that the window holds.
        seed: Seed of streets, sites, line of sight and shadowing.
        cell_size_m: Pitch of the grid, metres.
        block_m: Range of the sides of blocks, metres.
        street_m: Range of the widths of streets, metres.
        ue_m: Antenna height of UEs, metres.
        carrier_hz: Carrier frequency, Hz.
        destinations: Number of places to go to.
    """

    name: str
    scenario: str
    extent: tuple[int, int]
    seed: int
    cell_size_m: float
    block_m: tuple[float, float]
    street_m: tuple[float, float]
    ue_m: float = 1.5
    carrier_hz: float = 3.5e9
    destinations: int = 24


def names() -> list[str]:
    """Names of the scenes of the bank."""
    return [f"{scenario}-{number:02d}" for scenario in EXTENTS for number in range(MAPS)]


def spec(name: str) -> BankSpec:
    """What the bank's scene `name` is built from.

    Raises:
        SceneError: No such name.
    """
    if name not in names():
        raise SceneError(f"the bank has no scene {name!r}: give one of {', '.join(names())}")
    kind, number = name.split("-")
    return BankSpec(
        name, kind, EXTENTS[kind][int(number)], int(number), PITCH_M[kind], BLOCK_M[kind], STREET_M[kind]
    )


def build(spec: BankSpec, out: Path, command: str = "") -> dict:
    """Build one scene of the bank and write NAME.npz and NAME.json; equal specs give equal arrays.

    Args:
        spec: What to build.
        out: Folder to write to.
        command: Command line, for the manifest.

    Returns:
        The manifest.
    """
    scenario = SCENARIOS[spec.scenario]
    rngs = _streams(spec)
    size_m = scenario.inter_site_m * np.array(spec.extent) * (1.0, np.sqrt(0.75))
    columns, rows = (int(count) for count in np.ceil(size_m / spec.cell_size_m))
    street = manhattan((rows, columns), spec.cell_size_m, spec.block_m, spec.street_m, rngs["streets"])
    origin_m = -0.5 * spec.cell_size_m * (np.array([columns, rows]) - 1.0)
    centres = np.stack(
        np.meshgrid(*(start + spec.cell_size_m * np.arange(n) for start, n in zip(origin_m, (columns, rows),
                                                                                  strict=True))), axis=-1
    )  # fmt: skip
    gnb = _sites(scenario, size_m, centres[street], rngs["sites"])
    distance_m = np.linalg.norm(centres[None] - gnb[:, None, None, :2], axis=-1)
    sight, gain_db = links(spec, distance_m, rngs["sight"], rngs["shadow"])
    gain_db = np.round(gain_db / RESOLUTION_DB) * RESOLUTION_DB
    places = routes.spread_destinations(street, spec.destinations)
    built = Scene(
        name=spec.name,
        origin_m=(float(origin_m[0]), float(origin_m[1])),
        cell_size_m=spec.cell_size_m,
        path_gain_db=maps.continued_into_walls(gain_db, street),
        street=street,
        gnb_xyz_m=gnb,
        destinations=places,
        next_direction=routes.next_directions(street, places),
        manifest={},
    )
    manifest = _manifest(spec, scenario, built, command) | _measured(scenario, built, sight, distance_m)
    return assets.write(out / f"{spec.name}.npz", built.to_arrays(), manifest)


def links(
    spec: BankSpec, distance_m: np.ndarray, sight_rng: np.random.Generator, shadow_rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Line of sight and gain of every link, correlated in space and independent between sites.

    Args:
        spec: Scenario, pitch, heights and carrier.
        distance_m: float64 [C, H, W], on the ground, metres.
        sight_rng: Source of the line-of-sight state.
        shadow_rng: Source of the shadowing.

    Returns:
        bool [C, H, W], whether the soft state is above 1/2, and float64 [C, H, W] in dB.

    Source: TR 38.901 clauses 7.6.3.3 (soft state; equation 7.6-19 weighs the amplitude of the channel with line of
    sight by it, and the other's so that the power weights sum to 1) and 7.4.4 (shadowing). That path loss and
    shadowing are within the two channels, whose powers add, and the local mean are ours.
    """
    from scipy.ndimage import gaussian_filter

    scenario = SCENARIOS[spec.scenario]
    gnbs, shape = len(distance_m), distance_m.shape[1:]
    field = background.shadowing_db(gnbs, shape, spec.cell_size_m, sight_rng, 1.0, STATE_CORRELATION_M, STATE_EXPONENT)
    state = soft_state(scenario, distance_m, field, spec.carrier_hz)
    cells = LOCAL_MEAN_M / spec.cell_size_m
    weight = gaussian_filter(state**2, (0.0, cells, cells), mode="nearest")
    power = np.zeros(distance_m.shape)
    for sight, share, sigma, correlation in zip(
        (True, False), (weight, 1.0 - weight), scenario.sigma_db, scenario.correlation_m, strict=True
    ):
        shadow = background.shadowing_db(
            gnbs, shape, spec.cell_size_m, shadow_rng, sigma, correlation, local_mean_m=LOCAL_MEAN_M
        )
        loss = path_loss_db(
            scenario, distance_m, np.full(distance_m.shape, sight), scenario.gnb_m, spec.ue_m, spec.carrier_hz
        )
        power += share * 10.0 ** ((shadow - loss) / 10.0)
    return state > 0.5, 10.0 * np.log10(power)


def manhattan(
    shape: tuple[int, int],
    cell_size_m: float,
    block_m: tuple[float, float],
    street_m: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Streets that cross at right angles around blocks of random size; some blocks are open squares.

    Args:
        shape: Rows and columns.
        cell_size_m: Pitch, metres.
        block_m: Range of the sides of blocks, metres.
        street_m: Range of the widths of streets, metres.
        rng: Source of randomness.

    Returns:
        bool [H, W], one 4-connected piece.
    """
    spans = [_blocks(length, cell_size_m, block_m, street_m, rng) for length in shape]
    street = np.ones(shape, dtype=bool)
    for bottom, top in spans[0]:
        for left, right in spans[1]:
            street[bottom:top, left:right] = rng.random() < SQUARE_SHARE
    return routes.largest_component(street)


def _blocks(
    length: int, cell_size_m: float, block_m: tuple[float, float], street_m: tuple[float, float],
    rng: np.random.Generator,
) -> list[tuple[int, int]]:  # fmt: skip
    """First and last-plus-one cells of the blocks along one axis; the edge cuts the first and the last one."""
    spans = []
    start = -round(rng.uniform(0.0, block_m[0]) / cell_size_m)
    while start < length:
        end = start + max(1, round(rng.uniform(*block_m) / cell_size_m))
        spans.append((max(start, 0), min(end, length)))
        start = end + max(2, round(rng.uniform(*street_m) / cell_size_m))
    return spans


def _sites(scenario: Scenario, size_m: np.ndarray, street_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """gNBs, float64 [C, 3]: jittered lattice points; UMi masts stand in the nearest street, UMa ones on roofs."""
    lattice = sites.hexagonal_lattice(-size_m / 2.0, size_m / 2.0, scenario.inter_site_m)
    radius = JITTER_SHARE * scenario.inter_site_m * np.sqrt(rng.random(len(lattice)))
    angle = 2.0 * np.pi * rng.random(len(lattice))
    spots = lattice + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    if scenario.name == "umi":
        away = np.linalg.norm(spots[:, None] - street_m[None], axis=-1)
        spots = street_m[away.argmin(axis=1)]
    return np.column_stack([spots, np.full(len(spots), scenario.gnb_m)])


def _streams(spec: BankSpec) -> dict[str, np.random.Generator]:
    """One generator per concern, so that another street plan would not change the shadowing."""
    family = list(SCENARIOS).index(spec.scenario)
    return {
        concern: np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(family, index)))
        for index, concern in enumerate(_CONCERNS)
    }


def _measured(scenario: Scenario, built: Scene, sight: np.ndarray, distance_m: np.ndarray) -> dict[str, Any]:
    """What the manifest says about the scene on its streets."""
    gain, seen = built.path_gain_db[:, built.street], sight[:, built.street]
    best = gain.max(axis=0)
    served = np.bincount(gain.argmax(axis=0), minlength=len(gain)) / best.size
    return {
        "street_cells": int(built.street.sum()),
        "links_in_sight": round(float(seen.mean()), 4),
        "links_in_sight_expected": round(float(los_probability(scenario, distance_m[:, built.street]).mean()), 4),
        "cells_in_sight_of_a_gnb": round(float(seen.any(axis=0).mean()), 4),
        "best_server_share": [round(float(share), 4) for share in served],
        "gnbs_within_10_db_of_best": round(float((gain >= best - 10.0).sum(axis=0).mean()), 4),
        "best_gain_db_percentiles_5_50_95": [round(float(value), 4) for value in np.percentile(best, [5, 50, 95])],
    }


def _manifest(spec: BankSpec, scenario: Scenario, built: Scene, command: str) -> dict[str, Any]:
    gnbs, rows, columns = built.path_gain_db.shape
    return {
        "name": spec.name,
        "kind": "scene",
        "command": command,
        "spec": asdict(spec),
        "model": f"TR 38.901 {'UMi street canyon' if spec.scenario == 'umi' else 'UMa'}, outdoor UEs: LoS probability "
        "(table 7.4.2-1), path loss (7.4.1-1), shadowing (7.4.4, 7.5-6), soft LoS state correlated in space (7.6.3.3, "
        f"Gaussian autocorrelation), local means over {LOCAL_MEAN_M:g} m; isotropic antennas; no ray tracing",
        "parameters": asdict(scenario),
        "grid": {"gnbs": gnbs, "rows": rows, "columns": columns, "street_height_m": [0.0, 0.0]},
        "gnb_xyz_m": [[round(float(axis), 4) for axis in position] for position in built.gnb_xyz_m],
        "site_rule": f"hexagonal lattice, points moved by at most {JITTER_SHARE:g} inter-site distances"
        + (", then to the nearest street cell" if spec.scenario == "umi" else ""),
        "off_street": "cells off the street repeat their nearest street cell",
        "resolution_db": RESOLUTION_DB,
    }
