"""Two choices: a session lives where its cache is, or where its UE is, whichever costs less (after DualMap).

DualMap maps every request to two servers, one of which holds its cache, and picks by affinity and load. Here the two
are the UE's cell and the server that holds the session, which after a handover is a neighbour, as a rule the strongest.
Nothing moves at the handover itself; a session whose UE's cell is the better choice is fetched behind the scenes. Where
nothing can be forwarded there is one choice only, and the session moves with its user.
"""

from __future__ import annotations

import numpy as np

from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import DETOUR, IDLE, MEDIA
from ...errors import require
from ..base import label
from .plans import checked_bits, forwarded, prefill_pace, reactive_plans


def placement_cost(sessions, wait_s, move_s, detour_s, load_weight: float):
    """Cost of a server for one session: what moving there takes, what each step there loses, and its queue.

    Args, floats or arrays:
        sessions: other sessions that live on the server.
        wait_s: until it can start a prefill [s].
        move_s: time to bring the cache there; 0 where it is [s].
        detour_s: delay that forwarding adds to the answers expected from now on; 0 at the UE's cell [s].
        load_weight: seconds that one more resident session is worth [s].

    Returns:
        Cost [s].

    Source: ours, after DualMap's choice of two by cache affinity and load: affinity is `move_s`, load is the rest.
    """
    return move_s + detour_s + wait_s + load_weight * np.asarray(sessions, np.float64)


class TwoChoices:
    """Two-choices placement of the sessions that were left behind.

    Args:
        medium: token, kv or split, of a move.
        bits: precision of the transferred KV.
        load_weight: seconds that one more resident session on a server is worth [s].
        ahead_answers: answers that a session is expected to give at its place; each is delayed by the detour once.
        hop_s: delay of a stream per hop (backhaul.hop_s) [s].
    """

    def __init__(self, medium: str = "split", bits: int = 16, load_weight: float = 0.1, ahead_answers: float = 10.0,
                 hop_s: float = 0.02) -> None:
        require(medium in ("token", "kv", "split"), f"medium is {medium!r}: choose token, kv or split")
        for key, value in (("load_weight", load_weight), ("ahead_answers", ahead_answers), ("hop_s", hop_s)):
            require(0.0 <= value < np.inf, f"{key} is {value}: it must be finite and not negative")
        self.medium, self.bits, self.load_weight = MEDIA.index(medium), checked_bits(bits), load_weight
        self.detour_s = ahead_answers * hop_s
        self.name = label("two-choices", medium=(medium, "split"), bits=(bits, 16), load_weight=(load_weight, 0.1),
                          ahead_answers=(ahead_answers, 10.0))

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        plans = reactive_plans(view, self.medium, bits=self.bits)
        plans["medium"] = np.where(forwarded(view), DETOUR, self.medium)
        server, radio = view.server_cell, view.radio_cell
        away = (radio != server) & (view.phase == IDLE)
        if not away.any():
            return plans
        e, u = np.nonzero(away)
        there, here = server[e, u], radio[e, u]
        homes = np.zeros((view.num_envs, view.num_cells))
        np.add.at(homes, (np.arange(view.num_envs)[:, None], server), 1.0)
        link, queue = view.link(e, there, here)
        pace, overhead, waits = prefill_pace(view)
        send, fill = view.kv_bits_per_token(self.bits) / link, pace[e, here]
        per_token = {"token": fill, "kv": send, "split": fill * send / (fill + send)}[MEDIA[self.medium]]
        move = view.context_tokens[e, u] * per_token + overhead
        wait = queue if MEDIA[self.medium] == "kv" else np.maximum(waits[e, here], queue)
        stay = placement_cost(homes[e, there] - 1.0, 0.0, 0.0, self.detour_s * view.hops[there, here], self.load_weight)
        go = placement_cost(homes[e, here], wait, move, 0.0, self.load_weight)
        go = np.where(view.free_memory_bytes[e, here] < view.session_bytes, np.inf, go)
        e, u, here = e[go < stay], u[go < stay], here[go < stay]
        plans["target"][e, u], plans["medium"][e, u] = here, self.medium
        return plans
