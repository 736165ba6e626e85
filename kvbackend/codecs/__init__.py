"""Bytes of a travelling cache: what goes on the wire at which width, and what is refused there.

`table.py` lists the widths. `payload.py` is the format with its encoder and decoder, `header.py` what a payload says of
itself, `frames.py` its chained chunks, `checksum.py` the passes over raw bytes; `packing.py` names the ways of packing
a layer, `plain.py` and `quantise.py`, which has its loops in `quantise_kernels.py`.
"""
