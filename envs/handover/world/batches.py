"""Prefill in batches: the jobs of migrations to a gNB and of the prompts at it, started together on a cycle."""

from __future__ import annotations

from ...sim.compute import IDLE_SERVER, prefill_time
from ...sim.jit import kernel
from ...sim.sessions import finish_prompt
from .state import DONE, INTERRUPTED, RUNNING, WAITING


@kernel
def joins(me, c, now_s):
    """Whether the migration of a session (a UE record) puts a job into a batch that server `c` starts now."""
    return me.job == WAITING and me.target == c and me.start_s <= now_s


@kernel
def prompt_waits(me):
    """Whether the server of this session (a UE record) could start on its prompt; nobody asks while out of reach."""
    return me.prompt == WAITING and me.phase != INTERRUPTED


@kernel
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
            share = duration * me.prefix / total
            me.job_s += share  # a repair takes several jobs
            flow[u].gpu_s += share
        if me.server == c and prompt_waits(me):
            me.prompt = RUNNING
            flow[u].prompt_gpu_s += duration * me.prompt_tokens / total
    cell[c].busy_until = now_s + duration


@kernel
def finish_batch(ue, cell, c, p, trace, keys, flow):
    """Mark the running jobs of server `c` as done; the server is idle."""
    cell[c].busy_until = IDLE_SERVER
    for u in range(ue.shape[0]):
        if ue[u].job == RUNNING and ue[u].target == c:
            ue[u].job = DONE
        if ue[u].prompt == RUNNING and ue[u].server == c:
            finish_prompt(ue, u, p, trace, keys, flow)
