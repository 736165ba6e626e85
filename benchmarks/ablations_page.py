"""The page about ablations, and the table of all episodes."""

from __future__ import annotations

import csv
import io
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation.estimates import Ratio, paired_ratio
from .headroom.page import markdown, shown

Rows = Sequence[Mapping[str, Any]]
FULL = "full"

INTRODUCTION = """# Ablations

What does each part of the training bring? The policy of `{config}` is trained again without each of them, with the
same budget of {budget}{seeds}. All of them then play the same {episodes} episodes of each
scenario. These scenarios are in no training.

The numbers are **avoidable cost**: the price of everything that a policy caused, per user and episode, in seconds of a
waiting user, less what the radio itself interrupts. Harm to answers is taken from the measured table. *Times full* is
the cost over that of the full training, with a 95 % interval over pairs of episodes; above 1, the part that is missing
is worth having. {luck}
"""


def compare(rows: Rows, name: str, beside: str, scenario: str | None = None, seed: int | None = None) -> Ratio:
    """What a variant costs over what another one does, from pairs of the same training seed and episode.

    A rival is not trained: it is paired with every training seed.
    """
    def costs(of: str) -> dict[tuple[Any, ...], float]:
        return {(row["train_seed"], row["scenario"], row["seed"]): row["avoidable_cost"] for row in rows
                if row["variant"] == of and scenario in (None, row["scenario"])}

    mine, theirs = costs(name), costs(beside)
    trained = {key[0] for key in mine} == {key[0] for key in theirs}
    keys = [key for key in theirs if ((key if trained else (0, *key[1:])) in mine) and seed in (None, key[0])]
    return paired_ratio([mine[key if trained else (0, *key[1:])] for key in keys], [theirs[key] for key in keys],
                        strata=[key[1] for key in keys])


def page(rows: Rows, variants: Mapping[str, Any], budget: str, command: str, args: Namespace) -> str:
    """The Markdown page.

    Args:
        rows: of ablations.rows.
        variants: ablations.Variant by name, those that were trained.
        budget: of each training, in words.
        command: that made the rows.
        args: of the command line.
    """
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    several = len(args.train_seeds) > 1
    seeds = f", with training seeds {', '.join(map(str, args.train_seeds))}" if several else ""
    luck = ("Where trainings of several seeds disagree, the last column shows between which ratios." if several else
            "Each variant was trained once, so the interval does not hold the luck of a training: ratios within a few "
            "percent of 1 say nothing.")
    rivals = [name for name in dict.fromkeys(row["variant"] for row in rows) if name not in variants]
    last = ("by seed",) if several else ()
    head = ("training", "what is missing", "avoidable cost", "times full", *scenarios, *last)
    lines, found = [], {}
    for name in [*variants, *rivals]:
        found[name] = compare(rows, name, FULL)
        says = variants[name].says if name in variants else "Not trained: a policy of [policies](policies.md)."
        each = [found[name] if name == FULL else compare(rows, name, FULL, scenario) for scenario in scenarios]
        lines.append((f"`{name}`" if name in rivals else name, says, f"{_mean(rows, name):.3f}", shown(found[name]),
                      *(shown(one) if name != FULL else "1" for one in each),
                      *((_spread(rows, name, args.train_seeds),) if several else ())))
    parts = [INTRODUCTION.format(config=args.config, budget=budget, episodes=args.episodes, seeds=seeds, luck=luck),
             "## What it means\n\n" + "".join(f"* {line}\n" for line in reading(rows, variants, rivals)),
             "## The numbers\n\n" + markdown(head, lines, "l l r r" + " r" * len(scenarios) + (" r" if several else ""))
             + "\nEvery episode is in [ablations.csv](ablations.csv).\n",
             f"## How it was made\n\n```\n{command}\n```\n"]
    return "\n".join(parts)


def reading(rows: Rows, variants: Mapping[str, Any], rivals: Sequence[str]) -> list[str]:
    """What the ratios say, in plain sentences, the largest first."""
    lines: list[tuple[float, str]] = []
    for name, variant in variants.items():
        if name == FULL:
            continue
        ratio = compare(rows, name, variant.beside)
        over = "than the full training" if variant.beside == FULL else f"than *{variant.beside}*"
        where = f"{shown(ratio)} times"
        if math.isnan(ratio.low):
            text = f"**{name}**: {where}; too few episodes for an interval."
        elif ratio.low > 1.0:
            text = f"**{name}** costs {ratio.ratio - 1.0:.0%} more {over} ({where}): it matters."
        elif ratio.high < 1.0:
            text = (f"**{name}** costs {1.0 - ratio.ratio:.0%} less {over} ({where}): with this "
                    "budget the part does harm.")
        else:
            text = f"**{name}**: no difference that these episodes can show ({where})."
        lines.append((ratio.ratio, text))
    lines.sort(key=lambda pair: -pair[0] if not math.isnan(pair[0]) else math.inf)
    told = [text for _, text in lines]
    for name in rivals:
        ratio = compare(rows, name, FULL)
        verdict = ("dearer than" if ratio.low > 1.0 else "cheaper than" if ratio.high < 1.0
                   else "not to be told apart from")
        told.append(f"`{name}`, which is not trained, is {verdict} the full training ({shown(ratio)} times).")
    return told


def _mean(rows: Rows, name: str) -> float:
    return float(np.mean([row["avoidable_cost"] for row in rows if row["variant"] == name]))


def _spread(rows: Rows, name: str, seeds: Sequence[int]) -> str:
    ratios = [compare(rows, name, FULL, seed=seed).ratio for seed in seeds]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def table(rows: Rows) -> str:
    """All episodes as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return out.getvalue()
