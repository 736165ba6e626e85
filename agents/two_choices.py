"""Two choices: a session lives where its cache is, or where its UE is, whichever costs less (after DualMap).

DualMap maps every request to two servers, one of which holds its cache, and picks by affinity and load. Here the two
are the server that holds the session (affinity) and the UE's cell, or, when a handover is near, the strongest
neighbour that it leads to: the simulator moves a session only to where its UE is or is about to be.
"""

from __future__ import annotations

import numpy as np

from ..envs.sim.state import DETOUR, IDLE, MEDIA
from ..envs.view import NetworkView
from ..errors import require
from .base import label, reactive_plans


def placement_cost(sessions, wait_s, move_s, detour_s, load_weight: float):
    """Cost of a server for one session: what moving there takes, what each step there loses, and its queue.

    Args, floats or arrays:
        sessions: other sessions that live on the server.
        wait_s: until it can start a prefill [s].
        move_s: time to bring the cache there; 0 where it is [s].
        detour_s: delay that forwarding adds to the tokens expected from now on; 0 at the UE's cell [s].
        load_weight: seconds that one more resident session is worth [s].

    Returns:
        Cost [s].

    Source: ours, after DualMap (papers.md, section 6): affinity is `move_s`, load is the rest.
    """
    return move_s + detour_s + wait_s + load_weight * np.asarray(sessions, np.float64)


class TwoChoices:
    """Two-choices placement; nothing is moved at the handover itself unless the new cell is the better choice.

    Args:
        medium: token, kv or split, of a move.
        bits: precision of the transferred KV.
        load_weight: seconds that one more resident session on a server is worth [s].
        ahead_tokens: tokens that a session is expected to produce at its place; each pays the detour [tokens].
        hop_s: delay of a forwarded token (backhaul.hop_s) [s].
    """

    def __init__(self, medium: str = "split", bits: int = 16, load_weight: float = 0.05, ahead_tokens: float = 200.0,
                 hop_s: float = 0.02) -> None:
        require(medium in ("token", "kv", "split"), f"medium is {medium!r}: choose token, kv or split")
        require(bits in (16, 8, 4), f"bits is {bits}: choose 16, 8 or 4")
        for key, value in (("load_weight", load_weight), ("ahead_tokens", ahead_tokens), ("hop_s", hop_s)):
            require(0.0 <= value < np.inf, f"{key} is {value}: it must be finite and not negative")
        self.medium, self.bits, self.load_weight = MEDIA.index(medium), bits, load_weight
        self.detour_s = ahead_tokens * hop_s
        self.name = label("two-choices", medium=(medium, "split"), bits=(bits, 16), load_weight=(load_weight, 0.05),
                          ahead_tokens=(ahead_tokens, 200.0))

    def reset(self, view: NetworkView) -> None:
        """Nothing to remember."""

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        plans = reactive_plans(view, DETOUR, bits=self.bits)
        server, radio = view.server_cell, view.radio_cell
        near = np.isfinite(view.handover_in_s) & (view.handover_cell >= 0)
        place = np.where(near, view.handover_cell, radio)  # where the UE is, or is about to be
        away = place != server
        if not away.any():
            return plans
        e = np.arange(view.num_envs)[:, None]
        homes = np.zeros((view.num_envs, view.num_cells))
        np.add.at(homes, (np.broadcast_to(e, server.shape), server), 1.0)
        wait = view.prefill_wait_s
        egress = view.egress_bps[e, 0] if view.pool else np.minimum(view.egress_bps[e, server],
                                                                    view.ingress_bps[e, place])
        send = view.kv_bits_per_token(self.bits) / egress
        fill = view.prefill_s_per_token[e, place]
        per_token = {"token": fill, "kv": send, "split": fill * send / (fill + send)}[MEDIA[self.medium]]
        move = view.context_tokens * per_token + view.prefill_overhead_s
        queue = (view.egress_queue_bits[e, 0 if view.pool else server]) / egress
        stay = placement_cost(homes[e, server] - 1.0, 0.0, 0.0, self.detour_s, self.load_weight)
        go = placement_cost(homes[e, place], wait[e, place] + queue, move, 0.0, self.load_weight)
        better = away & (go < stay)
        plans["medium"] = np.where(better, self.medium, DETOUR)
        # Left behind: fetch it. A handover to come: the plan takes effect with it.
        fetch = better & (view.phase == IDLE) & (place == radio)
        plans["target"] = np.where(fetch, radio, plans["target"])
        return plans
