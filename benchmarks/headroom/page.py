"""The page about headroom, for readers who know neither the world nor the search; and the table of all rows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ...agents.arguments import parsed
from ...agents.handover.constant import ConstantPlan
from ...envs.base.meter import ratio
from ...evaluation.estimates import Ratio
from .jobs import CONSTANT, HINDSIGHT, NAMED, PREDICTED
from .store import Source
from .verdicts import PAPERS, Gate, Scenario, easy, judge, matters, single

INTRODUCTION = """# Headroom

How much better could a policy be than those that there are? This page compares everybody with *hindsight*.

* **Cost** is the price of everything that a policy caused in an episode, per user, in seconds of a waiting user
  ([prices](prices.md)). A part is **unavoidable**: the radio itself interrupts at every handover. All numbers
  here are of the rest, the **avoidable cost**. Harm to answers is taken from the measured table.
* **Hindsight** knows the whole episode beforehand: when each user changes cell, who will be asking, how fast each link
  is. It looks for the cheapest **plan book**: one line for every handover of the episode, which says when the
  preparation begins, what is sent (token ids, the KV cache, or a split), how much of it, how precisely, with which
  share of the link, and what follows later. The search changes lines as long as replaying the episode shows that this
  is cheaper. It may miss the best book, so that true hindsight is cheaper still and the ratios below are, if anything,
  too small.
* A **constant plan** says the same for every handover of every user. The best of {constants} is picked after the
  fact on the very same episodes, which favours the constant plans.
* A **named policy** is one of those in [policies](policies.md). It decides with what a network knows at that moment.
  The best of {named} is picked in the same way.
