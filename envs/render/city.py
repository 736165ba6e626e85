"""The map of a picture: gNBs with their servers' load, users, sessions on their way."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from ..handover.world.state import IDLE, TOKEN
from . import palette
from .canvas import Canvas, Point
from .ground import ground
from .palette import Colour
from .reading import (
    DEGRADED_,
    DETOURED_,
    IDLE_,
    INTERRUPTED_,
    PREPARING_,
    STREAMING_,
    Transfer,
    detours,
    server_loads,
    transfers,
    user_states,
)

STATE_COLOURS: dict[int, Colour] = {
    STREAMING_: palette.SKY, IDLE_: palette.FAINT, PREPARING_: palette.ORANGE, INTERRUPTED_: palette.VERMILLION,
    DETOURED_: palette.PURPLE, DEGRADED_: palette.YELLOW,
}
BAR_COLOURS = (palette.TEXT, palette.ORANGE, palette.GREEN)
# By medium (kvroam.envs.handover.world.state.MEDIA): token, kv, split; a detour moves nothing.
SHAPES = ("triangle", "square", "diamond", "disc")
USER_RADIUS = 4.5
_BAR = (4, 14)
_POINTS = 28
# An arc is this wide without and with all of the nominal backhaul capacity [pixels].
_NARROW, _WIDE = 2.0, 9.0


def badge_size(loads: int) -> tuple[int, int]:
    """Width and height of a badge with that many bars [pixels]."""
    return 24 + 6 * loads, 20


def badge(canvas: Canvas, at: Point, name: str, loads: list[float]) -> None:
    """Draw a gNB's badge around `at`: its number, and one bar per load, each a share in [0, 1]."""
    width, height = badge_size(len(loads))
    left, top = at[0] - width / 2, at[1] - height / 2
    canvas.box(left - 1, top - 1, width + 2, height + 2, palette.FAINT, 5)
    canvas.box(left, top, width, height, palette.GROUND, 4)
    canvas.text(name, (left + 11, at[1]), 12, palette.TEXT, bold=True, align="centre")
    for k, load in enumerate(loads):
        x, filled = left + 22 + 6 * k, round(_BAR[1] * load)
        canvas.box(x, top + 3, *_BAR, palette.LINE)
        canvas.box(x, top + 3 + _BAR[1] - filled, _BAR[0], filled, BAR_COLOURS[k])


def arc(start: np.ndarray, end: np.ndarray, rank: int = 0) -> np.ndarray:
    """A bent line from start to end, float [_POINTS, 2]; it bends further for a higher rank, to its own left."""
    along = end - start
    length = math.hypot(*along)
    across = np.array([along[1], -along[0]]) / max(length, 1e-9)
    top = (start + end) / 2 + across * (0.22 * length + 14.0 * rank)
    t = np.linspace(0.0, 1.0, _POINTS)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * top + t ** 2 * end


