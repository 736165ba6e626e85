"""Edge servers: prefill jobs of one gNB, of migrations and of prompts, run in batches that start on a cycle."""

from __future__ import annotations

import math

import numpy as np

from .jit import borrowing
from .sessions import finish_prompt, prompt_waits
from .state import DONE, RUNNING, WAITING

IDLE_SERVER = -np.inf


@borrowing
def next_cycle(now_s, cycle_s):
    """The first instant of the scheduling cycle that is not before `now_s` [s]."""
    return max(now_s, math.ceil(now_s / cycle_s - 1e-9) * cycle_s)


@borrowing
def prefill_time(tokens, p, speed):
    """p(L) = a L + b of a batch padded to `tokens` (arXiv 2603.28018, eq. 3), on a server of relative `speed` [s]."""
    return p.prefill_a * tokens / speed + p.prefill_b


@borrowing
def joins(me, c, now_s):
    """Whether the migration of a session (a UE record) puts a job into a batch that server `c` starts now."""
    return me.job == WAITING and me.target == c and me.start_s <= now_s


@borrowing
def start_batch(ue, cell, c, p, now_s, flow):
    """Start every waiting job of server `c` as one batch; its GPU time is shared among the jobs by tokens."""
    longest, total = 0.0, 0.0
    for u in range(ue.shape[0]):
        if joins(ue[u], c, now_s):
            longest = max(longest, ue[u].prefix)
            total += ue[u].prefix
        if ue[u].server == c and prompt_waits(ue[u]):
            longest = max(longest, ue[u].prompt_tokens)
            total += ue[u].prompt_tokens
    duration = prefill_time(longest, p, cell[c].speed)
    for u in range(ue.shape[0]):
        me = ue[u]
        if joins(me, c, now_s):
            me.job = RUNNING
            me.job_s = duration * me.prefix / total
            flow[u].gpu_s += me.job_s
        if me.server == c and prompt_waits(me):
            me.prompt = RUNNING
            flow[u].prompt_gpu_s += duration * me.prompt_tokens / total
    cell[c].busy_until = now_s + duration


@borrowing
def finish_batch(ue, cell, c, p, trace, keys, flow):
    """Mark the running jobs of server `c` as done; the server is idle."""
    cell[c].busy_until = IDLE_SERVER
    for u in range(ue.shape[0]):
        if ue[u].job == RUNNING and ue[u].target == c:
            ue[u].job = DONE
        if ue[u].prompt == RUNNING and ue[u].server == c:
            finish_prompt(ue, u, p, trace, keys, flow)
