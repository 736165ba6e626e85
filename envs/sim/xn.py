"""Hops between gNBs over Xn: which gNBs are connected directly, and how many links a path between two others takes."""

from __future__ import annotations

import numpy as np

from ...errors import require

# A gNB on the circle of two others is not inside it, also after rounding: the corners of a square are all neighbours.
_ROUNDING = 1e-9


def neighbours(sites_m: np.ndarray) -> np.ndarray:
    """Which gNBs have an Xn link, bool [C, C], symmetric, False on the diagonal.

    Two gNBs are neighbours if no third one lies strictly inside the circle that has them as diameter: the Gabriel
    graph, in which every gNB is connected to every other, and links are short. Gabriel and Sokal, A new statistical
    approach to geographic variation analysis, Systematic Zoology 18 (1969). That Xn links form this graph is ours:
    TS 38.300 says that Xn connects gNBs, and not which.

    Args:
        sites_m: positions of the gNBs, float [C, 2] [m].

    Raises:
        ValueError: positions of another shape, none, or some that are not finite.
    """
    sites_m = np.asarray(sites_m, np.float64)
    require(sites_m.ndim == 2 and sites_m.shape[1] == 2 and len(sites_m) > 0,
            f"sites_m has shape {sites_m.shape}: give x and y of at least one gNB, [C, 2]")
    require(bool(np.isfinite(sites_m).all()), "sites_m holds numbers that are not finite: give positions in metres")
    away = sites_m[:, None] - sites_m[None]  # [k, i]: from gNB i to gNB k
    # By Thales, k lies strictly inside the circle of i and j where the angle that it sees them at is obtuse.
    seen = np.einsum("kid,kjd->kij", away, away)
    length2 = (away ** 2).sum(axis=-1)
    direct: np.ndarray = ~(seen < -_ROUNDING * length2).any(axis=0)
    np.fill_diagonal(direct, False)
    return direct


def hops(sites_m: np.ndarray) -> np.ndarray:
    """Xn links on the shortest path between any two gNBs, int64 [C, C], symmetric: 0 to itself, 1 to a neighbour.

    Cells at the same place are neighbours: 1 hop, not 0, because each cell of the simulated world is a gNB with a
    server and links of its own, and what goes from one to another leaves one and enters the other.

    Args:
        sites_m: positions of the gNBs, float [C, 2] [m]; of a Scene: `scene.gnb_xyz_m[:, :2]`.

    Raises:
        ValueError: see `neighbours`.
    """
    direct = neighbours(sites_m)
    distance = np.where(np.eye(len(direct), dtype=bool), 0, -1)
    reached, length = distance == 0, 0
    while (distance < 0).any():
        length += 1
        reached = reached | (reached @ direct)
        distance[reached & (distance < 0)] = length
    return distance
