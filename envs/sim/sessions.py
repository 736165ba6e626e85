"""LLM sessions: a prompt is prefilled, the model streams an answer, the user thinks, and so on.

At the end of its script a session is replaced by a new one.

Until the prefill of a prompt is done its tokens are no part of the context. A session that opens has no cache at all:
its prompt is the whole context. What is not done when the session moves begins again where it resumes.
"""

from __future__ import annotations

import math

import numpy as np

from . import chunked, memory
from .jit import borrowing
from .state import IDLE, INTERRUPTED, NO_JOB, RUNNING, WAITING
from .streams import SESSIONS, gamma, normal, uniform

_CONTEXT, _SCRIPT, _ANSWER, _THINK, _START, _PROMPT, _OFFSET = range(7)
SHORTEST_PAUSE_S = 1e-3  # so that a step has finitely many turns
NOT_ASKED = -1.0  # the answer in which an episode begins belongs to no request
GAP_S, TOKENS = 0, 1  # columns of the trace
_PER_SESSION = 1000  # addresses of the turns of one session


@borrowing
def open_session(ue, u, cell, p, keys):
    """Place the next session of UE `u` at the server of its present cell, or at the one with the most room.

    The caller lets it ask, or begin in the middle of an answer.
    """
    me = ue[u]
    key = keys[SESSIONS]
    draw = uniform(key, u, _CONTEXT, me.session)
    me.context = p.context_scale * math.floor(p.context_low + draw * (p.context_high - p.context_low + 1.0))
    me.end = p.context_scale * p.context_end
    me.script = int(uniform(key, u, _SCRIPT, me.session) * p.scripts)
    me.turn = 0
    me.server, me.phase = -1, IDLE
    me.server = me.radio if memory.has_room(ue, cell, me.radio, p) else memory.roomiest(ue, cell, p)
    me.healthy = True
    me.opening, me.prompt = me.session > 0 and p.prompt_median > 0.0, NO_JOB


@borrowing
def begin_in_the_middle(ue, u, p, trace, keys):
    """The episode begins in the middle of things: caches are there, and some answers are half done."""
    me = ue[u]
    me.requests = 0
    me.asked_s = NOT_ASKED
    start_answer(ue, u, p, trace, keys)
    me.left *= uniform(keys[SESSIONS], u, _START, 0)


@borrowing
def ask(ue, u, p, trace, keys, now_s):
    """The user asks: draw the length of the prompt (log-normal, serving tokens) and queue its prefill."""
    me = ue[u]
    me.asked_s = now_s
    if p.prompt_median <= 0.0:
        start_answer(ue, u, p, trace, keys)
        return
    me.streaming, me.left = False, np.inf
    if me.opening:
        me.prompt_tokens = me.context
    else:
        z = normal(keys[SESSIONS], u, _PROMPT, me.session * _PER_SESSION + me.turn)
        me.prompt_tokens = min(p.prompt_median * math.exp(p.prompt_sigma * z), 0.5 * (me.end - me.context))
    me.prompt, me.prompt_since_s = WAITING, now_s


@borrowing
def finish_prompt(ue, u, p, trace, keys, flow):
    """The prompt of session `u` is in its cache: the answer begins."""
    me = ue[u]
    me.prompt = NO_JOB
    flow[u].prompt_tokens += me.prompt_tokens
    if not me.opening:
        me.context += me.prompt_tokens
    me.opening = False
    start_answer(ue, u, p, trace, keys)


@borrowing
def interrupt_prompt(ue, u):
    """Session `u` leaves its server: a prefill that runs there for its user was in vain and is queued again later."""
    if ue[u].prompt == RUNNING:
        ue[u].prompt = WAITING


@borrowing
def prompt_waits(me):
    """Whether the server of this session (a UE record) could start on its prompt; nobody asks while out of reach."""
    return me.prompt == WAITING and me.phase != INTERRUPTED


@borrowing
def trace_row(u, requests, trace, keys):
    """Row of the trace for the so-manieth request of UE `u`, which starts at an offset of its own."""
    rows = trace.shape[0]
    return (int(uniform(keys[SESSIONS], u, _OFFSET, 0) * rows) + requests) % rows


@borrowing
def start_answer(ue, u, p, trace, keys):
    """Draw the length of the next answer (log-normal, or the trace's; serving tokens) and start to stream it."""
    me = ue[u]
    if trace.shape[0] > 0:
        length = trace[trace_row(u, me.requests, trace, keys), TOKENS]
    else:
        z = normal(keys[SESSIONS], u, _ANSWER, me.session * _PER_SESSION + me.turn)
        length = max(1.0, p.answer_median * math.exp(p.answer_sigma * z))
    me.streaming = True
    me.left = min(length, me.end - me.context)
    me.turn += 1
    me.requests += 1
    me.ttft_s = np.inf
    me.answer_tokens = me.answer_s = 0.0


@borrowing
def start_thinking(ue, u, p, trace, keys):
    """Draw the thinking time of the user (Gamma, or the gap before the trace's next request; seconds)."""
    me = ue[u]
    me.streaming = False
    if trace.shape[0] > 0:
        pause = trace[trace_row(u, me.requests, trace, keys), GAP_S]
    else:
        count = me.session * _PER_SESSION + me.turn
        pause = p.think_s / p.think_shape * gamma(keys[SESSIONS], u, _THINK, count, p.think_shape)
    me.left = max(SHORTEST_PAUSE_S, pause)


@borrowing
def decode_rate(ue, u, p, cell, now_s, head):
    """Tokens per second that UE `u` produces now: 0 when thinking or interrupted, less while its server prefills."""
    me = ue[u]
    if not me.streaming or me.phase == INTERRUPTED:
        return 0.0
    if p.chunked == 1 and head[me.server] >= 0:
        return 1.0 / (1.0 / p.decode_rate + chunked.chunk_s(ue, head[me.server], p, cell[me.server].speed))
    busy = cell[me.server].busy_until > now_s
    return p.decode_rate * (1.0 - p.decode_slowdown) if busy else p.decode_rate
