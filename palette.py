"""Colours and marker shapes of every figure."""

# Okabe and Ito's palette, which readers with any colour vision can tell apart, without its yellow (too pale
# on white); the shapes tell things apart once more, and beyond eight.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
SHAPES = "osD^vPX*<>hp"
