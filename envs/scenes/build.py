"""Build a scene asset: street mask, gNB sites, ray-traced path-gain maps with a 3GPP background, and routes."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SceneError
from . import assets, background, maps, raytrace, routes, sites
from .scene import STORED_PER_DB, Scene

# A cell is street when the first surface from above is at most this much above the ground.
STREET_TOLERANCE_M = 2.0
# Ground that varies less than this is a plane, for which the solver's planar map is faster than a mesh.
FLAT_M = 0.1

@dataclass(frozen=True)
class BuildSpec:
    """Everything that decides the content of an asset.

    Attributes:
        source: Name of a Sionna RT scene, or path of a Mitsuba .xml file whose largest object is the ground.
        window_m: x_min, y_min, x_max, y_max, metres; None for the middle 900 m of the scene.
        inter_site_m: Distance of neighbours in the hexagonal lattice of gNBs, metres.
        mast_m: Antenna height of gNBs above ground, metres.
        cell_size_m: Pitch of the grid, metres.
        ue_m: Antenna height of UEs above ground, metres.
        carrier_hz: Carrier frequency, Hz.
        bandwidth_hz: Bandwidth given to the solver, Hz; path gains do not depend on it.
        power_dbm: Transmit power recorded for the simulator, dBm; path gains do not depend on it.
        max_depth: Largest number of reflections and refractions of a ray.
        samples_per_pass: Rays per gNB and pass; memory grows with this times the number of gNBs.
        passes: Independent passes whose powers are averaged; even, because the two halves measure the noise.
        destinations: Number of places to go to.
        floor_db: A cell whose best gain is lower is no street, dB.
        seed: Seed of the solver's passes and of the shadowing.
    """

    source: str
    window_m: tuple[float, float, float, float] | None = None
    inter_site_m: float = 250.0
    mast_m: float = 15.0
    cell_size_m: float = 5.0
    ue_m: float = 1.5
    carrier_hz: float = 3.5e9
    bandwidth_hz: float = 20e6
    power_dbm: float = 44.0
    max_depth: int = 5
    samples_per_pass: int = 5_000_000
    passes: int = 4
    destinations: int = 48
    floor_db: float = -130.0
    seed: int = 1


PRESETS = {
    "munich": BuildSpec("munich", window_m=(-500.0, -460.0, 400.0, 360.0), passes=16),
    "etoile": BuildSpec("etoile", window_m=(-360.0, -280.0, 340.0, 270.0), inter_site_m=190.0, passes=6),
    # The alleys of Florence are too narrow for 5 m cells: half of the streets would be cut off.
    "florence": BuildSpec(
        "florence", window_m=(-360.0, -450.0, 360.0, 450.0), inter_site_m=225.0, cell_size_m=4.0, passes=6
    ),
    "san_francisco": BuildSpec("san_francisco", window_m=(-420.0, -380.0, 380.0, 380.0), passes=6),
    "simple_street_canyon": BuildSpec(
        "simple_street_canyon", inter_site_m=70.0, mast_m=10.0, samples_per_pass=4_000_000, destinations=12
    ),
}


def spec_for(name_or_xml: str, **changes: Any) -> BuildSpec:
    """The preset of a scene, or defaults for any other one, with some fields changed.

    Args:
        name_or_xml: Name of a Sionna RT scene or path of an .xml file.
        changes: Fields of BuildSpec; None leaves a field as it is.
    """
    given = {field: value for field, value in changes.items() if value is not None}
    return replace(PRESETS.get(name_or_xml, BuildSpec(name_or_xml)), **given)


def build(spec: BuildSpec, out: Path, command: str = "", progress: bool = False) -> dict:
    """Build an asset and write NAME.npz and NAME.json.

    Args:
        spec: What to build.
        out: Folder to write to.
        command: Command line, for the manifest.
        progress: Whether to show a progress bar of the ray-tracing passes on stderr.

    Returns:
        The manifest.

    Raises:
        SceneError: A value that cannot be used, no usable ray tracer, an unknown scene, or too little street.
    """
    _check(spec)
    scene = raytrace.open_scene(spec.source, spec.carrier_hz, spec.bandwidth_hz)
    lower, shape = _grid(spec, scene)
    centres = _lay(lower + 0.5 * spec.cell_size_m, shape, spec.cell_size_m)
    ground = np.dstack([centres, raytrace.ground_height_m(scene, centres[..., 0], centres[..., 1])])
    surface_m = raytrace.surface_height_m(scene, centres[..., 0], centres[..., 1])
    outdoors = routes.largest_component(np.abs(surface_m - ground[..., 2]) <= STREET_TOLERANCE_M)
    lattice = sites.hexagonal_lattice(lower, lower + spec.cell_size_m * np.array(shape[::-1]), spec.inter_site_m)
    gnb = sites.place(scene, ground[outdoors], lattice, spec.inter_site_m, spec.mast_m, spec.ue_m)

    raytrace.place_transmitters(scene, gnb)
    halves = _trace(spec, scene, lower, shape, progress)
    links = _links(spec, scene, sites.raised(np.nan_to_num(ground), spec.ue_m), gnb, outdoors)
    gain_db = maps.complete_db(halves.mean(axis=0), links)
    covered = gain_db.max(axis=0) >= spec.floor_db
    street = routes.largest_component(outdoors & covered)
    if street.sum() < 2:
        raise SceneError(f"{spec.source}: {int(street.sum())} street cells in the window, 2 are needed: move --window")
    destinations = routes.spread_destinations(street, spec.destinations)
    built = Scene(
        name=Path(spec.source).stem,
        origin_m=(float(centres[0, 0, 0]), float(centres[0, 0, 1])),
        cell_size_m=spec.cell_size_m,
        path_gain_db=maps.continued_into_walls(gain_db, street),
        street=street,
        gnb_xyz_m=gnb,
        destinations=destinations,
        next_direction=routes.next_directions(street, destinations),
        manifest={},
    )
    facts = {"outdoor_cells_below_floor": int((outdoors & ~covered).sum())} | maps.measure(halves, links, street)
    manifest = _manifest(spec, built, ground[street][:, 2], command) | facts
    return assets.write(out / f"{built.name}.npz", built.to_arrays(), manifest)


def _check(spec: BuildSpec) -> None:
    at_least: dict[str, float] = {
        "inter_site_m": 1, "mast_m": 1, "cell_size_m": 0.5, "ue_m": 0.5, "carrier_hz": 1e8, "max_depth": 0,
        "samples_per_pass": 1000, "passes": 2, "destinations": 1, "seed": 0,
    }  # fmt: skip
    for field, limit in at_least.items():
        if not getattr(spec, field) >= limit:
            raise SceneError(f"{field}={getattr(spec, field)} is below {limit:g}: give {limit:g} or more")
    if spec.passes % 2:
        raise SceneError(f"passes={spec.passes} is odd: give an even number, the two halves measure the noise")
    if spec.window_m is not None and not (
        spec.window_m[0] < spec.window_m[2] and spec.window_m[1] < spec.window_m[3]
    ):
        raise SceneError(f"window {spec.window_m} is empty: give x_min y_min x_max y_max in metres")


def _grid(spec: BuildSpec, scene: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """Lower corner [2] in metres, and rows and columns, of whole cells inside the window and the scene."""
    scene_lower, scene_upper = (corner[:2] for corner in raytrace.bounds_m(scene))
    if spec.window_m is None:
        centre = (scene_lower + scene_upper) / 2.0
        window_lower, window_upper = centre - 450.0, centre + 450.0
    else:
        window_lower, window_upper = np.array(spec.window_m[:2]), np.array(spec.window_m[2:])
    lower, upper = np.maximum(scene_lower, window_lower), np.minimum(scene_upper, window_upper)
    columns, rows = (int(extent) for extent in np.floor((upper - lower) / spec.cell_size_m + 1e-9))
    if rows < 2 or columns < 2:
        raise SceneError(
            f"{spec.source}: window {spec.window_m} leaves {max(rows, 0)} x {max(columns, 0)} cells of a scene that "
            f"spans x {scene_lower[0]:.0f}..{scene_upper[0]:.0f}, y {scene_lower[1]:.0f}..{scene_upper[1]:.0f} m: "
            "give a --window inside it"
        )
    return lower, (rows, columns)


def _lay(first_m: np.ndarray, shape: tuple[int, int], pitch_m: float) -> np.ndarray:
    """x, y of a grid of points that starts at `first_m`, float64 [H, W, 2]."""
    x, y = (first_m[axis] + pitch_m * np.arange(shape[1 - axis]) for axis in (0, 1))
    return np.stack(np.meshgrid(x, y), axis=-1)


def _trace(
    spec: BuildSpec, scene: Any, lower: np.ndarray, shape: tuple[int, int], progress: bool
) -> np.ndarray:
    """Linear path gain of two independent halves of the passes, float64 [2, C, H, W]."""
    from tqdm import tqdm

    corners = _lay(lower, (shape[0] + 1, shape[1] + 1), spec.cell_size_m)
    ground_m = raytrace.ground_height_m(scene, corners[..., 0], corners[..., 1])
    # A corner on the rim of the ground object may miss it by rounding.
    ground_m = np.where(np.isfinite(ground_m), ground_m, np.nanmedian(ground_m))
    flat = float(np.ptp(ground_m)) <= FLAT_M
    halves: list[Any] = [0.0, 0.0]
    for index in tqdm(range(spec.passes), desc=f"ray tracing {Path(spec.source).stem}", disable=not progress):
        solver = {
            "samples_per_tx": samples_of_pass(spec, index), "max_depth": spec.max_depth, "seed": spec.seed + index
        }  # fmt: skip
        if flat:
            height = float(np.median(ground_m)) + spec.ue_m
            gain = raytrace.plane_path_gain(scene, lower, shape, height, spec.cell_size_m, **solver)
        else:
            gain = raytrace.terrain_path_gain(scene, lower, ground_m + spec.ue_m, spec.cell_size_m, **solver)
        halves[index % 2] = halves[index % 2] + gain / (spec.passes // 2)
    return np.stack(halves)


def _links(
    spec: BuildSpec, scene: Any, ue_xyz_m: np.ndarray, gnb_xyz_m: np.ndarray, outdoors: np.ndarray
) -> maps.LinkGeometry:
    shape = outdoors.shape
    distance = np.linalg.norm(ue_xyz_m[None] - gnb_xyz_m[:, None, None], axis=-1)
    ue = ue_xyz_m.reshape(-1, 3)
    sight = [raytrace.line_of_sight(scene, np.broadcast_to(gnb, ue.shape), ue).reshape(shape) for gnb in gnb_xyz_m]
    shadow = background.shadowing_db(len(gnb_xyz_m), shape, spec.cell_size_m, np.random.default_rng(spec.seed))
    behind = 10.0 ** ((background.umi_nlos_gain_db(distance, spec.carrier_hz, spec.ue_m) + shadow) / 10.0)
    return maps.LinkGeometry(distance, np.array(sight), outdoors, behind, spec.carrier_hz, spec.cell_size_m)


def samples_of_pass(spec: BuildSpec, index: int) -> int:
    """Rays per gNB in pass `index`.

    Sionna sends rays along a Fibonacci lattice that depends on their number alone; another number per pass gives
    other directions, where another seed alone would trace the same first legs again.
    """
    return spec.samples_per_pass - (index % 100) * (spec.samples_per_pass // 1009)


def _manifest(spec: BuildSpec, built: Scene, ground_m: np.ndarray, command: str) -> dict:
    from importlib.metadata import version

    gnbs, rows, columns = built.path_gain_db.shape
    street_height = [round(float(height), 4) for height in (ground_m.min(), ground_m.max())]
    facts: dict[str, Any] = {
        "name": built.name,
        "kind": "scene",
        "command": command,
        "sionna_rt": version("sionna-rt"),
        "mitsuba": version("mitsuba"),
        "drjit": version("drjit"),
        "llvm": raytrace.llvm_version(),
    }
    if spec.source in raytrace.CREDIT_OSM:
        facts["attribution"] = (
            "computed from a Sionna RT scene derived from OpenStreetMap, (c) OpenStreetMap contributors, ODbL"
        )
    return facts | {
        "spec": asdict(spec) | {"source": Path(spec.source).name},
        "solver": "RadioMapSolver: los, specular_reflection, refraction; no diffraction, no diffuse_reflection; "
        "isotropic vertically polarised antennas; powers averaged over passes, pass i with seed + i",
        "rays_per_gnb": sum(samples_of_pass(spec, index) for index in range(spec.passes)),
        "grid": {"gnbs": gnbs, "rows": rows, "columns": columns, "street_height_m": street_height},
        "gnb_xyz_m": [[round(float(axis), 4) for axis in position] for position in built.gnb_xyz_m],
        "site_rule": "hexagonal lattice; each point moved by at most "
        f"{sites.SNAP_SHARE:g} inter-site distances to the street cell with most street in sight, "
        f"at least {sites.MIN_SPACING:g} inter-site distances from the sites before it",
        "background": "power of a TR 38.901 UMi street-canyon NLoS link is added to every link: median path loss, "
        f"log-normal shadowing of {background.SHADOW_SIGMA_DB:g} dB that decorrelates over "
        f"{background.SHADOW_CORRELATION_M:g} m, drawn per gNB from numpy default_rng(seed)",
        "local_mean": f"links out of sight average the traced power of the outdoor cells out of sight within "
        f"{maps.LOCAL_MEAN_M:g} m",
        "ceiling": f"free space plus {maps.FREE_SPACE_MARGIN_DB:g} dB",
        "off_street": "cells off the street repeat their nearest street cell",
        "resolution_db": 1.0 / STORED_PER_DB,
    }

