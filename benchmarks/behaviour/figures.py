"""The figures about behaviour; each can be read without the text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from ...palette import COLOURS, SHAPES
from .numbers import CACHES, LEADS_S, LINKS, Played, grid, joined, leads, right_by_time, urgency, wins
from .watch import URGENCY

LEAST = 5  # of fewer changes of cell nothing is drawn


def figures(played: Mapping[str, Played], names: Mapping[str, str], against: str) -> dict[str, Any]:
    """What draws each figure into a path, by file name.

    Args:
        played: of every policy.
        names: how each is called in a figure.
        against: the policy that the first one is compared with.
    """
    subject = next(iter(played))
    return {"behaviour_lead.png": partial(draw_leads, played, names),
            "behaviour_choices.png": partial(draw_choices, played, names),
            "behaviour_weights.png": partial(draw_weights, played, names),
            "behaviour_wins.png": partial(draw_wins, played[subject], played[against], names[subject],
                                          names[against])}


def draw_leads(played: Mapping[str, Played], names: Mapping[str, str], path: Path) -> None:
    """How long before the change of cell preparations begin, and how often the predicted cell is right."""
    figure, (left, right) = _figure((10.0, 4.2), 2)
    grid_s = np.linspace(0.0, 8.0, 161)
    for i, (name, one) in enumerate(played.items()):
        changes = joined(one, "changes")
        if not len(changes):
            continue
        lead_s = changes["lead_s"][~np.isnan(changes["lead_s"])]
        begun = np.array([(lead_s >= s).sum() for s in grid_s]) / len(changes)
        found = leads(changes)
        middle = f", median {found.quantiles_s[1]:.1f} s" if len(lead_s) else ""
        left.plot(grid_s, 100.0 * begun, color=COLOURS[i % 8], lw=2, label=f"{names[name]}{middle}")
        shares = right_by_time(joined(one, "preparations"))
        x = [k for k, (_, count) in enumerate(shares) if count >= LEAST]
        right.plot(x, [100.0 * shares[k][0] for k in x], color=COLOURS[i % 8], marker=SHAPES[i % len(SHAPES)], lw=1.5)
    left.set(xlabel="before the change of cell [s]", ylabel="changes of cell being prepared by then [%]",
             xlim=(8.0, 0.0), ylim=(0.0, 100.0), title="When does preparation begin?")
    right.set(ylim=(0.0, 100.0), ylabel="predicted cells that were right [%]",
              xlabel="predicted time to the change of cell when it begins [s]", title="Was it the right cell?")
    right.set_xticks(range(len(LEADS_S) - 1), [f"{a:g} to {b:g}" if np.isfinite(b) else f"above {a:g}"
                                               for a, b in pairwise(LEADS_S)], fontsize=7)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path)


def draw_choices(played: Mapping[str, Played], names: Mapping[str, str], path: Path) -> None:
    """What is sent, by the size of the cache and the speed of the link."""
    figure, axes = _figure((4.0 * len(played) + 0.8, 4.4), len(played), sharey=True)
    image = None
    tables = {name: grid(joined(one, "changes")) for name, one in played.items()}
    shares = {name: np.array([[100.0 * cell.sent if cell.count >= LEAST else np.nan for cell in row] for row in cells])
              for name, cells in tables.items()}
    most = float(max((np.nanmax(sent) for sent in shares.values() if not np.isnan(sent).all()), default=1.0))
    for axis, (name, cells) in zip(axes, tables.items(), strict=True):
        sent = shares[name]
        axis.grid(False)
        image = axis.imshow(sent, origin="lower", cmap="Blues", vmin=0.0, vmax=max(most, 1.0), aspect="auto")
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                if cell.count < LEAST:
                    continue
                more = "" if np.isnan(cell.keep) else f"\nkeep {cell.keep:.2f}\n{cell.bits:.0f} bit"
                axis.text(x, y, f"{cell.medium}{more}", ha="center", va="center", fontsize=7,
                          color="white" if sent[y, x] > 0.6 * most else "black")
        axis.set(title=fill(names[name], 28), xlabel="link [Gbit/s]")
        axis.set_xticks(range(len(LINKS)), [text for *_, text in LINKS], fontsize=7)
        axis.set_yticks(range(len(CACHES)), [text for *_, text in CACHES], fontsize=7)
    axes[0].set_ylabel("whole cache at 16 bit [Gbit]")
    if image is not None:
        figure.colorbar(image, ax=list(axes), label="of the whole cache, sent before it resumes [%]")
    figure.suptitle("What is sent: the most frequent medium, mean keep ratio and precision", fontsize=11)
    figure.savefig(path)


def draw_weights(played: Mapping[str, Played], names: Mapping[str, str], path: Path) -> None:
    """Who gets how much of a link that several sessions share."""
    figure, (axis,) = _figure((8.0, 4.0), 1)
    for i, (name, one) in enumerate(played.items()):
        share, senders, _ = urgency(one)
        x = np.flatnonzero(senders >= LEAST)
        axis.plot(x, share[x], color=COLOURS[i % 8], marker=SHAPES[i % len(SHAPES)], lw=1.5, label=names[name])
    axis.axhline(1.0, color="0.6", lw=1, zorder=0)
    axis.set(ylabel="weight over the mean weight on the link", ylim=(0.0, None),
             title="Several sessions are sent from one cell: who is first?",
             xlabel="time to the change of cell of the session's user")
    axis.set_xticks(range(len(URGENCY)), URGENCY)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path)


def draw_wins(mine: Played, theirs: Played, name: str, other: str, path: Path) -> None:
    """Where a policy pays less than another, with intervals."""
    found = [row for row in wins(mine, theirs) if row.changes >= LEAST and not np.isnan(row.times.ratio)]
    figure, (axis,) = _figure((8.0, 1.6 + 0.36 * max(len(found), 1)), 1)
    y = np.arange(len(found))[::-1]
    kinds = list(dict.fromkeys(row.what for row in found))
    for at, row in zip(y, found, strict=True):
        colour, shape = (of[kinds.index(row.what) % len(of)] for of in (COLOURS, SHAPES))
        if not np.isnan(row.times.low):
            axis.plot([row.times.low, row.times.high], [at, at], color=colour, lw=2)
        axis.plot(row.times.ratio, at, shape, color=colour, ms=7)
    axis.axvline(1.0, color="0.6", lw=1, zorder=0)
    axis.set_yticks(y, [f"{row.what}: {row.level} ({row.changes})" for row in found], fontsize=8)
    axis.set(xscale="log", xlabel=f"avoidable cost of {name}, times that of {other}; 95 % intervals",
             title=f"Left of the line, {name} is cheaper (in brackets: changes of cell)")
    axis.title.set_fontsize(10)
    for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        ticks(lambda value, _: f"{value:g}")
    axis.tick_params(axis="x", which="both", labelsize=8)
    figure.savefig(path)


def _figure(size: tuple[float, float], columns: int, **more: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=140)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False, **more)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    return figure, axes
