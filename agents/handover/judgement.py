"""How a planner judges what it cannot know: numbers that were set by hand, and that can be learned.

Source: ours. `greedy-planner` acts on the defaults; `roamer` on what an evolution strategy found for them
(kvroam.training.evolution), in worlds that it is not evaluated in.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from ...envs.handover.config import HandoverConfig


class Tunable(NamedTuple):
    """How far a number may be moved: by factors, or by what is added."""

    scale: Literal["factor", "sum", "bias"]  # a bias may be below 0, a sum may not
    spread: float  # one standard deviation at the start: of the logarithm of the factor, or of the sum


@dataclass(frozen=True)
class Judgement:
    """Every number is a float, or an array [E] with one per environment."""

    margin: Any = 0.7  # of the capacity of a link is counted on: it varies, and others will begin transfers
    gpu_margin: Any = 2.5  # prefills take longer than expected: others ask, too
    sure_at: Any = 0.95  # how often a plan for a predicted handover holds
    sure_ahead: Any = 0.08  # less for each second ahead [1/s]
    horizon: Any = 1.0  # handovers that are foreseen later are not prepared yet: of the planner's horizon
    least: Any = 0.5  # handovers that the predictor takes to be less likely are not prepared
    timing: Any = 1.0  # handovers come earlier or later than predicted: of what was measured
    change_s: Any = 1.0  # a preparation is dropped for another cell only if the handover there is so near [s]
    background: Any = 0.1  # bandwidth weight of what follows
    urgency: Any = 1.0  # power with which a transfer's weight falls with the time that it has left
    ease: Any = 0.7  # weight of a transfer whose user waits for nothing, of the others'
    harm: Any = 1.0  # of the table's harm
    elsewhere: Any = 1.0  # of the expected cost that a prefill has for the sessions of others
    traffic: Any = 1.0  # of the price of what is sent
    gpu: Any = 1.0  # of the price of prefill
    repair: Any = 1.0  # of the expected gain of a repair
    fade_s: Any = 3.0  # what a user does now says little about so many seconds from now [s]
    rest: Any = 1.0  # of the tokens that a session is expected to go on for
    company: Any = 0.0  # transfers that each of those counts as who will change cell soon over the same link
    crowd: Any = 0.0  # seconds of prefill at the target that each of those counts as who will change to it soon [s]
    courtesy: Any = 0.0  # price of a second of a link that others are about to use
    early: Any = 0.0  # price of each second that a preparation begins before it must [1/s]

    # Prices of a kind of plan besides what it is expected to cost.
    stay: Any = 0.0
    fetch: Any = 0.0
    at: Any = 0.0  # moving with the handover
    token: Any = 0.0
    kv: Any = 0.0
    split: Any = 0.0  # of half a context; of less as much less
    whole: Any = 0.0  # keeping everything
    thin: Any = 0.0  # keeping a tenth; of more as much less
    fill: Any = 0.0  # sending the rest later
    fine: Any = 0.0  # more than 4 bit

    def of(self, envs: np.ndarray) -> Judgement:
        """The judgement in some environments, arrays [N] where there is one number per environment."""
        return replace(self, **{f.name: value[envs] for f in fields(self)
                                if isinstance(value := getattr(self, f.name), np.ndarray)})


_OWN: dict[str, Tunable] = {
    **{name: Tunable("factor", 0.3) for name in (
        "margin", "gpu_margin", "timing", "background", "urgency", "ease", "harm", "elsewhere", "traffic", "gpu",
        "repair", "fade_s", "rest", "change_s", "sure_ahead", "horizon")},
    "sure_at": Tunable("factor", 0.05), "least": Tunable("sum", 0.15), "company": Tunable("sum", 0.4),
    "crowd": Tunable("sum", 0.15), "courtesy": Tunable("sum", 0.05), "early": Tunable("sum", 0.005),
    **{name: Tunable("bias", 0.02) for name in (
        "stay", "fetch", "at", "token", "kv", "split", "whole", "thin", "fill", "fine")},
}
# Numbers that may be others where links are slow. What they gain there they lose where links are fast.
_BY_LINK = ("horizon", "least", "background", "harm", "gpu", "early", "at", "split", "whole", "thin", "fill")
_AT_LINK = "@slow_links"
TUNABLE: tuple[str, ...] = (*_OWN, *(name + _AT_LINK for name in _BY_LINK))  # the numbers that are learned

_USUAL_S, _SPREAD, _FARTHEST = 8.0, 1.5, 2.0  # of the time that a whole cache takes: logarithm's scale, and its limit


def slowness(config: HandoverConfig) -> float:
    """How slow the links are: 0 where a cache of 16 bit takes 8 s, 1 where it takes 4.5 times as long, at most 2."""
    tokens = 0.75 * config.sessions.script_tokens * config.serving.context_scale
    whole_s = tokens * config.serving.kv_bits_per_token(16) / config.backhaul.capacity_bps
    return float(np.clip(np.log(whole_s / _USUAL_S) / _SPREAD, -_FARTHEST, _FARTHEST))


def judgement(point: np.ndarray, slow: float = 0.0) -> Judgement:
    """What a point of the search stands for; the origin is the default.

    Args:
        point: float64 [len(TUNABLE)], or [E, len(TUNABLE)] for one judgement per environment; in standard deviations.
        slow: how slow the links are (`slowness`).
    """
    by_name = dict(zip(TUNABLE, np.moveaxis(np.asarray(point, np.float64), -1, 0), strict=True))
    default = asdict(Judgement())
    found = {}
    for name, how in _OWN.items():
        moved = how.spread * (by_name[name] + slow * by_name.get(name + _AT_LINK, 0.0))
        if how.scale == "factor":
            found[name] = default[name] * np.exp(moved)
        else:
            found[name] = np.maximum(default[name] + moved, 0.0 if how.scale == "sum" else -np.inf)
    return Judgement(**{name: value if np.ndim(value) else float(value) for name, value in found.items()})
