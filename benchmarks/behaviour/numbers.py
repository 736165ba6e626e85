"""What records of episodes amount to: distributions, shares, and where one policy pays more than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...envs.handover.world.state import MEDIA, TOKEN
from ...evaluation.estimates import Ratio, mean, paired_ratio
from .watch import DROPPED, OVER, USED, WRONG, Watch

Played = Mapping[str, Watch]  # of one policy, by scenario

LEADS_S = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, np.inf)
LINKS = ((0.0, 0.5e9, "below 0.5"), (0.5e9, 1e9, "0.5 to 1"), (1e9, 2e9, "1 to 2"), (2e9, 4e9, "2 to 4"),
         (4e9, np.inf, "above 4"))  # [bit/s], shown in Gbit/s
CACHES = ((0.0, 1e9, "below 1"), (1e9, 2e9, "1 to 2"), (2e9, 4e9, "2 to 4"), (4e9, 8e9, "4 to 8"),
          (8e9, np.inf, "above 8"))  # [bit], shown in Gbit
CROWDS = ((0, 1, "nobody else"), (1, 3, "1 or 2 others"), (3, 6, "3 to 5"), (6, np.inf, "6 or more"))


def joined(played: Played, records: str) -> np.ndarray:
    """The records (`changes` or `preparations`) of all scenarios, one after the other."""
    return np.concatenate([getattr(one, records) for one in played.values()])


class Leads(NamedTuple):
    """When preparations begin, of all changes of cell whose users waited for tokens or not."""

    changes: int
    prepared: float  # share of the changes of cell that were prepared for
    quantiles_s: tuple[float, float, float]  # 10, 50 and 90 % of the lead times; NaN where nothing was prepared


def leads(changes: np.ndarray) -> Leads:
    """When the preparations that were used had begun."""
    lead_s = changes["lead_s"][~np.isnan(changes["lead_s"])]
    found = np.quantile(lead_s, (0.1, 0.5, 0.9)).tolist() if len(lead_s) else [np.nan] * 3
    return Leads(len(changes), float(mean(~np.isnan(changes["lead_s"]))), (found[0], found[1], found[2]))


class Hits(NamedTuple):
    """How preparations that were begun before a change of cell turned out."""

    began: int
    announced: float  # share for a change of cell that event A3 had announced already
    used: float  # share of the others, which relied on the prediction
    wrong: float  # their user changed to another cell
    dropped: float
    over: float  # the session, the radio link or the episode ended before
    right: float  # share of the predicted cells that the user did change to next, used or not


def hits(preparations: np.ndarray) -> Hits:
    """What became of preparations; those of sessions that were left behind do not count."""
    ahead = preparations[~preparations["behind"]]
    predicted = ahead[~ahead["announced"]]
    used, wrong, dropped, over = (float(mean(predicted["end"] == end)) for end in (USED, WRONG, DROPPED, OVER))
    known = predicted["right"][~np.isnan(predicted["right"])]
    return Hits(len(ahead), float(mean(ahead["announced"])), used, wrong, dropped, over, float(mean(known)))


def right_by_time(preparations: np.ndarray) -> list[tuple[float, int]]:
    """Of predicted cells: share that was right, and how many, by LEADS_S before the predicted change of cell."""
    chosen = preparations[~preparations["behind"] & ~preparations["announced"] & ~np.isnan(preparations["right"])]
    place = np.digitize(chosen["ahead_s"], LEADS_S) - 1
    return [(float(mean(chosen["right"][place == k])), int((place == k).sum())) for k in range(len(LEADS_S) - 1)]


class Choice(NamedTuple):
    """What was chosen for some changes of cell."""

    count: int  # type: ignore[assignment]  # not tuple.count
    medium: str  # the most frequent one; "" of nothing
    media: tuple[float, ...]  # share of each of MEDIA
    keep: float  # means over those that send a cache, or a part of it
    bits: float
    prefix: float  # mean over the splits
    sent: float  # mean share of the cache's bits at 16 bit that is sent before the session resumes, all of them


def choice(changes: np.ndarray) -> Choice:
    """The mean of what was chosen."""
    count = np.bincount(changes["medium"], minlength=len(MEDIA))
    media = tuple((count / max(len(changes), 1)).tolist())
    medium = MEDIA[int(count.argmax())] if len(changes) else ""
    sends = changes[(changes["medium"] == MEDIA.index("kv")) | (changes["medium"] == MEDIA.index("split"))]
    split = changes[changes["medium"] == MEDIA.index("split")]
    moved = changes[changes["medium"] != MEDIA.index("detour")]
    left = np.where(moved["medium"] == TOKEN, 0.0, 1.0 - np.nan_to_num(moved["prefix"]))
    return Choice(len(changes), medium, media, float(mean(sends["keep"])), float(mean(sends["bits"])),
                  float(mean(split["prefix"][~np.isnan(split["prefix"])])),
                  float(mean(left * moved["keep"] * moved["bits"] / 16.0)))


def inside(values: np.ndarray, level: tuple[float, float, str]) -> np.ndarray:
    """Which values lie in [low, high), bool."""
    return (values >= level[0]) & (values < level[1])


def grid(changes: np.ndarray) -> list[list[Choice]]:
    """What was chosen, by CACHES (rows) and LINKS (columns)."""
    return [[choice(changes[inside(changes["cache_bits"], cache) & inside(changes["link_bps"], link)])
             for link in LINKS] for cache in CACHES]


def urgency(played: Played) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight over the mean weight of the link by URGENCY (NaN: never), how often, and the pairs by who is first."""
    share = sum((one.share for one in played.values()), np.zeros(1))
    senders = sum((one.senders for one in played.values()), np.zeros(1, np.int64))
    first = sum((one.first for one in played.values()), np.zeros(1, np.int64))
    return np.where(senders > 0, share / np.maximum(senders, 1), np.nan), senders, first


