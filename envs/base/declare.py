"""Declarations: one entry per action part, observed number, reward term and metric.

Spaces, masks, kernel indices, the checks of YAML files and the documentation are made from these tables, so that a
concept is written down once.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True)
class Part:
    """One part of an agent's MultiDiscrete action.

    Args:
        name: key in Dict actions and in the documentation.
        choices: what each index means.
        values: the number that each index stands for; None where the choices have no order.
        neutral: the index that changes nothing, if there is one; learning may start close to it.
        meaning: one line for the documentation.
    """

    name: str
    choices: tuple[str, ...]
    values: tuple[float, ...] | None = None
    neutral: int | None = None
    meaning: str = ""

    @property
    def size(self) -> int:
        """Number of choices."""
        return len(self.choices)


class Feature(NamedTuple):
    """One number of an observation row, with the range it is clipped to."""

    name: str
    meaning: str
    unit: str
    low: float
    high: float


class Term(NamedTuple):
    """One term of the reward: its price is the field of that name in the task's reward settings."""

    name: str
    per: str  # what the price is paid for, e.g. "second without service"


@dataclass(frozen=True)
class Metric:
    """One number per episode; NaN when the episode has nothing to measure.

    Attributes:
        name: key in the results; times end in `_s` and are stored in seconds.
        unit: unit of the stored value; "1" is a count or a plain number, "share" lies in [0, 1].
        better: which direction is better.
        meaning: one line for the documentation.
        label: short heading in tables.
        of: computes it from the meter of the task and the index of the environment.
        shown_unit: unit in tables and figures; the same as `unit` if empty.
        scale: stored value times `scale` is the shown value.
        interval_from: fewest episodes with which tables and figures show its interval; inf: never. For metrics of rare
            events and long tails, where with fewer the interval would hold the truth too seldom (docs/statistics.md).
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    meaning: str
    label: str
    of: Callable[[Any, int], float]
    shown_unit: str = ""
    scale: float = 1.0
    interval_from: float = 2

    def __post_init__(self) -> None:
        if not self.shown_unit:
            object.__setattr__(self, "shown_unit", self.unit)


def price(default: float, per: str) -> Any:
    """A field of a task's reward settings: the price of the term of the same name.

    Args:
        default: price per unit.
        per: what the price is paid for, e.g. "second without service".
    """
    return field(default=default, metadata={"per": per})


def terms_of(settings: type) -> tuple[Term, ...]:
    """The reward terms that a settings dataclass prices (its `price` fields), in order."""
    return tuple(Term(f.name, f.metadata["per"]) for f in fields(settings) if "per" in f.metadata)


def indices(title: str, names: Iterable[str]) -> Any:
    """A named tuple of 0, 1, 2, ...: kernels write `row[FEATURES.streaming]` instead of `row[0]`.

    Args:
        title: name of the tuple's type.
        names: of the entries, in order.
    """
    listed = list(names)
    return namedtuple(title, listed)(*range(len(listed)))


def markdown(head: tuple[str, ...], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, one line per row."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
