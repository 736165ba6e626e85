"""From ray-traced powers to the gains of an asset: local means, background, ceiling, and what is known about noise."""

from dataclasses import dataclass

import numpy as np

from . import background

# Rays are summed as powers, so reflections may add to the direct path. Beyond this margin over free space (TR 38.901
# UMi line of sight plus two standard deviations of its shadowing) a value is taken for an artefact and clipped.
FREE_SPACE_MARGIN_DB = 6.0
# Behind corners few rays arrive per cell. Their power is averaged over about the distance at which TR 38.901
# decorrelates shadowing without line of sight (13 m), among cells without line of sight to the same gNB only: the
# edge of the shadow stays as sharp as it was traced.
LOCAL_MEAN_M = 15.0
# A link this far below the best one of its cell can neither serve nor interfere; the noise measure leaves it out.
RELEVANT_DB = 30.0


@dataclass(frozen=True)
class LinkGeometry:
    """What geometry alone says about every link.

    Attributes:
        distance_m: float64 [C, H, W], from the antenna of the gNB to that of the UE.
        sight: bool [C, H, W], whether the path between them is free.
        outdoors: bool [H, W].
        background: float64 [C, H, W], linear gain of the 3GPP link that is added to the traced one.
        carrier_hz: Carrier frequency, Hz.
        cell_size_m: Pitch of the grid, metres.
    """

    distance_m: np.ndarray
    sight: np.ndarray
    outdoors: np.ndarray
    background: np.ndarray
    carrier_hz: float
    cell_size_m: float

    @property
    def ceiling_db(self) -> np.ndarray:
        """Largest gain that is believed, float64 [C, H, W], dB."""
        return background.free_space_gain_db(self.distance_m, self.carrier_hz) + FREE_SPACE_MARGIN_DB


def local_mean(traced: np.ndarray, links: LinkGeometry) -> np.ndarray:
    """Traced power with links out of sight averaged over the outdoor cells around that are out of sight as well.

    Args:
        traced: float64 [C, H, W], linear.
        links: Geometry of the same links.

    Returns:
        float64 [C, H, W], linear.
    """
    from scipy import ndimage

    reach = int(LOCAL_MEAN_M / links.cell_size_m)
    offset = np.arange(-reach, reach + 1)
    disc = (np.hypot(offset[:, None], offset[None, :]) * links.cell_size_m <= LOCAL_MEAN_M).astype(np.float64)
    smooth = traced.copy()
    for gnb, sight in enumerate(links.sight):
        hidden = links.outdoors & ~sight
        power = ndimage.convolve(np.where(hidden, traced[gnb], 0.0), disc, mode="constant")
        cells = ndimage.convolve(hidden.astype(np.float64), disc, mode="constant")
        smooth[gnb][hidden] = power[hidden] / cells[hidden]
    return smooth


def complete_db(traced: np.ndarray, links: LinkGeometry) -> np.ndarray:
    """Gains as shipped: local mean of the traced power, plus the background's power, below the ceiling.

    Adding the background everywhere instead of only where no ray arrived leaves no seam: a link that one stray ray
    reached is never weaker than its neighbours that none reached.

    Args:
        traced: float64 [C, H, W], linear.
        links: Geometry of the same links.

    Returns:
        float64 [C, H, W], dB, finite.
    """
    power = local_mean(traced, links) + links.background
    return np.minimum(10.0 * np.log10(power), links.ceiling_db)


def continued_into_walls(gain_db: np.ndarray, street: np.ndarray) -> np.ndarray:
    """Gains with every cell off the street set to its nearest street cell.

    A UE beside a wall is interpolated between its own cell and cells inside the building; indoor values there would
    make it lose the signal at every wall.

    Args:
        gain_db: [C, H, W], dB.
        street: bool [H, W].

    Returns:
        Same shape and type as `gain_db`.
    """
    from scipy import ndimage

    row, column = ndimage.distance_transform_edt(~street, return_distances=False, return_indices=True)
    return gain_db[:, row, column]


def measure(halves: np.ndarray, links: LinkGeometry, street: np.ndarray) -> dict:
    """What a manifest says about the maps on the street: fill, noise, clipping, and who serves how much.

    Args:
        halves: float64 [2, C, H, W], linear traced gain of two independent halves of the passes.
        links: Geometry of the same links.
        street: bool [H, W].

    Returns:
        JSON-serialisable facts.
    """
    traced = halves.mean(axis=0)
    gain = complete_db(traced, links)[:, street]
    first, second = (complete_db(half, links)[:, street] for half in halves)
    hit = traced[:, street] > 0.0
    filled = local_mean(traced, links)[:, street] < links.background[:, street]
    best = gain.max(axis=0)
    server = gain.argmax(axis=0)
    difference = np.abs(first - second)
    relevant = hit & (gain >= best - RELEVANT_DB)
    serving = difference[server, np.arange(server.size)]
    return {
        "street_cells": int(street.sum()),
        "links_in_sight": _rounded(links.sight[:, street].mean()),
        "cells_in_sight_of_a_gnb": _rounded(links.sight[:, street].any(axis=0).mean()),
        "links_without_any_ray": _rounded(1.0 - hit.mean()),
        "links_where_background_dominates": _rounded(filled.mean()),
        "cells_served_by_background": _rounded(filled[server, np.arange(server.size)].mean()),
        "links_clipped": _rounded((gain >= links.ceiling_db[:, street] - 1e-9).mean()),
        "noise": {
            "definition": "absolute difference in dB between two complete maps, each from its own half of the rays "
            "(same background), over links (gNB, street cell) that a ray reached and whose gain is within "
            f"{RELEVANT_DB:g} dB of the best gain of their cell; two whole builds have twice the rays of a half each, "
            "hence differ by 1/sqrt(2) of that",
            "links": int(relevant.sum()),
            "median_db": _rounded(np.median(difference[relevant])),
            "p95_db": _rounded(np.percentile(difference[relevant], 95)),
            "serving_link_p95_db": _rounded(np.percentile(serving, 95)),
            "two_builds_p95_db": _rounded(np.percentile(difference[relevant], 95) / np.sqrt(2.0)),
        },
        "best_server_share": [_rounded(share) for share in np.bincount(server, minlength=len(gain)) / server.size],
        "gnbs_within_10_db_of_best": _rounded((gain >= best - 10.0).sum(axis=0).mean()),
        "best_gain_db_percentiles_5_50_95": [_rounded(gain_db) for gain_db in np.percentile(best, [5, 50, 95])],
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)
