"""The map under everything: streets in the colour of their best server, brighter where its signal is stronger."""

from __future__ import annotations

from typing import Any

import numpy as np

from .colours import BLUE, GREEN, GROUND, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, Colour

_CELL_COLOURS = (BLUE, GREEN, PURPLE, ORANGE, SKY, VERMILLION, YELLOW)
# Shares of the cell's colour on the ground: at the weakest and at the strongest signal drawn.
_DIM, _BRIGHT = 0.17, 0.38
_WEAK_DB, _STRONG_DB = -115.0, -70.0
# The map is enlarged this many times, then averaged to the size of the picture, so that its edges are smooth.
_FINER = 8


def cell_colours(best: np.ndarray, street: np.ndarray, cells: int) -> list[Colour]:
    """A colour for each cell, such that cells with a long common border differ where seven colours allow it.

    Args:
        best: strongest cell at each place, int [H, W].
        street: where users may be, bool [H, W].
        cells: how many cells there are.
    """
    border = np.zeros((cells, cells), np.int64)
    for near, far, on in ((best[:, 1:], best[:, :-1], street[:, 1:] & street[:, :-1]),
                          (best[1:], best[:-1], street[1:] & street[:-1])):
        np.add.at(border, (near[on], far[on]), 1)
        np.add.at(border, (far[on], near[on]), 1)
    np.fill_diagonal(border, 0)
    chosen: list[int] = []
    for cell in range(cells):
        clash = [(sum(border[cell, other] for other in range(cell) if chosen[other] == k), chosen.count(k), k)
                 for k in range(len(_CELL_COLOURS))]
        chosen.append(min(clash)[2])
    return [_CELL_COLOURS[k] for k in chosen]


def ground(pygame: Any, scene: Any, size: tuple[int, int]) -> Any:
    """A surface of `size` pixels with the streets of `scene`; north is up."""
    best = scene.path_gain_db.argmax(axis=0)
    strong = np.clip((scene.path_gain_db.max(axis=0) - _WEAK_DB) / (_STRONG_DB - _WEAK_DB), 0.0, 1.0)
    share = np.where(scene.street, _DIM + (_BRIGHT - _DIM) * strong, 0.0)[..., None]
    colours = np.array(cell_colours(best, scene.street, len(scene.path_gain_db)))
    picture = share * colours[best] + (1.0 - share) * np.array(GROUND)
    # Row is y upwards in a scene, pixels count downwards; surfarray wants [x, y].
    fine = np.rint(picture[::-1]).astype(np.uint8).swapaxes(0, 1).repeat(_FINER, axis=0).repeat(_FINER, axis=1)
    return pygame.transform.smoothscale(pygame.surfarray.make_surface(fine), size)
