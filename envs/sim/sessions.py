"""LLM sessions: the model streams an answer, the user thinks, the next answer begins; at the end of its script a
session is replaced by a new one."""

from __future__ import annotations

import math

import numba as nb

from .state import IDLE, INTERRUPTED
from .streams import SESSIONS, normal, uniform

_CONTEXT, _SCRIPT, _ANSWER, _THINK, _START = range(5)
SHORTEST_PAUSE_S = 1e-3  # so that a step has finitely many turns
_PER_SESSION = 1000  # addresses of the turns of one session


@nb.njit(cache=True)
def open_session(ue, u, p, keys):
    """Begin the next session of UE `u` at the server of its present cell, with a whole cache."""
    me = ue[u]
    key = keys[SESSIONS]
    draw = uniform(key, u, _CONTEXT, me.session)
    me.context = p.context_scale * math.floor(p.context_low + draw * (p.context_high - p.context_low + 1.0))
    me.end = p.context_scale * p.context_end
    me.script = int(uniform(key, u, _SCRIPT, me.session) * p.scripts)
    me.turn = 0
    me.server = me.radio
    me.phase = IDLE
    me.healthy = True
    start_answer(ue, u, p, keys)
    if me.session == 0:
        # The episode begins in the middle of things: some answers are half done.
        me.left *= uniform(key, u, _START, 0)


@nb.njit(cache=True)
def start_answer(ue, u, p, keys):
    """Draw the length of the next answer (log-normal, serving tokens) and start to stream it."""
    me = ue[u]
    z = normal(keys[SESSIONS], u, _ANSWER, me.session * _PER_SESSION + me.turn)
    me.streaming = True
    me.left = min(max(1.0, p.answer_median * math.exp(p.answer_sigma * z)), me.end - me.context)
    me.turn += 1


@nb.njit(cache=True)
def start_thinking(ue, u, p, keys):
    """Draw the thinking time of the user (exponential, seconds)."""
    me = ue[u]
    me.streaming = False
    draw = uniform(keys[SESSIONS], u, _THINK, me.session * _PER_SESSION + me.turn)
    me.left = max(SHORTEST_PAUSE_S, -p.think_s * math.log(draw))


@nb.njit(cache=True)
def decode_rate(ue, u, p, cell, now_s):
    """Tokens per second that UE `u` produces now: 0 when thinking or interrupted, less while its server prefills."""
    me = ue[u]
    if not me.streaming or me.phase == INTERRUPTED:
        return 0.0
    busy = cell[me.server].busy_until > now_s
    return p.decode_rate * (1.0 - p.decode_slowdown) if busy else p.decode_rate
