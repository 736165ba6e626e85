"""Every named policy: what makes it, what it does, where it is from, and what it assumes.

docs/policies.md is made from this table (`python docs/make_policies.py`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...envs.handover import actions
from ...envs.handover.config import HandoverConfig
from ..base import Catalogue, Entry, Tunables
from ..random import RandomPolicy
from .a3_handovers import able_to_hand_over
from .constant import Constant
from .ctho import CtHO
from .fixed import CacheHandover, Deadline, Fetch, PostCopy, PreCopy, SplitHandover, Stay, TokenAware, TokenHandover
from .foresight import Foresight
from .hindsight import Hindsight
from .jmsra import JMSRA
from .judgement import TUNABLE
from .pallas import Pallas
from .planner import GreedyPlanner, tuned
from .plans import checked_plans
from .shares import Market, WaterFilling
from .two_choices import TwoChoices


def _random(config: HandoverConfig) -> dict[str, Any]:
    return dict(sizes=actions.sizes(config.actions),
                masks=partial(actions.masks, config=config.actions),
                decode=partial(actions.decode, config=config.actions))


_ENTRIES: dict[str, Entry] = {
    "random": Entry(
        RandomPolicy, "Uniform among the choices that can have an effect.", "ours", "nothing", _random),
    "constant": Entry(
        Constant, "One plan for every session and every handover: once it is predicted or announced, at it, or after.",
        "ours", "nothing", role="constant"),
    "stay": Entry(
        Stay, "The session never moves; its tokens take the detour. Where nothing is forwarded: `tho`.",
        "the detour of Pallas, arXiv 2608.16477", "the old gNB can forward for ever"),
    "tho": Entry(
        TokenHandover, "The target rebuilds the whole cache from token ids, at the handover.",
        "arXiv 2603.28018, L = C_max", "token ids cost nothing to send"),
    "cho": Entry(
        CacheHandover, "The whole KV cache crosses the backhaul, at the handover.", "arXiv 2603.28018, L = 0",
        "equal shares of the link"),
    "split": Entry(
        SplitHandover, "Prefix by prefill, suffix by KV, balanced for each session alone, at the handover.",
        "ours, after arXiv 2603.28018", "the load stays as it is at the handover"),
    "fetch": Entry(
        Fetch, "Stay at the handover, then fetch the session behind the scenes. Where nothing is forwarded: `split`.",
        "ours", "forwarding delays a stream once"),
    "deadline": Entry(
        Deadline, "The most salient quarter, a fixed time before the predicted handover; the rest follows.",
        "ours", "the predictor is right"),
    "pre-copy": Entry(
        PreCopy, "The whole cache from the prediction on; resume on what has arrived, the rest follows.",
        "ours, after pre-copy of virtual machines", "the links have time"),
    "post-copy": Entry(
        PostCopy, "The most salient rows at the handover; resume on them, the rest follows.",
        "ours, after post-copy of virtual machines", "a tenth of the cache is enough for a while"),
    "ctho": Entry(
        CtHO, "Jointly optimal common prefix and order of transfers for the UEs between two cells.",
        "arXiv 2603.28018, propositions 1 to 3; exact bound ours", "the group is complete once its A3 timers run",
        lambda config: dict(per_user=False)),
    "ctho-per-user": Entry(
        CtHO, "Every UE its own optimal split (K = 1), equal shares of the link.", "arXiv 2603.28018 with K = 1",
        "nobody else hands over meanwhile", lambda config: dict(per_user=True)),
    "jmsra": Entry(
        JMSRA, "Medium and bandwidth of concurrent handovers by bi-directional greedy search.",
        "arXiv 2605.25422; the model is ours", "the sessions that leave one gNB share its egress only"),
    "token-aware": Entry(
        TokenAware, "Only the KV of the most salient tokens crosses the backhaul, at the handover.",
        "clawRxiv 2604.01548", "the environment's scorer finds what will be needed"),
    "pallas": Entry(
        Pallas, "The predicted target prefills before the handover while the source streams the increments.",
        "arXiv 2608.16477; split and compression ours", "constant velocity; a wrong target can be cancelled"),
    "water-filling": Entry(
        WaterFilling, "`split` with shares that level the ends of all transfers, link by link.",
        "ours, after iterative water-filling", "a busy server is busy with the session itself"),
    "market": Entry(
        Market, "`split` with shares bought at the prices of a proportional-fair market.",
        "Kelly et al. 1998; budgets ours", "urgency falls with the time until the handover"),
    "two-choices": Entry(
        TwoChoices, "Stay at the handover; then live where cache or UE are, by affinity and load. Else: `split`.",
        "ours, after DualMap", "a session goes on for `ahead_answers` answers",
        lambda config: dict(hop_s=config.backhaul.hop_s)),
    "greedy-planner": Entry(
        GreedyPlanner, "The cheapest of all plans for each UE, by the delay model, the prices and measured drift.",
        "ours", "the drift of docs/sweep.csv; the predictor's usual errors, or, with `streets`, shortest ways",
        lambda config: dict(config=config)),
    "foresight": Entry(
        Foresight, "The greedy planner with a perfect predictor: prepares exactly in time. Not a competitor.",
        "ours", "it reads the future from a copy of the simulator", lambda config: dict(config=config),
        role="upper_bound"),
    "hindsight": Entry(
        Hindsight, "A bound, not a competitor: follows the best plan that a search found for every single handover.",
        "ours", "it knows the episode; the drift of docs/sweep.csv; event A3 decides the handovers",
        lambda config: dict(config=config), role="upper_bound"),
}

# Names for arguments that are often wanted.
_ALIASES: dict[str, str] = {
    "cho-int8": "cho:bits=8", "cho-int4": "cho:bits=4", "ctho-int8": "ctho:bits=8", "ctho-int4": "ctho:bits=4",
    "split-int8": "split:bits=8", "split-int4": "split:bits=4", "fetch-int8": "fetch:bits=8",
    "fetch-int4": "fetch:bits=4", "jmsra-int8": "jmsra:bits=8", "jmsra-int4": "jmsra:bits=4",
    "jmsra-sum": "jmsra:objective=sum", "pallas-int8": "pallas:bits=8", "pallas-int4": "pallas:bits=4",
    "pallas-split": "pallas:medium=split", "token-aware-0.1": "token-aware:keep=0.1",
    "token-aware-0.5": "token-aware:keep=0.5",
}

CATALOGUE = Catalogue(checked_plans, _ENTRIES, _ALIASES, able_to_hand_over, Tunables(TUNABLE, tuned))
