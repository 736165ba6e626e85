"""The colours of the pictures, red, green and blue in 0..255: those of every figure, yellow, and a dark ground."""

from __future__ import annotations

from ...palette import COLOURS

Colour = tuple[int, int, int]


def rgb(written: str) -> Colour:
    """The colour that matplotlib and HTML write as e.g. #0072B2."""
    return int(written[1:3], 16), int(written[3:5], 16), int(written[5:7], 16)


def blend(colour: Colour, ground: Colour, share: float) -> Colour:
    """`share` of `colour` on `ground`, share in [0, 1]."""
    red, green, blue = (round(share * a + (1.0 - share) * b) for a, b in zip(colour, ground, strict=True))
    return red, green, blue


BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY = map(rgb, COLOURS)
# The eighth of Okabe and Ito's, too pale for figures on white.
YELLOW = rgb("#F0E442")
# What is off the street, the panel, lines in it, and text that matters more or less.
GROUND, PANEL, LINE = rgb("#0D1117"), rgb("#161B22"), rgb("#303842")
TEXT, FAINT = rgb("#ECF0F4"), rgb("#96A0AA")
ALL = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, YELLOW, BLACK, GREY, GROUND, PANEL, LINE, TEXT, FAINT)
