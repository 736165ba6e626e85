"""The rows of a leaderboard as Markdown: a page with a table per scenario, and a short block for the README."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents.registry import LEARNED, UPPER_BOUND
from ..envs.base import registry
from ..envs.base.declare import Metric, markdown
from .curves import COSTS
from .metrics import ends, number

MARKERS = ("<!-- leaderboard -->", "<!-- /leaderboard -->")

Row = Mapping[str, Any]


def page(rows: Sequence[Row], file: str) -> str:
    """The page.

    Args:
        rows: of the leaderboard, at least one.
        file: name of the file that they are from.
    """
    lines = [
        "# Leaderboard", "",
        "Purpose: to say which policy does how well in which scenario, in numbers that a command makes again.", "",
        f"Made by `python -m kvroam.evaluation.leaderboard {file}`. The rows in `{file}` are written by "
        "`evaluate.py --leaderboard` alone:", "", "```",
        *dict.fromkeys(row["command"] for row in rows if row["command"]), "```", "",
        "A cell is a mean over episodes with its 95 % interval ([statistics](statistics.md)), where there is one. Rows "
        "are sorted by the avoidable cost: seconds of a waiting user, less what no policy can avoid. An *upper bound* "
        "knows what no policy could know and does not compete. Policies meet the same users in the same city; whether "
        "one is really better than another is said by the paired differences of `evaluate.py`, not by whether "
        "intervals overlap.", ""]
    for group in _groups(rows):
        lines += _section(group)
    return "\n".join(lines).rstrip("\n") + "\n"


def block(rows: Sequence[Row]) -> str:
    """A short table: who wins each scenario, and how far the best learned policy is behind."""
    body = []
    for group in _groups(rows):
        best, cost = _ranked(group)[:1], _cost(group)
        learned = [row for row in _ranked(group) if row["kind"] == LEARNED][:1]
        bound = min((_mean(row, cost) for row in group if row["kind"] == UPPER_BOUND), default=math.nan)
        body.append((group[0]["scenario"], _code(best[0]) if best else "-", _cell(best[0], cost) if best else "-",
                     _code(learned[0]) if learned else "-", _cell(learned[0], cost) if learned else "-",
                     "-" if math.isnan(bound) else f"{bound:.3g}"))
    cost = _cost(rows)
    return markdown(("scenario", "winner", f"{_title(cost)}", "best learned", _title(cost), "bound"), body)


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that can be compared: of one environment, scenario and configuration."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["environment"], row["scenario"], row["config"]), []).append(row)
    return list(found.values())


def _section(group: Sequence[Row]) -> list[str]:
    """The table of a scenario, and who wins it."""
    first, cost, metrics = group[0], _cost(group), _metrics(group)
    ordered = sorted(group, key=lambda row: _order(_mean(row, cost)))
    played = sorted({(row["episodes"], row["seed"]) for row in group})
    told = "; ".join(f"{count} episodes from seed {seed} on" for count, seed in played)
    if len(played) > 1:
        told += " (not all rows have the same episodes: compare with care)"
    shown = [m for m in metrics if any(not math.isnan(_mean(row, m)) for row in group)]
    table = markdown(("policy", "kind", *(_title(m) for m in shown)),
                     ((_code(row), row["kind"].replace("_", " "), *(_cell(row, m) for m in shown)) for row in ordered))
    return [f"## {first['scenario']}", "", f"`{first['environment']}`, configuration `{first['config']}`, {told}.", "",
            _winner(group), "", table]


def _winner(group: Sequence[Row]) -> str:
    """Who wins, in words."""
    ranked, cost = _ranked(group), _cost(group)
    if not ranked:
        return "Nobody competes here."
    name = cost.name.replace("_", " ")
    said = f"**`{ranked[0]['policy']}` wins** with the lowest {name}, {_mean(ranked[0], cost):.3g}"
    said += f"; next is {_code(ranked[1])} with {_mean(ranked[1], cost):.3g}." if len(ranked) > 1 else "."
    learned = next((row for row in ranked if row["kind"] == LEARNED), None)
    if learned is None:
        return f"{said} No learned policy has been evaluated here."
    if learned is ranked[0]:
        return f"{said} It is a learned policy."
    least = _mean(ranked[0], cost)
    times = f", {_mean(learned, cost) / least:.3g} times as much" if least > 0 else ""
    return f"{said} The best learned policy, {_code(learned)}, costs {_mean(learned, cost):.3g}{times}."


def _ranked(group: Sequence[Row]) -> list[Row]:
    """Those who compete, the cheapest first."""
    cost = _cost(group)
    compete = [row for row in group if row["kind"] != UPPER_BOUND and not math.isnan(_mean(row, cost))]
    return sorted(compete, key=lambda row: _mean(row, cost))


def _metrics(group: Sequence[Row]) -> list[Metric]:
    """The headline of the task; of an environment that is not known here, its cost."""
    for name in registry.names():
        task = registry.task(name)
        if f"kvroam/{task.title}-v0" == group[0]["environment"]:
            known = {m.name: m for m in task.metrics}
            return [known[one] for one in task.headline]
    return [Metric("cost", "1", "lower", "", "cost", lambda meter, e: math.nan)]


def _cost(group: Sequence[Row]) -> Metric:
    """What decides: the avoidable cost, where the task has it."""
    known = {m.name: m for m in _metrics(group)}
    return next(known[name] for name in COSTS if name in known)


def _mean(row: Row, m: Metric) -> float:
    return number(row["metrics"].get(m.name, {}).get("mean")) * m.scale


def _order(value: float) -> tuple[bool, float]:
    """NaN comes last."""
    return math.isnan(value), value


def _title(m: Metric) -> str:
    return f"{m.label} [{m.shown_unit}]"


def _code(row: Row) -> str:
    return f"`{row['policy']}`"


def _cell(row: Row, m: Metric) -> str:
    """Mean and interval in the shown unit."""
    value = _mean(row, m)
    if math.isnan(value):
        return "-"
    low, high = (end * m.scale for end in ends(row["metrics"][m.name], m))
    return _shown(value) + ("" if math.isnan(low) else f" [{_shown(low)}, {_shown(high)}]")


def _shown(value: float) -> str:
    """Three digits, and all of them before the point."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
