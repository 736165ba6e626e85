"""Chunked prefill: a server works on one job at a time, first come, first served, chunk by chunk between decode steps.

While sessions decode at the server, an iteration is one decode step of all of them and one chunk, so both go on at one
per (decode iteration + chunk time). Work is a fluid: a chunk's time is the mean over its job, so that a job of n
chunks takes exactly n iterations. Unlike a batch, a job that is cancelled leaves at once.

Source: the schedule is that of Sarathi-Serve (arXiv 2403.02310); the fluid model of its duration is ours.
"""

from __future__ import annotations

import numpy as np

from ...sim.compute import chunks, work_s
from ...sim.jit import kernel
from .batches import prompt_waits
from .state import RUNNING, WAITING


@kernel
def job_tokens(ue, job):
    """Tokens of a job: numbers below U are migrations to their target, u + U the prompt of UE u at its server."""
    ues = ue.shape[0]
    return ue[job].prefix if job < ues else ue[job - ues].prompt_tokens


@kernel
def chunk_s(ue, job, p, speed):
    """Mean GPU time of one chunk of a job [s]."""
    tokens = job_tokens(ue, job)
    return work_s(tokens, p, speed) / chunks(tokens, p)


@kernel
def serve(ue, cell, p, now_s, iteration_s, head, share, since):
    """Which job every server works on, int64 [C] `head` (-1: none), at which share of its time, float64 [C] `share`.

    `iteration_s` is the decode iteration of every server, float64 [C]; `since` is scratch, float64 [C].
    """
    ues = ue.shape[0]
    since[:] = np.inf
    head[:] = -1
    share[:] = 1.0
    for u in range(ues):
        me = ue[u]
        if me.job == RUNNING:
            head[me.target], since[me.target] = u, -np.inf
        elif me.job == WAITING and me.start_s <= now_s and me.job_since_s < since[me.target]:
            head[me.target], since[me.target] = u, me.job_since_s
        if me.prompt == RUNNING:
            head[me.server], since[me.server] = u + ues, -np.inf
        elif prompt_waits(me) and me.prompt_since_s < since[me.server]:
            head[me.server], since[me.server] = u + ues, me.prompt_since_s
    for c in range(cell.shape[0]):
        job = head[c]
        if job < 0:
            continue
        work = work_s(job_tokens(ue, job), p, cell[c].speed)
        if job < ues and ue[job].job == WAITING:
            ue[job].job, ue[job].job_left_s = RUNNING, work
        elif job >= ues and ue[job - ues].prompt == WAITING:
            ue[job - ues].prompt, ue[job - ues].prompt_left_s = RUNNING, work
    for u in range(ues):
        me = ue[u]
        if me.active and head[me.server] >= 0 and share[me.server] == 1.0:
            chunk = chunk_s(ue, head[me.server], p, cell[me.server].speed)
            share[me.server] = chunk / (chunk + iteration_s[me.server])


@kernel
def left_s(ue, job):
    """GPU time that a job which runs still needs [s]."""
    ues = ue.shape[0]
    return ue[job].job_left_s if job < ues else ue[job - ues].prompt_left_s


@kernel
def work_on(ue, job, seconds, flow):
    """Spend GPU time on a job that runs."""
    ues = ue.shape[0]
    if job < ues:
        done = min(ue[job].job_left_s, seconds)
        ue[job].job_left_s -= done
        ue[job].job_s += done
        flow[job].gpu_s += done
    else:
        done = min(ue[job - ues].prompt_left_s, seconds)
        ue[job - ues].prompt_left_s -= done
        flow[job - ues].prompt_gpu_s += done


@kernel
def queue_s(ue, cell, c, p):
    """GPU time of all jobs that server `c` has before it [s]."""
    total = 0.0
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.target == c and me.job == RUNNING:
            total += me.job_left_s
        elif me.target == c and me.job == WAITING:
            total += work_s(me.prefix, p, cell[c].speed)
        if me.server == c and me.prompt == RUNNING:
            total += me.prompt_left_s
        elif me.server == c and prompt_waits(me):
            total += work_s(me.prompt_tokens, p, cell[c].speed)
    return total
