"""Every colour of the project's pictures, red, green and blue in 0..255."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
BLUE, VERMILLION, GREEN, PURPLE = (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)
ORANGE, SKY, YELLOW, BLACK = (230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 0, 0)
GREY = (127, 127, 127)

# The dark map: what is off the street, the panel, lines in it, and text that matters more or less.
GROUND, PANEL, LINE = (13, 17, 23), (22, 27, 34), (48, 56, 66)
TEXT, FAINT = (236, 240, 244), (150, 160, 170)
ALL = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, YELLOW, BLACK, GREY, GROUND, PANEL, LINE, TEXT, FAINT)


def hexadecimal(colour: Colour) -> str:
    """The colour as matplotlib and HTML write it, e.g. #0072B2."""
    return "#{:02X}{:02X}{:02X}".format(*colour)


def blend(colour: Colour, ground: Colour, share: float) -> Colour:
    """`share` of `colour` on `ground`, share in [0, 1]."""
    red, green, blue = (round(share * a + (1.0 - share) * b) for a, b in zip(colour, ground, strict=True))
    return red, green, blue
