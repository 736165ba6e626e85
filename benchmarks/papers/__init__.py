"""The papers' figures, computed again: `python -m kvroam.benchmarks.papers ctho --out docs/papers`.

One file per paper, each with `run` (the points), `draw` (the figure) and `findings` (what the paper states beside what
comes out here).
"""
