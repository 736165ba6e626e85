"""Figure and page of the pruning table: `docs/pruning.png` and `docs/pruning.md`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_TEXT = ("situation", "budget", "scorer", "precision")
_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#7F7F7F")
_DRAWN = ("oracle", "window", "window@head", "window-raw", "attention-sum", "key-norm", "streaming", "random")


def read_csv(path: Path) -> list[Row]:
    """The rows of `pruning.csv`, numbers as numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: v if k in _TEXT else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def find(rows: Sequence[Row], situation: str, scorer: str, keep: float) -> Row:
    """The row of a kept fraction at 16 bits."""
    wanted = (situation, "", scorer, keep)
    (row,) = (r for r in rows if (r["situation"], r["budget"], r["scorer"], r["keep"]) == wanted)
    return row


def equal(rows: Sequence[Row], situation: str, budget: str, scorer: str, precision: str) -> Row:
    """The row of a precision at a budget in bytes."""
    wanted = (situation, budget, scorer, precision)
    (row,) = (r for r in rows if tuple(r[name] for name in _TEXT) == wanted)
    return row


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw hot and cold recall against the kept fraction, one column per situation, with 95 % intervals.

    Args:
        rows: The table.
        path: A PNG file, replaced if it exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    situations = list(dict.fromkeys(row["situation"] for row in rows))
    canvas = FigureCanvasAgg(Figure(figsize=(3.1 * len(situations), 5.6), dpi=110, layout="constrained"))
    panels = canvas.figure.subplots(2, len(situations), sharex=True, sharey=True, squeeze=False)
    for j, situation in enumerate(situations):
        for panel, kind in zip(panels[:, j], ("hot", "cold"), strict=True):
            for scorer, colour in zip(_DRAWN, _COLOURS, strict=True):
                line = [r for r in rows if (r["situation"], r["budget"], r["scorer"]) == (situation, "", scorer)]
                keeps, value = [r["keep"] for r in line], [r[kind] for r in line]
                panel.plot(keeps, value, color=colour, marker="o", ms=3, lw=1.1, label=scorer)
                ends = ([r[f"{kind}_low"] for r in line], [r[f"{kind}_high"] for r in line])
                panel.fill_between(keeps, *ends, color=colour, alpha=0.08, lw=0)
            panel.set_xscale("log")
            panel.set_xticks(keeps, [f"{keep:g}" for keep in keeps])
            panel.minorticks_off()
            panel.grid(alpha=0.25, lw=0.4)
        panels[0, j].set_title(situation, fontsize=10)
        panels[1, j].set_xlabel("kept fraction of the tokens")
    panels[0, 0].set_ylabel("right answers about hot facts")
    panels[1, 0].set_ylabel("right answers about cold facts")
    panels[0, -1].legend(fontsize=7, framealpha=0.9)
    canvas.print_figure(str(path), metadata={"Software": None})