class City:
    """Draws the map of one environment of `core` into a rectangle (left, top, width, height) of a canvas."""

    def __init__(self, canvas: Canvas, core: Any, env: int, area: tuple[int, int, int, int]) -> None:
        self._core, self._env = core, env
        scene = core.sim.scene
        rows, columns = scene.street.shape
        self._scale = min(area[2] / columns, area[3] / rows)
        size = (round(columns * self._scale), round(rows * self._scale))
        self._left, self._top = area[0] + (area[2] - size[0]) // 2, area[1] + (area[3] - size[1]) // 2
        self._scene, self._rows, self._clip = scene, rows, area
        canvas.surface.blit(ground(canvas.pygame, scene, size), (self._left, self._top))
        self._ruler(canvas, area)
        self.gnb_px = self.pixel(np.asarray(scene.gnb_xyz_m)[:, :2])
        self._badges = self._places(badge_size(len(server_loads(core, env))))
        for mast, at in zip(self.gnb_px, self._badges, strict=True):
            canvas.line(mast, at, palette.FAINT)

    def pixel(self, position_m: np.ndarray) -> np.ndarray:
        """Pixels (x, y) of positions [..., 2] [m]."""
        cell = (position_m - np.asarray(self._scene.origin_m)) / self._scene.cell_size_m + 0.5
        return np.stack([self._left + cell[..., 0] * self._scale,
                         self._top + (self._rows - cell[..., 1]) * self._scale], axis=-1)

    def draw(self, canvas: Canvas) -> None:
        """Draw everything that moves."""
        canvas.surface.set_clip(self._clip)
        ue = self._core.sim.state.ue[self._env]
        users = self.pixel(np.stack([ue["x"], ue["y"]], axis=-1))
        for u, cell in enumerate(ue["radio"]):
            canvas.line(users[u], self.gnb_px[cell], palette.LINE)
        for server, radio in detours(self._core, self._env):
            points = arc(self.gnb_px[server], self.gnb_px[radio])
            for k in range(1, _POINTS - 1, 3):
                canvas.curve(points[k:k + 2], 2.0, STATE_COLOURS[DETOURED_])
        moving = transfers(self._core, self._env)
        rank: Counter[tuple[int, int]] = Counter()
        for transfer in moving:
            self._transfer(canvas, transfer, rank[transfer.source, transfer.target])
            rank[transfer.source, transfer.target] += 1
        loads = server_loads(self._core, self._env)
        for cell, (mast, at) in enumerate(zip(self.gnb_px, self._badges, strict=True)):
            canvas.marker("triangle", mast, 4.0, palette.TEXT, palette.BLACK)
            badge(canvas, at, str(cell), [float(share[cell]) for _, share in loads])
        states = user_states(self._core, self._env)
        # The ones that matter are drawn last, above the others.
        for u in sorted(range(len(ue)), key=lambda u: (states[u] in (PREPARING_, INTERRUPTED_), u)):
            shape = SHAPES[ue[u]["medium"]] if ue[u]["phase"] != IDLE else "disc"
            user(canvas, users[u], int(states[u]), shape)
        canvas.surface.set_clip(None)

    def _transfer(self, canvas: Canvas, transfer: Transfer, rank: int) -> None:
        points = arc(self.gnb_px[transfer.source], self.gnb_px[transfer.target], rank)
        colour = STATE_COLOURS[transfer.state]
        if transfer.medium == TOKEN:
            canvas.dots(points[1:-1:2], 1.0, colour, palette.GROUND)
            return
        nominal = float(self._core.sim.params["capacity_bps"][0])
        width = _NARROW + (_WIDE - _NARROW) * min(1.0, math.sqrt(transfer.rate_bps / nominal))
        front = round(transfer.sent * (_POINTS - 1))
        canvas.curve(points, width, palette.blend(colour, palette.GROUND, 0.45))
        canvas.curve(points[:front + 1], width, colour)
        canvas.marker("disc", points[front], 2.5, palette.TEXT, palette.GROUND)

    def _places(self, size: tuple[int, int]) -> list[tuple[float, float]]:
        """Where the badges stand: beside their gNB, clear of each other, over as little street as can be."""
        width, height = size
        near = [(x * (width / 2 + 9), y * (height / 2 + 9)) for x, y in
                ((0, -1), (0, 1), (1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1))]
        left, top, across, down = self._clip
        taken: list[tuple[float, float]] = []
        for mast in self.gnb_px:
            costs = []
            for k, (dx, dy) in enumerate(near):
                x = min(max(float(mast[0]) + dx, left + width / 2 + 2), left + across - width / 2 - 2)
                y = min(max(float(mast[1]) + dy, top + height / 2 + 2), top + down - height / 2 - 2)
                clash = sum(abs(x - a) < width + 4 and abs(y - b) < height + 4 for a, b in taken)
                clash += sum(abs(x - a) < width / 2 + 6 and abs(y - b) < height / 2 + 6 for a, b in self.gnb_px)
                costs.append((clash, self._street_under(x, y, size), k, (x, y)))
            taken.append(min(costs)[3])
        return taken

    def _street_under(self, x: float, y: float, size: tuple[int, int]) -> int:
        """Street cells of the scene under a box around (x, y)."""
        column, row = (x - self._left) / self._scale, self._rows - (y - self._top) / self._scale
        wide, high = size[0] / 2 / self._scale, size[1] / 2 / self._scale
        rows = slice(max(0, round(row - high)), max(0, round(row + high)))
        return int(self._scene.street[rows, max(0, round(column - wide)):max(0, round(column + wide))].sum())

    def _ruler(self, canvas: Canvas, area: tuple[int, int, int, int]) -> None:
        metres = 200.0 if 200.0 / self._scene.cell_size_m * self._scale < 0.4 * area[2] else 20.0
        length = metres / self._scene.cell_size_m * self._scale
        x, y = area[0] + 10, area[1] + area[3] - 10
        canvas.box(x - 4, y - 20, length + 8, 26, palette.GROUND, 3)
        canvas.box(x, y, length, 2, palette.TEXT)
        canvas.text(f"{metres:g} m", (x + length / 2, y - 10), 11, palette.TEXT, align="centre")


def user(canvas: Canvas, at: Point, state: int, shape: str = "disc") -> None:
    """Draw a user whose session is in `state` (index into reading.STATES)."""
    canvas.marker(shape, at, USER_RADIUS, STATE_COLOURS[state], palette.BLACK, hollow=state == IDLE_,
                  halo=state == INTERRUPTED_)
