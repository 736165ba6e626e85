"""Drawing on a pygame surface: smooth shapes, curves, bars and text that look the same on every machine."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .colours import TEXT, Colour

Point = tuple[float, float] | np.ndarray  # x, y [pixels]

# Small shapes are drawn this many times larger, then averaged: smoother than any of pygame's own edges.
_FINER = 8
# Directions of the corners of each shape from its centre; a disc has none.
_CORNERS = {
    "disc": (),
    "triangle": ((0.0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
    "square": ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)),
    "diamond": ((0.0, -1.4), (1.4, 0.0), (0.0, 1.4), (-1.4, 0.0)),
}


def load_pygame() -> Any:
    """Import pygame.

    Raises:
        gymnasium.error.DependencyNotInstalled: it is not there.
    """
    try:
        import pygame
        import pygame.gfxdraw
    except ImportError as error:
        from gymnasium.error import DependencyNotInstalled

        raise DependencyNotInstalled("drawing needs pygame: run `pip install 'kvroam[render]'`") from error
    return pygame


class Canvas:
    """A surface of `size` pixels with what the pictures need; memoises text and markers."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.pygame = load_pygame()
        self.surface = self.pygame.Surface(size, 0, 32)
        self._texts: dict[tuple, Any] = {}
        self._markers: dict[tuple, Any] = {}
        self._fonts: dict[tuple[int, bool], Any] = {}

    def text(self, words: str, at: Point, size: int = 12, colour: Colour = (255, 255, 255),
             bold: bool = False, align: str = "left") -> int:
        """Write `words` with the vertical middle of the line at `at`; returns the width in pixels."""
        key = (words, size, colour, bold)
        image = self._texts.get(key)
        if image is None:
            if len(self._texts) > 500:
                self._texts.clear()
            image = self._texts[key] = self._font(size, bold).render(words, True, colour)
        width, height = image.get_size()
        x = at[0] - {"left": 0.0, "centre": width / 2, "right": width}[align]
        self.surface.blit(image, (round(x), round(at[1] - height / 2)))
        return width

    def marker(self, shape: str, at: Point, radius: float, colour: Colour, edge: Colour,
               hollow: bool = False, halo: bool = False) -> None:
        """Put a small shape (disc, triangle, square or diamond) on the surface, with a ring around it if `halo`."""
        key = (shape, radius, colour, edge, hollow, halo)
        image = self._markers.get(key)
        if image is None:
            image = self._markers[key] = self._make_marker(*key)
        width, height = image.get_size()
        self.surface.blit(image, (round(at[0] - width / 2), round(at[1] - height / 2)))

    def curve(self, points: np.ndarray, width: float, colour: Colour) -> None:
        """Draw a smooth line of `width` pixels through `points`, float [N, 2]."""
        if len(points) < 2:
            return
        along = np.gradient(points, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        outline = np.concatenate([points + across * width / 2, (points - across * width / 2)[::-1]])
        corners = np.rint(outline).astype(int).tolist()
        # gfxdraw fills ten times as slowly; its smooth outline hides the hard edge of the other.
        if width >= 2.0:
            self.pygame.draw.polygon(self.surface, colour, corners)
        self.pygame.gfxdraw.aapolygon(self.surface, corners, colour)

    def dots(self, points: np.ndarray, radius: float, colour: Colour, edge: Colour) -> None:
        """Put a disc on each of `points`, float [N, 2]."""
        for x, y in points:
            self.marker("disc", (x, y), radius, colour, edge)

    def line(self, start: Point, end: Point, colour: Colour) -> None:
        """Draw a thin smooth line."""
        self.pygame.draw.aaline(self.surface, colour, tuple(start), tuple(end))

    def box(self, left: float, top: float, width: float, height: float, colour: Colour, corner: int = 0) -> None:
        """Fill a rectangle, its corners rounded by `corner` pixels."""
        rectangle = (round(left), round(top), round(width), round(height))
        self.pygame.draw.rect(self.surface, colour, rectangle, border_radius=corner)

    def pixels(self) -> np.ndarray:
        """A copy of the picture, uint8 [height, width, 3]."""
        width, height = self.surface.get_size()
        # Six times as fast as to copy what pygame.surfarray gives, which is [x, y, 3].
        data = self.pygame.image.tobytes(self.surface, "RGB")
        return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()

    @cached_property
    def _font_files(self) -> tuple[Path, Path]:
        # The fonts of a machine differ; matplotlib is a dependency and brings these two with it.
        import matplotlib

        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        return folder / "DejaVuSans.ttf", folder / "DejaVuSans-Bold.ttf"

    def _font(self, size: int, bold: bool) -> Any:
        if (size, bold) not in self._fonts:
            self.pygame.font.init()
            self._fonts[size, bold] = self.pygame.font.Font(str(self._font_files[bold]), size)
        return self._fonts[size, bold]

    def _make_marker(self, shape: str, radius: float, colour: Colour, edge: Colour, hollow: bool, halo: bool) -> Any:
        draw, outer = self.pygame.draw, radius + 1.2
        # Twice the outermost thing drawn, and odd, so that the middle is a pixel.
        half = round(1.5 * outer + 1 + (radius if halo else 0))
        large = self.pygame.Surface([(2 * half + 1) * _FINER] * 2, self.pygame.SRCALPHA, 32)
        middle = (half + 0.5) * _FINER

        def fill(reach: float, paint: tuple[int, ...]) -> None:
            corners = [(middle + reach * _FINER * x, middle + reach * _FINER * y) for x, y in _CORNERS[shape]]
            if corners:
                draw.polygon(large, paint, corners)
            else:
                draw.circle(large, paint, (middle, middle), reach * _FINER)

        if halo:
            draw.circle(large, (*colour, 90), (middle, middle), (2.2 * radius) * _FINER)
            draw.circle(large, (*TEXT, 255), (middle, middle), (2.2 * radius) * _FINER, round(1.3 * _FINER))
        fill(outer, (*edge, 255))
        fill(radius, (*colour, 255))
        if hollow:
            fill(0.5 * radius, (*edge, 255))
        return self.pygame.transform.smoothscale(large, (2 * half + 1, 2 * half + 1))
