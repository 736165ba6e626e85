"""The page about behaviour, whose sentences are made from the numbers; and the table of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...envs.handover.world.state import MEDIA
from ...evaluation.estimates import mean
from ..headroom.page import markdown, shown
from .numbers import (
    CACHES,
    LEADS_S,
    LINKS,
    Choice,
    Played,
    choice,
    episodes,
    grid,
    hits,
    joined,
    leads,
    right_by_time,
    urgency,
    wins,
)
from .watch import BEFORE_S, URGENCY

INTRODUCTION = """# Behaviour

What does a trained policy do, and where does that pay? This page watches {subject}, `{against}`{others}, in the same
{episodes} episodes of {count}. `{against}` is what {subject} is compared with.

Costs are **avoidable cost**: the price of everything that a policy caused, per user and episode, in seconds of a
waiting user, less what the radio itself interrupts; harm to answers is taken from the measured table. *Times* is the
cost of {subject} over that of `{against}`, with a 95 % interval over pairs of episodes: below 1,
{subject} is cheaper.
"""


def page(played: Mapping[str, Played], names: Mapping[str, str], against: str, command: str) -> str:
    """The Markdown page.

    Args:
        played: of every policy, the one that it is about first.
        names: how each is called in tables.
        against: the policy that the first one is compared with.
        command: that makes it again.
    """
    subject = next(iter(played))
    scenarios = list(played[subject])
    count = f"{len(scenarios)} scenarios" if len(scenarios) > 1 else f"the scenario {scenarios[0]}"
    others = [f"`{name}`" for policy, name in names.items() if policy not in (subject, against)]
    told = f", and besides them {', '.join(others)}" if others else ""
    parts = [
        INTRODUCTION.format(others=told, against=names[against], subject=f"`{names[subject]}`", count=count,
                            episodes=len(played[subject][scenarios[0]].metrics)),
        _summary(played, names, against), _costs(played, names, against), _preparing(played, names),
        _sent(played, names), _weights(played, names), _rests(played, names), _where(played, names, against),
        f"## How it was made\n\nEvery number is in [behaviour.csv](behaviour.csv).\n\n```\n{command}\n```\n",
    ]
    return "\n".join(parts)


def _summary(played: Mapping[str, Played], names: Mapping[str, str], against: str) -> str:
    """The differences between the policy and the other one, in sentences."""
    subject = next(iter(played))
    me, other = f"`{names[subject]}`", f"`{names[against]}`"
    every = episodes(played[subject], played[against])["all"]
    verdict = ("is cheaper than" if every.high < 1.0 else "costs more than" if every.low > 1.0
               else "cannot be told apart in cost from")
    lines = [f"{me} {verdict} {other}: {shown(every)} times, over all scenarios."]
    mine, theirs = (leads(joined(played[name], "changes")) for name in (subject, against))
    lines.append(f"It prepares for {_share(mine.prepared)} of the changes of cell ({other}: "
                 f"{_share(theirs.prepared)}), in the median {_seconds(mine.quantiles_s[1])} before them "
                 f"({_seconds(theirs.quantiles_s[1])}).")
    mine_hits, their_hits = (hits(joined(played[name], "preparations")) for name in (subject, against))
    lines.append(f"Where it relies on the prediction, the cell is right in {_share(mine_hits.right)} of the cases "
                 f"({_share(their_hits.right)}).")
    mine_sent, their_sent = (choice(joined(played[name], "changes")) for name in (subject, against))
    lines.append(f"Before a session resumes it sends {_share(mine_sent.sent)} of the bits of its cache at 16 bit "
                 f"({_share(their_sent.sent)}), most often by {mine_sent.medium} ({their_sent.medium}).")
    first = [urgency(played[name])[2] for name in (subject, against)]
    if all(pairs.sum() for pairs in first):
        ahead, theirs_ahead = (float(pairs[0] / pairs.sum()) for pairs in first)
        lines.append(f"Of two sessions on one link, the more urgent one has the greater weight in {_share(ahead)} of "
                     f"the cases ({_share(theirs_ahead)}).")
    found = [row for row in wins(played[subject], played[against]) if not math.isnan(row.times.low)]
    for text, clear in (("clearly cheaper", [row for row in found if row.times.high < 1.0]),
                        ("clearly dearer", [row for row in found if row.times.low > 1.0])):
        if clear:
            where = "; ".join(f"{row.what}: {row.level} ({row.times.ratio:.2f})" for row in clear)
            lines.append(f"It is {text} at these changes of cell: {where}.")
    return "## In short\n\n" + "".join(f"* {line}\n" for line in lines)


def _costs(played: Mapping[str, Played], names: Mapping[str, str], against: str) -> str:
    subject = next(iter(played))
    ratios = episodes(played[subject], played[against])
    terms = list(played[subject][next(iter(played[subject]))].parts[0])
    used = [term for term in terms if any(part[term] > 5e-4 for one in played.values() for watched in one.values()
                                          for part in watched.parts)]
    rows = []
    for scenario in played[subject]:
        for name, one in played.items():
            watched = one[scenario]
            rows.append((scenario if name == subject else "", f"`{names[name]}`",
                         f"{mean([m['avoidable_cost'] for m in watched.metrics]):.3f}",
                         shown(ratios[scenario]) if name == subject else "",
                         *(f"{mean([part[term] for part in watched.parts]):.3f}" for term in used)))
    return ("## What is paid, and for what\n\nPrices of the terms of the reward, per user and episode; "
            "*interruption* holds the part that nobody can avoid.\n\n"
            + markdown(("scenario", "policy", "avoidable cost", "times", *used), rows, "l l r r" + " r" * len(used)))


def _preparing(played: Mapping[str, Played], names: Mapping[str, str]) -> str:
    rows, more = [], []
    for name, one in played.items():
        found, made = leads(joined(one, "changes")), hits(joined(one, "preparations"))
        rows.append((f"`{names[name]}`", str(found.changes), _share(found.prepared),
                     *(_seconds(value) for value in found.quantiles_s)))
        more.append((f"`{names[name]}`", str(made.began), _share(made.announced), _share(made.right), _share(made.used),
                     _share(made.wrong), _share(made.dropped), _share(made.over)))
    return ("## When preparation begins\n\nThe *lead time* is what lies between the beginning of the preparation that "
            "was used and the change of cell.\n\n"
            + markdown(("policy", "changes of cell", "prepared", "lead time, 10 %", "median", "90 %"), rows,
                       "l r r r r r")
            + "\nA preparation begins when event A3 has *announced* the change of cell, or relies on the network's "
              "prediction. Of those that rely on it: whether the user next changed to that cell (*right*), and how "
              "they ended.\n\n"
            + markdown(("policy", "preparations", "announced", "right", "used", "wrong cell", "dropped",
                        "link or session over"), more, "l r r r r r r r")
            + "\n![How long before the change of cell preparations begin, and how often the predicted cell is right]"
              "(behaviour_lead.png)\n")


def _sent(played: Mapping[str, Played], names: Mapping[str, str]) -> str:
    rows = []
    for name, one in played.items():
        found = choice(joined(one, "changes"))
        rows.append((f"`{names[name]}`", *map(_share, found.media), _number(found.keep), _number(found.bits, 1),
                     _number(found.prefix), _share(found.sent)))
    return ("## What is sent\n\nKeep ratio and precision are means over what is sent as kv or split; the prefix is the "
            "share that a split rebuilds from token ids; *sent* is what crosses the link before a session resumes, of "
            "the whole cache at 16 bit.\n\n"
            + markdown(("policy", *MEDIA, "keep", "bits", "prefix", "sent"), rows, "l" + " r" * (len(MEDIA) + 4))
            + "\n![Medium, keep ratio and precision by cache size and link speed](behaviour_choices.png)\n")


def _weights(played: Mapping[str, Played], names: Mapping[str, str]) -> str:
    rows = []
    for name, one in played.items():
        share, _, first = urgency(one)
        pairs = [_share(float(count / first.sum())) if first.sum() else "-" for count in first]
        rows.append((f"`{names[name]}`", *map(_number, share), *pairs))
    return ("## Who is served first\n\nWhere several sessions are sent from one cell at a time: weight over the mean "
            "weight there, by the time to the change of cell of the session's user. Then pairs on one link: whether "
            "the more urgent of the two has more, the same, or less weight.\n\n"
            + markdown(("policy", *URGENCY, "more", "same", "less"), rows, "l" + " r" * (len(URGENCY) + 3))
            + "\n![Weights by urgency](behaviour_weights.png)\n")


def _rests(played: Mapping[str, Played], names: Mapping[str, str]) -> str:
    rows = []
    for name, one in played.items():
        moves, cut, followed, arrived = (sum(getattr(watched, what) for watched in one.values())
                                         for what in ("moves", "cut", "followed", "arrived"))
        totals = {what: mean([m[what] for watched in one.values() for m in watched.metrics])
                  for what in ("backhaul_gb", "wasted_gb", "gpu_s")}
        rows.append((f"`{names[name]}`", str(moves), _of(cut, moves), _of(followed, moves), _of(arrived, followed),
                     f"{totals['backhaul_gb']:.2f}", f"{totals['wasted_gb']:.2f}", f"{totals['gpu_s']:.2f}"))
    return ("## What follows, and what is wasted\n\nOf the sessions that moved: those that resumed on a part of their "
            "cache, those whose rest was to follow, and how many of those rests arrived before the next move, the end "
            "of the session or of the episode. Then what an episode sends, and what of it is for migrations that "
            "were cancelled.\n\n"
            + markdown(("policy", "moves", "on a part", "rest follows", "rest arrives", "sent [GB]", "wasted [GB]",
                        "prefill [s]"), rows, "l r r r r r r r"))


def _where(played: Mapping[str, Played], names: Mapping[str, str], against: str) -> str:
    subject = next(iter(played))
    rows = [(row.what, row.level, str(row.changes), f"{row.mine:.3f}", f"{row.theirs:.3f}", shown(row.times))
            for row in wins(played[subject], played[against]) if row.changes]
    return (f"## Where it wins and loses\n\nWhat a user pays from {BEFORE_S:g} s before a change of cell to the next "
            "one's beginning is counted as paid for that change of cell. They are the same whoever plays.\n\n"
            + markdown(("split by", "level", "changes of cell", f"`{names[subject]}`", f"`{names[against]}`", "times"),
                       rows, "l l r r r r")
            + "\n![Cost ratio by the number of others who leave, and by the link](behaviour_wins.png)\n")


def table(played: Mapping[str, Played], against: str) -> str:
    """All numbers as CSV: policy, scenario, what, where, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["policy", "scenario", "what", "where", "value"])
    for row in _numbers(played, against):
        writer.writerow([*row[:-1], f"{row[-1]:.6g}" if isinstance(row[-1], float) else row[-1]])
    return out.getvalue()


