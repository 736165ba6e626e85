"""What a picture of an environment shows, in words that every task shares: places, users, things on their way, charts.

A task fills a `Drawing`; envs.render draws it and knows no task.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Look:
    """A state of an agent, as the legend explains it."""

    name: str
    meaning: str
    colour: tuple[int, int, int]  # red, green, blue in 0..255
    hollow: bool = False  # an outline only
    halo: bool = False  # a ring around it: look here
    on_top: bool = False  # drawn above the others


@dataclass(frozen=True)
class Arc:
    """Something on its way from place `source` to place `target`."""

    source: int
    target: int
    look: int  # index into Drawing.looks, for its colour
    width: float | None  # share in [0, 1] of the widest line; None: a dotted line, too little to have a width
    done: float = 1.0  # share that has arrived
    rate: float = 0.0  # in the unit of Drawing.total


@dataclass(frozen=True)
class Chart:
    """One value per step over the last seconds."""

    title: str
    colour: tuple[int, int, int]  # red, green, blue in 0..255
    least: float  # smallest range of the axis
    value: float | None  # of the step just made; None: this is not measured


@dataclass(frozen=True)
class Drawing:
    """One environment at one instant: U agents and C places on a map.

    Attributes:
        scene: the map and its places (envs.scenes.Scene).
        time_s: since the start of the episode [s].
        interval_s: decision interval [s].
        position_m: of the agents, float [U, 2] [m].
        place: that each agent belongs to now, int [U].
        looks: the states that agents can be in, and what they look like.
        look: state of each agent, int [U].
        shape: marker of each agent: disc, triangle, square or diamond.
        arcs: what is on its way between places.
        dashes: pairs of places with steady traffic between them, and the look whose colour they have.
        bars: meaning and share in [0, 1] per place, float [C].
        charts: under the map.
        numbers: of the step just made, words and value, above the legend.
        shapes: meaning of the markers, for the legend: (shape, words).
        shapes_look, arc_look, dash_look: whose colour the samples in the legend have.
        arc_words: legend of wide arcs, dotted arcs and dashes; empty where there are none of the kind.
        total: words for the sum of all rates, such as "backhaul carries 1.2 Gbit/s".
        heads: titles of the legend's sections: agents, shapes, between places, places.
    """

    scene: Any
    time_s: float
    interval_s: float
    position_m: np.ndarray
    place: np.ndarray
    looks: tuple[Look, ...]
    look: np.ndarray
    shape: tuple[str, ...]
    arcs: tuple[Arc, ...] = ()
    dashes: tuple[tuple[int, int, int], ...] = ()
    bars: tuple[tuple[str, np.ndarray], ...] = ()
    charts: tuple[Chart, ...] = ()
    numbers: tuple[tuple[str, str], ...] = ()
    shapes: tuple[tuple[str, str], ...] = ()
    shapes_look: int = 0
    arc_look: int = 0
    dash_look: int = 0
    arc_words: tuple[str, str, str] = ("", "", "")
    total: str = ""
    heads: tuple[str, str, str, str] = field(default=("AGENTS", "SHAPES", "BETWEEN PLACES", "PLACES"))
