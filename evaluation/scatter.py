"""Figures with a marker per policy: what a policy pays for what it gains, and who cannot be beaten in both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..agents.registry import UPPER_BOUND
from ..envs.base.declare import Metric
from . import drawing
from .estimates import mean, mean_interval
from .metrics import ends, metric, metrics_of, number

INTERRUPTION_DRIFT = ("interruption_s_mean", "drift_kl_mean")

# The terms of Handover's cost, by whom they hurt: the user who waits, and who reads a worse answer.
DELAY = ("interruption", "late", "slow", "outage", "detour")
HARM = ("drift", "wrong")
TRAFFIC, FLOOR = "backhaul_gb", "floor"


class Point(NamedTuple):
    """A mean and the ends of its interval; the mean thrice where that is unknown, NaN of nothing."""

    mean: float
    low: float
    high: float


def has_interruptions(results: Mapping[str, Any]) -> bool:
    """Whether the task has the metrics of `interruption_drift`."""
    return set(INTERRUPTION_DRIFT) <= set(metrics_of(results))


def interruption_drift(results: Mapping[str, Any], path: str | Path) -> None:
    """Draw one labelled marker per policy, with the 95 % intervals of both means where they are known.

    x is the mean interruption [ms], logarithmic when it spans more than a factor of ten; y is the mean drift
    [nats per token], linear near 0 and logarithmic above, so that a drift of exactly 0 is on the page.
    Policies without a single handover have no place in it and are named above the axes.

    Args:
        results: as in `report`.
        path: a PNG file, replaced if it exists.
    """
    across, along = (metric(name, metrics_of(results)) for name in INTERRUPTION_DRIFT)
    points = {name: (_of_metric(policy, across), _of_metric(policy, along))
              for name, policy in results["policies"].items()}
    canvas, (axes,) = drawing.sheet(7.2, 4.6)
    shown = _place(canvas, axes, results, points)
    axes.set_xlabel("time without service per interruption, mean [ms]   (better to the left)")
    axes.set_ylabel("drift KL, mean [nats/token]   (better below)")
    absent = [name for name in points if name not in shown]
    if absent:
        axes.set_title(f"without a handover: {', '.join(absent)}", fontsize=8, loc="right", color=drawing.GREY)
    _names(canvas, [(axes, shown)], results)
    drawing.save(canvas, path)


def has_parts(results: Mapping[str, Any]) -> bool:
    """Whether there are the parts of the cost that `pareto` is about."""
    return {TRAFFIC, FLOOR} <= set(metrics_of(results)) and all(
        {*DELAY, *HARM} <= set(policy.get("parts", {})) for policy in results["policies"].values())


def pareto(results: Mapping[str, Any], path: str | Path) -> None:
    """Draw what users wait beyond what no policy can avoid, against the backhaul's traffic and against worse answers.

    A line joins the policies that no other beats in both. Bounds, which know what no policy could, are hollow and not
    in it. Without a language model no answer is worse, and the second pair of axes is left out.

    Args:
        results: as in `report`, over one scenario or several.
        path: a PNG file, replaced if it exists.
    """
    strata = results.get("scenarios")
    delay, harm, traffic = ({name: _of_values(values(policy), strata) for name, policy in results["policies"].items()}
                            for values in (_delay, _harm, lambda policy: policy["episodes"][TRAFFIC]))
    pairs = [(traffic, "backhaul traffic [GB]")]
    if any(point.mean > 0 for point in harm.values()):
        pairs.append((harm, "price of worse answers [1]"))
    count = len(results["policies"])
    below = 0.05 * count if count > drawing.LABELS else 0.0
    canvas, sheets = drawing.sheet(5.6 * len(pairs), 4.8 + below, len(pairs))
    placed = []
    for axes, (along, title) in zip(sheets, pairs, strict=True):
        points = {name: (delay[name], along[name]) for name in delay}
        shown = _place(canvas, axes, results, points)
        compete = [shown[name] for name in shown if results["policies"][name].get("kind") != UPPER_BOUND]
        edge = [compete[i] for i in drawing.front([(m.x, m.y) for m in compete])]
        axes.plot([m.x for m in edge], [m.y for m in edge], color="#999999", lw=1.2, ls="--", zorder=1.5)
        axes.set_xlabel("avoidable delay per user and episode [s]   (better to the left)")
        axes.set_ylabel(f"{title}   (better below)")
        placed.append((axes, shown))
    sheets[0].set_title("means over episodes; dashed: nobody is better in both", fontsize=8, loc="right",
                        color=drawing.GREY)
    _names(canvas, placed, results)
    drawing.save(canvas, path)


def _delay(policy: Mapping[str, Any]) -> list[float]:
    """Seconds that a user waits, per episode, beyond what nobody could avoid."""
    floor = policy["episodes"][FLOOR]
    return [sum(number(policy["parts"][term][k]) for term in DELAY) - number(floor[k]) for k in range(len(floor))]


def _harm(policy: Mapping[str, Any]) -> list[float]:
    """The price of worse answers, per episode."""
    return [sum(map(number, values)) for values in zip(*(policy["parts"][term] for term in HARM), strict=True)]


def _of_values(values: Sequence[Any], strata: Sequence[str] | None) -> Point:
    numbers = [number(value) for value in values]
    low, high, _ = mean_interval(numbers, strata=strata)
    middle = float(mean([value for value in numbers if not math.isnan(value)]))
    return Point(middle, middle if math.isnan(low) else low, middle if math.isnan(high) else high)


def _of_metric(policy: Mapping[str, Any], m: Metric) -> Point:
    """Mean and interval of a metric in its shown unit."""
    entry = policy["summary"].get(m.name, {})
    middle = number(entry.get("mean")) * m.scale
    low, high = (middle if math.isnan(end) else end * m.scale for end in ends(entry, m))
    return Point(middle, low, high)


def _place(canvas: Any, axes: Any, results: Mapping[str, Any], points: Mapping[str, tuple[Point, Point]],
           ) -> dict[str, drawing.Marker]:
    """Draw the markers of the policies that have both numbers, and scale the axes to them."""
    looks, shown = drawing.styles(results), {}
    for name, (x, y) in points.items():
        if math.isnan(x.mean + y.mean):
            continue
        colour, shape, _ = looks[name]
        hollow = results["policies"][name].get("kind") == UPPER_BOUND
        axes.errorbar(x.mean, y.mean, [[y.mean - y.low], [y.high - y.mean]], [[x.mean - x.low], [x.high - x.mean]],
                      "none", ecolor=(colour, 0.45), elinewidth=1.0, zorder=2)
        # A star of the same size looks smaller.
        axes.plot([x.mean], [y.mean], shape, color=colour, ms=11 if shape == "*" else 7, zorder=3,
                  mec=colour if hollow else "white", mfc="white" if hollow else colour, mew=1.2 if hollow else 0.8)
        shown[name] = drawing.Marker(name, x.mean, y.mean, colour)
    axes.margins(x=0.14, y=0.14)
    for which, k in (("x", 0), ("y", 1)):
        mine = [points[name][k] for name in shown]
        drawing.scale(axes, which, [one.mean for one in mine], [one.high for one in mine])
    return shown


def _names(canvas: Any, placed: Sequence[tuple[Any, Mapping[str, drawing.Marker]]], results: Mapping[str, Any],
           ) -> None:
    """Name the markers: beside them, or in a legend where they are many."""
    everybody = [name for name in results["policies"] if any(name in shown for _, shown in placed)]
    if len(everybody) > drawing.LABELS:
        drawing.legend(canvas, results, everybody, lines=False)
        return
    for axes, shown in placed:
        drawing.label(axes, canvas, list(shown.values()), drawing.titles(results["policies"]))