class Where(NamedTuple):
    """What two policies pay for the same changes of cell."""

    what: str
    level: str
    changes: int
    mine: float  # avoidable cost per change of cell
    theirs: float
    times: Ratio


# Exogenous: the same whoever plays.
SPLITS: tuple[tuple[str, str, Sequence[tuple[float, float, str]]], ...] = (
    ("others who leave the cell within 3 s", "leaving", CROWDS), ("link between the cells [Gbit/s]", "way_bps", LINKS))


def wins(mine: Played, theirs: Played) -> list[Where]:
    """Where one policy pays less than another: by the number of concurrent changes of cell, and by the link.

    Intervals are over episodes: what several changes of cell in one episode cost belongs together.
    """
    found = []
    for what, name, levels in SPLITS:
        for level in levels:
            def some(changes: np.ndarray, name: str = name, level: Any = level) -> np.ndarray:
                return inside(changes[name], level)

            found.append(_where(what, level[2], mine, theirs, some))
    for text, waits in (("waits", True), ("does not", False)):
        def waiting(changes: np.ndarray, waits: bool = waits) -> np.ndarray:
            return changes["waits"] == waits

        found.append(_where("user waits for tokens then", text, mine, theirs, waiting))
    return found


def _where(what: str, level: str, mine: Played, theirs: Played, some: Callable[[np.ndarray], np.ndarray]) -> Where:
    count, paid, labels = 0, ([], []), []  # type: tuple[int, tuple[list[float], list[float]], list[str]]
    for scenario, one in mine.items():
        chosen = [watched.changes[some(watched.changes)] for watched in (one, theirs[scenario])]
        count += len(chosen[0])
        for e in range(len(one.metrics)):
            here = [rows[rows["env"] == e] for rows in chosen]
            if not any(map(len, here)):
                continue
            for sums, rows in zip(paid, here, strict=True):
                sums.append(float(rows["cost"].sum()))
            labels.append(scenario)
    each = [sum(sums) / count if count else np.nan for sums in paid]
    return Where(what, level, count, each[0], each[1], paired_ratio(*paid, strata=labels))


def episodes(mine: Played, theirs: Played) -> dict[str, Ratio]:
    """Avoidable cost of one policy over another's by scenario, and of all of them ("all")."""
    def costs(played: Played, scenario: str) -> list[float]:
        return [metrics["avoidable_cost"] for metrics in played[scenario].metrics]

    found = {scenario: paired_ratio(costs(mine, scenario), costs(theirs, scenario)) for scenario in mine}
    every = [[cost for scenario in mine for cost in costs(played, scenario)] for played in (mine, theirs)]
    labels = [scenario for scenario in mine for _ in mine[scenario].metrics]
    return found | {"all": paired_ratio(every[0], every[1], strata=labels)}