* The **perfect predictor** is our planner, told when each handover will come. It still plans every user alone.
"""


def page(scenarios: Sequence[Scenario], gate: Gate, sources: Sequence[Source]) -> str:
    """The Markdown page: the gate, the rivals, the levers, the named policies, and how it was made."""
    if not scenarios:
        return "# Headroom\n\nNo scenario has been searched and played yet.\n"
    names = {kind: max(len(one.avoidable[kind]) for one in scenarios) for kind in (CONSTANT, NAMED)}
    parts = [
        INTRODUCTION.format(constants=names[CONSTANT], named=names[NAMED]),
        _verdict(scenarios, gate), _rivals(scenarios, gate), _everywhere(scenarios), _levers(scenarios, gate),
        _papers(scenarios), _named(scenarios), _made(scenarios, sources),
    ]
    return "\n".join(part for part in parts if part)


def _verdict(scenarios: Sequence[Scenario], gate: Gate) -> str:
    found = [(what, "yes" if holds else "**no**", text) for what, holds, text in judge(scenarios, gate)]
    return "## Is there enough to gain?\n\n" + markdown(("what this suite asks of itself", "met", "found"), found)


def _rivals(scenarios: Sequence[Scenario], gate: Gate) -> str:
    rows = []
    for one in scenarios:
        constant, named = one.best(CONSTANT), one.best(NAMED)
        rows.append((one.name, f"{one.hindsight.mean():.3f}", f"`{brief(constant)}`",
                     shown(one.over_hindsight(CONSTANT, constant)), f"`{named}`",
                     shown(one.over_hindsight(NAMED, named)),
                     shown(one.over_hindsight(PREDICTED, "foresight")) if PREDICTED in one.avoidable else "-"))
    text = ("## Who comes how near\n\nAvoidable cost of hindsight, and how many times that the others pay, with 95 % "
            "intervals over the episodes.\n\n" + markdown(
                ("scenario", "hindsight", "best constant plan", "times", "best named policy", "times",
                 "perfect predictor, times"), rows, "l r l r l r r"))
    light = [one.name for one in scenarios if easy(one, gate)]
    if light:
        text += f"\nLess is to be gained than asked in: {', '.join(light)}."
        text += " `calm` is there to be easy.\n" if "calm" in light else "\n"
    return text + "\n![Avoidable cost of hindsight and of the others in every scenario](headroom.png)\n"


def _everywhere(scenarios: Sequence[Scenario]) -> str:
    found, rows = single(scenarios), []
    for one in scenarios:
        winner, mine = one.best(CONSTANT), one.avoidable[CONSTANT][found.name]
        paid = one.avoidable[CONSTANT][winner]
        rows.append((one.name, f"`{brief(winner)}`", f"{paid.mean():.3f}", f"{mine.mean():.3f}",
                     f"{ratio(float(mine.mean()), float(paid.mean())) - 1.0:+.0%}"))
    unseen = "" if math.isnan(found.unseen) else (
        f" Picked on every second episode and judged on the others, it is {found.unseen:.0%}.")
    return (f"## One constant plan for all scenarios\n\nThe best single one is `{brief(found.name)}`. It costs "
            f"{found.more:.0%} more than the winner of each scenario, on average over the scenarios.{unseen}\n\n"
            + markdown(("scenario", "winner", "its avoidable cost", "the single plan's", "more"), rows, "l l r r r"))


def _levers(scenarios: Sequence[Scenario], gate: Gate) -> str:
    levers = list(scenarios[0].levers())
    if not levers:
        return ""
    rows = []
    for one in scenarios:
        found = one.levers()
        rows.append((one.name, *(f"{shown(found[lever][1])}{f' ({at})' if (at := found[lever][0]) else ''}"
                                 if lever in found else "-" for lever in levers)))
    idle = [lever for lever, where in matters(scenarios, gate).items() if len(where) < gate.lever_scenarios]
    verdict = ("Every lever matters." if not idle else
               f"Does not matter enough to be asked for: {', '.join(idle)}. A policy that ignores what stands there "
               "loses little in these scenarios.")
    return ("## Which decisions matter\n\nHindsight once more, without one of its levers. The table says "
            "how many times hindsight with all of them it then costs.\n\n"
            "* *No lead time* prepares nothing before the handover.\n"
            "* *One medium* and *one precision* use the same for all handovers of the scenario; the best one is "
            "named.\n"
            "* *Keep all* sends whole caches.\n"
            "* *Equal shares* gives no transfer more of a link than others.\n"
            "* *No backfill* never sends the rest of a cache later.\n\n"
            "These searches begin from the book that hindsight found and are shorter. So a ratio near 1 is a little "
            f"too high.\n\n{verdict}\n\n"
            + markdown(("scenario", *levers), rows, "l" + " r" * len(levers)))


def _papers(scenarios: Sequence[Scenario]) -> str:
    rows = []
    for one in scenarios:
        best = {paper: one.paper(paper) for paper in PAPERS}
        rows.append((one.name, *(f"{shown(one.over_hindsight(NAMED, name))} (`{name}`)" if name else "-"
                                 for name in best.values())))
    return ("## The policies of the papers\n\nTimes hindsight; of each paper the variant that does best in the "
            "scenario.\n\n" + markdown(("scenario", *PAPERS), rows, "l" + " r" * len(PAPERS)))


def _named(scenarios: Sequence[Scenario]) -> str:
    names = dict.fromkeys(name for one in scenarios for name in sorted(one.avoidable[NAMED]))
    players = [(HINDSIGHT, "hindsight"), (PREDICTED, "foresight"), *((NAMED, name) for name in names)]
    rows = []
    for kind, name in players:
        values = [one.avoidable.get(kind, {}).get(name) for one in scenarios]
        rows.append((f"`{name}`", *("-" if v is None else f"{v.mean():.3f}" for v in values)))
    return ("## Every named policy\n\nAvoidable cost; `foresight` is the perfect predictor. Every episode, and every "
            "constant plan, is in [headroom.csv](headroom.csv).\n\n"
            + markdown(("policy", *(one.name for one in scenarios)), rows, "l" + " r" * len(scenarios)))


def _made(scenarios: Sequence[Scenario], sources: Sequence[Source]) -> str:
    rows = []
    for source in sources:
        there = {row["scenario"] for row in source.rows}
        for one in scenarios:
            if one.name in there:
                rows.append((one.name, str(len(one.seeds)), f"{one.unavoidable:.3f}",
                             f"{source.made_by.get('budget', np.nan):g}",
                             f"{source.made_by.get('lever_budget', np.nan):g}"))
    commands = "\n".join(source.command() for source in sources)
    done, left = {one.name for one in scenarios}, dict.fromkeys(
        row["scenario"] for source in sources for row in source.rows)
    missing = [name for name in left if name not in done]
    players = {one.name: {(kind, name) for kind, found in one.avoidable.items() for name in found} for one in scenarios}
    short = [name for name, here in players.items() if len(here) < max(map(len, players.values()))]
    return ("## How it was made\n\nThe budgets say how many episodes a search may simulate: hindsight's, and each "
            "search without a lever.\n\n"
            + markdown(("scenario", "episodes", "unavoidable cost", "budget", "without a lever"), rows, "l r r r r")
            + f"\n```\n{commands}\n```\n"
            + (f"\nNot complete and left out: {', '.join(missing)}.\n" if missing else "")
            + (f"\nNot everybody has played in: {', '.join(short)}.\n" if short else ""))


def shown(found: Ratio) -> str:
    """`1.83 [1.60, 2.10]`."""
    return f"{found.ratio:.2f}" + ("" if math.isnan(found.low) else f" [{found.low:.2f}, {found.high:.2f}]")


def brief(name: str) -> str:
    """A constant plan in words, such as `split 4 bit, keep 0.1, predicted 5 s`."""
    base, _, text = name.partition(":")
    if base != "constant":
        return name
    types = {field.name: type(field.default) for field in fields(ConstantPlan)}
    return ConstantPlan(**parsed(name, base, text or None, types)).name


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], sides: str = "") -> str:
    """A table; `sides` has l or r for each column, apart by spaces."""
    marks = {"l": "---", "r": "---:"}
    aligned = [marks[side] for side in sides.split()] or ["---"] * len(head)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, aligned, *rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in sorted(rows, key=lambda row: (row["scenario"], row["kind"], row["name"], row["seed"])):
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return out.getvalue()
