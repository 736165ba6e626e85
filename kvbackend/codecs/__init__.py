"""Bytes of a travelling cache: what goes on the wire at which width, and what is refused there.

`table.py` lists the widths, `payload.py` is the format and its encoder and decoder, `header.py` what a payload says of
itself, `frames.py` its chained chunks, `quantise.py` the narrow widths, `checksum.py` the passes over raw bytes.
"""
