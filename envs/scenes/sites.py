"""Where the gNBs stand: a hexagonal lattice whose points move to the street cells from which most street is seen."""

from typing import Any

import numpy as np

from ...errors import SceneError
from . import raytrace

# A point moves at most this share of the inter-site distance, and two sites stay at least MIN_SPACING of it apart.
SNAP_SHARE = 0.3
MIN_SPACING = 0.6
# Lattice points nearer to the edge of the window than this share would serve mostly streets that are not there.
EDGE_SHARE = 0.2


def hexagonal_lattice(lower_m: np.ndarray, upper_m: np.ndarray, inter_site_m: float) -> np.ndarray:
    """Points of a hexagonal lattice centred in a rectangle, a margin kept from its edges.

    Args:
        lower_m: x, y of the lower corner, metres.
        upper_m: x, y of the upper corner, metres.
        inter_site_m: Distance of neighbours, metres.

    Returns:
        float64 [N, 2], from south-west to north-east.
    """
    centre = (np.asarray(lower_m) + np.asarray(upper_m)) / 2.0
    reach = int(np.ceil(float(np.max(np.asarray(upper_m) - np.asarray(lower_m))) / inter_site_m)) + 1
    row, column = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    x = centre[0] + inter_site_m * (column + 0.5 * (row % 2))
    y = centre[1] + inter_site_m * np.sqrt(0.75) * row
    points = np.column_stack([x.ravel(), y.ravel()])
    margin = EDGE_SHARE * inter_site_m
    return points[((points >= lower_m + margin) & (points <= upper_m - margin)).all(axis=1)]


def place(
    scene: Any, street_xyz_m: np.ndarray, lattice_m: np.ndarray, inter_site_m: float, mast_m: float, ue_m: float
) -> np.ndarray:
    """Move each lattice point to the street cell nearby that sees most street, as a planner picks squares and corners.

    Args:
        scene: From raytrace.open_scene.
        street_xyz_m: [S, 3], centres of the street cells, on the ground.
        lattice_m: [N, 2].
        inter_site_m: Distance of neighbours in the lattice, metres.
        mast_m: Height of the antennas above ground, metres.
        ue_m: Height of the UEs above ground, metres.

    Returns:
        float64 [C, 3], C <= N: points with no street cell in reach, or none far enough from the sites before, are left
        out.

    Raises:
        SceneError: Fewer than two sites remain.
    """
    chosen: list[np.ndarray] = []
    for point in lattice_m:
        near = _distance_m(street_xyz_m, point) <= SNAP_SHARE * inter_site_m
        for site in chosen:
            near &= _distance_m(street_xyz_m, site) >= MIN_SPACING * inter_site_m
        candidates = street_xyz_m[near]
        if len(candidates):
            seen = [_cells_seen(scene, spot, street_xyz_m, inter_site_m, mast_m, ue_m) for spot in candidates]
            chosen.append(candidates[int(np.argmax(seen))])
    if len(chosen) < 2:
        raise SceneError(
            f"{len(chosen)} gNB sites fit the window at {inter_site_m:g} m inter-site distance, 2 are needed: "
            "give a larger --window or a smaller --inter-site"
        )
    return raised(np.array(chosen), mast_m)


def raised(ground_m: np.ndarray, height_m: float) -> np.ndarray:
    """Points [..., 3] moved up by a height, metres."""
    return ground_m + np.array([0.0, 0.0, height_m])


def _cells_seen(
    scene: Any, spot_m: np.ndarray, street_xyz_m: np.ndarray, radius_m: float, mast_m: float, ue_m: float
) -> int:
    near = street_xyz_m[_distance_m(street_xyz_m, spot_m) <= radius_m]
    mast = np.broadcast_to(raised(spot_m, mast_m), near.shape)
    return int(raytrace.line_of_sight(scene, mast, raised(near, ue_m)).sum())


def _distance_m(points_m: np.ndarray, point_m: np.ndarray) -> np.ndarray:
    """Horizontal distance, [N]."""
    return np.linalg.norm(points_m[:, :2] - point_m[:2], axis=1)
