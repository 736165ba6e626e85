"""LLM sessions: a prompt is prefilled, the model streams an answer, the user thinks, and so on.

At the end of its script a session is replaced by a new one.

Until the prefill of a prompt is done its tokens are no part of the context. A session that opens has no cache at all:
its prompt is the whole context. What is not done when the session moves begins again where it resumes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .jit import kernel
from .params import ServingConfig, SessionConfig
from .records import NO_JOB, RUNNING, WAITING
from .streams import (
    SESSION_ANSWER,
    SESSION_BEGUN,
    SESSION_CONTEXT,
    SESSION_OFFSET,
    SESSION_PAUSE,
    SESSION_PROMPT,
    SESSION_SCRIPT,
    SESSIONS,
    TURNS_PER_SESSION,
    gamma,
    normal,
    uniform,
)

SHORTEST_PAUSE_S = 1e-3  # so that a step has finitely many turns
NOT_ASKED = -1.0  # the answer in which an episode begins belongs to no request
GAP_S, TOKENS = 0, 1  # columns of the trace


@kernel
def open_session(ue, u, p, keys):
    """Begin the next session of UE `u`; the caller says on which server, and lets it ask or begin in mid-answer."""
    me = ue[u]
    key = keys[SESSIONS]
    draw = uniform(key, u, SESSION_CONTEXT, me.session)
    me.context = p.context_scale * math.floor(p.context_low + draw * (p.context_high - p.context_low + 1.0))
    me.end = p.context_scale * p.context_end
    me.script = int(uniform(key, u, SESSION_SCRIPT, me.session) * p.scripts)
    me.turn = 0
    me.healthy = True
    me.opening, me.prompt = me.session > 0 and p.prompt_median > 0.0, NO_JOB
    me.held = 0.0 if me.opening else me.context
    me.unranked = 0.0


@kernel
def begin_in_the_middle(ue, u, p, trace, keys):
    """The episode begins in the middle of things: caches are there, and some answers are half done."""
    me = ue[u]
    me.requests = 0
    me.asked_s, me.pause_left_s = NOT_ASKED, 0.0
    start_answer(ue, u, p, trace, keys)
    me.answer_left *= uniform(keys[SESSIONS], u, SESSION_BEGUN, 0)


@kernel
def ask(ue, u, p, trace, keys, now_s):
    """The user asks: draw the length of the prompt (log-normal, serving tokens) and queue its prefill."""
    me = ue[u]
    me.asked_s = now_s
    if p.prompt_median <= 0.0:
        start_answer(ue, u, p, trace, keys)
        return
    me.streaming, me.pause_left_s = False, np.inf
    if me.opening:
        me.prompt_tokens = me.context
    else:
        z = normal(keys[SESSIONS], u, SESSION_PROMPT, me.session * TURNS_PER_SESSION + me.turn)
        me.prompt_tokens = min(p.prompt_median * math.exp(p.prompt_sigma * z), 0.5 * (me.end - me.context))
    me.prompt, me.prompt_since_s = WAITING, now_s


@kernel
def finish_prompt(ue, u, p, trace, keys, flow):
    """The prompt of session `u` is in its cache: the answer begins."""
    me = ue[u]
    me.prompt = NO_JOB
    flow[u].prompt_tokens += me.prompt_tokens
    if not me.opening:
        me.context += me.prompt_tokens
    me.held += me.prompt_tokens
    me.unranked += me.prompt_tokens
    me.opening = False
    start_answer(ue, u, p, trace, keys)


@kernel
def interrupt_prompt(ue, u):
    """Session `u` leaves its server: a prefill that runs there for its user is lost and is queued again later."""
    if ue[u].prompt == RUNNING:
        ue[u].prompt = WAITING


@kernel
def trace_row(u, requests, trace, keys):
    """Row of the trace for UE `u` after `requests` requests; every UE starts at an offset of its own."""
    rows = trace.shape[0]
    return (int(uniform(keys[SESSIONS], u, SESSION_OFFSET, 0) * rows) + requests) % rows


@kernel
def start_answer(ue, u, p, trace, keys):
    """Draw the length of the next answer (log-normal, or the trace's; serving tokens) and start to stream it."""
    me = ue[u]
    if trace.shape[0] > 0:
        length = trace[trace_row(u, me.requests, trace, keys), TOKENS]
    else:
        z = normal(keys[SESSIONS], u, SESSION_ANSWER, me.session * TURNS_PER_SESSION + me.turn)
        length = max(1.0, p.answer_median * math.exp(p.answer_sigma * z))
    me.streaming = True
    me.answer_left = min(length, me.end - me.context)
    me.turn += 1
    me.requests += 1
    me.ttft_s = np.inf
    me.answer_tokens = 0.0


@kernel
def start_thinking(ue, u, p, trace, keys):
    """Draw the thinking time of the user (Gamma, or the gap before the trace's next request; seconds)."""
    me = ue[u]
    me.streaming = False
    if trace.shape[0] > 0:
        pause = trace[trace_row(u, me.requests, trace, keys), GAP_S]
    else:
        count = me.session * TURNS_PER_SESSION + me.turn
        pause = p.think_s / p.think_shape * gamma(keys[SESSIONS], u, SESSION_PAUSE, count, p.think_shape)
    me.pause_left_s = max(SHORTEST_PAUSE_S, pause)


def session_params(config: SessionConfig, serving: ServingConfig) -> dict[str, Any]:
    """SESSION_PARAMS of a configuration and the model that answers."""
    return dict(
        context_low=config.context_tokens[0], context_high=config.context_tokens[1], context_end=config.script_tokens,
        context_scale=serving.context_scale, answer_median=config.answer_tokens[0],
        answer_sigma=config.answer_tokens[1], prompt_median=config.prompt_tokens[0],
        prompt_sigma=config.prompt_tokens[1], think_s=config.think_s, think_shape=config.think_shape,
        ttft_objective_s=config.ttft_objective_s, tpot_objective_s=config.tpot_objective_s, scripts=config.scripts,
    )