def _numbers(played: Mapping[str, Played], against: str) -> Iterator[tuple[Any, ...]]:
    subject = next(iter(played))
    for name, one in played.items():
        for scenario, watched in one.items():
            for k, (metrics, parts) in enumerate(zip(watched.metrics, watched.parts, strict=True)):
                yield name, scenario, "avoidable_cost", f"episode {k}", metrics["avoidable_cost"]
                for term, paid in parts.items():
                    yield name, scenario, f"price of {term}", f"episode {k}", paid
        for scenario, some in [*((scenario, {scenario: watched}) for scenario, watched in one.items()), ("all", one)]:
            yield from ((name, scenario, *row) for row in _of_policy(some))
    for scenario, ratio in episodes(played[subject], played[against]).items():
        for what, value in zip(("times", "low", "high"), ratio[:3], strict=True):
            yield subject, scenario, f"avoidable_cost, {what}", against, float(value)
    for row in wins(played[subject], played[against]):
        for what, value in zip(("times", "low", "high"), row.times[:3], strict=True):
            yield subject, "all", f"cost of changes of cell, {what}", f"{row.what}: {row.level}", float(value)


def _of_policy(played: Played) -> Iterator[tuple[str, str, Any]]:
    changes, preparations = joined(played, "changes"), joined(played, "preparations")
    found, made = leads(changes), hits(preparations)
    yield "changes of cell", "", found.changes
    yield "prepared", "", found.prepared
    for share, value in zip((10, 50, 90), found.quantiles_s, strict=True):
        yield "lead time [s]", f"{share} %", value
    for key, value in made._asdict().items():
        yield "preparations", key, value
    for k, (right, count) in enumerate(right_by_time(preparations)):
        yield "predicted cell right", f"from {LEADS_S[k]:g} s ({count})", right
    yield from _of_choice("choice", "", choice(changes))
    for cache, row in zip(CACHES, grid(changes), strict=True):
        for link, cell in zip(LINKS, row, strict=True):
            if cell.count:
                yield from _of_choice("choice", f"cache {cache[2]} Gbit, link {link[2]} Gbit/s, ", cell)
    weights, senders, first = urgency(played)
    for level, value, count in zip(URGENCY, weights.tolist(), senders.tolist(), strict=True):
        yield "weight over mean weight", f"{level} ({count})", value
    for order, count in zip(("more", "same", "less"), first.tolist(), strict=True):
        yield "pairs: weight of the more urgent", order, count
    for what in ("moves", "cut", "followed", "arrived"):
        yield what, "", sum(getattr(watched, what) for watched in played.values())


def _of_choice(what: str, where: str, found: Choice) -> Iterator[tuple[str, str, Any]]:
    yield what, f"{where}count", found.count
    for medium, share in zip(MEDIA, found.media, strict=True):
        yield what, f"{where}{medium}", share
    for key in ("keep", "bits", "prefix", "sent"):
        yield what, f"{where}{key}", getattr(found, key)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100.0 * value:.0f} %"


def _seconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f} s"


def _number(value: float, digits: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _of(part: int, whole: int) -> str:
    return _share(part / whole) if whole else "-"


