"""The summary of all papers: what the verdicts mean, and every verdict, read from the papers' CSV files."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path

from ...files import write_whole
from .rows import from_csv

RULES = """
# The papers again

`python -m kvroam.benchmarks.papers --out docs/papers` makes this page and all beside it.

Every row of these pages says what a paper reports, what comes out here, the tolerance, and a verdict:

- **agrees**: the whole 95 % interval of what we measure lies within the tolerance. Tolerances were written down before
  the numbers were made: 10 % of a published number, "over x" at most 10 % above x, both ends of a published range 10 %
  wider, an order at every point.
- **differs**: the interval lies outside. The page gives the likely reason.
- **cannot be checked**: something that decides it is not known to us, or the interval crosses the tolerance's edge.

A number that one of our parameters was fitted to, or that is true by construction, is no evidence. Such rows stand in
a table of their own, outside the verdicts. Intervals are those of `kvroam.evaluation.estimates`: Student's t, longer on
the side of the long tail; of shares of answers, Clopper-Pearson at the effective number of questions, because t knows
no interval where all are right.

| paper | it says | verdict |
| --- | --- | --- |
"""


def summarise(folder: Path, papers: Sequence[str]) -> Path:
    """Write README.md of a folder with the verdicts of the papers whose CSV it holds; its path."""
    lines = []
    for name in papers:
        if (folder / f"{name}.csv").is_file():
            paper = importlib.import_module(f"kvroam.benchmarks.papers.{name.replace('-', '_')}")
            found = paper.findings(from_csv((folder / f"{name}.csv").read_text(encoding="utf-8")))
            lines += [f"| [{name}]({name}.md) | {f.claim} | {f.verdict} |" for f in found]
    target = folder / "README.md"
    text = RULES.lstrip() + "\n".join(lines) + "\n"
    write_whole(target, functools.partial(Path.write_text, data=text, encoding="utf-8"))
    return target
