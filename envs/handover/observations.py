"""Observations: one row of float32 features per UE, computed from what NetworkView shows.

`features` documents every number (name, meaning, unit, range), and gives the kernel its places in the row.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ..base.declare import Feature, indices
from ..sim.jit import entry, inlined, kernel, parallel_entry
from ..sim.predictor import HORIZON_S
from .view import NetworkView
from .world.engine import BLOCKS
from .world.memory import background
from .world.state import DONE, FOLLOWING, IDLE, INTERRUPTED, KV, NO_JOB, PREPARING, REPAIRING, SPLIT, TOKEN

# A time t is shown as t / (t + 2 s), a number n as n / (n + 2): nothing is cut off, and what is short is shown finely.
HALF_S, HALF = 2.0, 2.0
HALF_TOKENS = 8192.0
URGENCY_S = 0.5
ITERATION_UNIT_S = 0.1
HOPS_UNIT = 4.0


def _own() -> list[Feature]:
    return [
        Feature("streaming", "the model is answering", "0/1", 0, 1),
        Feature("healthy", "the KV cache is whole and exact", "0/1", 0, 1),
        Feature("context", "tokens in the cache / tokens at the end of a script", "1", 0, 1),
        Feature("tokens", "serving tokens in the cache", "n / (n + 8192)", 0, 1),
        Feature("preparing", "a migration is being prepared", "0/1", 0, 1),
        Feature("interrupted", "the session is interrupted", "0/1", 0, 1),
        Feature("detoured", "the session lives on another gNB's server", "0/1", 0, 1),
        Feature("waiting", "the user waits for tokens: an answer streams or is due", "0/1", 0, 1),
        Feature("held", "share of the context's tokens that the cache has", "1", 0, 1),
        Feature("following", "the rest of the cache follows the session", "0/1", 0, 1),
        Feature("repairing", "the cache is being rebuilt where it is", "0/1", 0, 1),
        Feature("hops", "Xn hops to the session's server / 4", "1", 0, 1),
        Feature("forwarding", "Xn hops over which tokens are forwarded / 4; 0: none", "1", 0, 1),
        Feature("server_iteration", "one decode iteration of the session's server", "0.1 s", 0, 1),
        Feature("interrupted_for", "time since service stopped", "t / (t + 2 s)", 0, 1),
        Feature("sinr", "downlink SINR", "30 dB", -1, 2),
        Feature("air", "time on the air of one token / its cap", "1", 0, 1),
        Feature("velocity_x", "smoothed velocity east", "20 m/s", -2, 2),
        Feature("velocity_y", "smoothed velocity north", "20 m/s", -2, 2),
        Feature("speed", "smoothed speed", "20 m/s", 0, 2),
        Feature("urgency", "1 - time to the A3 handover / 0.5 s; 0 when none is near", "1", 0, 1),
        Feature("since_handover", "time since the last change of cell", "10 s", 0, 1),
        Feature("transfer_left", "bits left of the own transfer at the capacity of its links", "t / (t + 2 s)", 0, 1),
        Feature("rest_left", "bits that will follow the own transfer, at the capacity of its links", "t / (t + 2 s)",
                0, 1),
        Feature("prefill_left", "a prefill job of the own migration is not done", "0/1", 0, 1),
        Feature("moves_tokens", "the migration under way rebuilds from token ids", "0/1", 0, 1),
        Feature("moves_kv", "the migration under way sends KV", "0/1", 0, 1),
        Feature("moves_split", "the migration under way does both", "0/1", 0, 1),
        Feature("moving_keep", "share of the tokens that the migration under way keeps", "1", 0, 1),
        Feature("moving_bits", "precision of the migration under way / 16 bit", "1", 0, 1),
        Feature("send_time", "the cache at 16 bit over the source's egress alone", "t / (t + 2 s)", 0, 1),
        Feature("egress_queue", "bits queued at the source at its capacity", "t / (t + 2 s)", 0, 1),
        Feature("sending", "transfers out of the source", "n / (n + 2)", 0, 1),
        Feature("leaving", "others on the source's server who are about to change cell, those near at hand count more",
                "n / (n + 2)", 0, 1),
        Feature("leaving_first", "of those, who will probably change cell before this UE", "n / (n + 2)", 0, 1),
        Feature("movers", "share of the UEs whose session is moving", "1", 0, 1),
        Feature("server_wait", "time until the source's server could start a batch", "t / (t + 2 s)", 0, 1),
        Feature("predicted_in", "1 - predicted time to the next handover / 5 s; 0 when none is predicted", "1", 0, 1),
        Feature("prompting", "the session waits for the prefill of its user's prompt", "0/1", 0, 1),
    ]


def _candidate(k: int) -> list[Feature]:
    who = "own cell, when the session was left behind" if k == 0 else f"strongest neighbour {k}"
    return [
        Feature(f"candidate_{k}_present", f"{who}: exists", "0/1", 0, 1),
        Feature(f"candidate_{k}_margin", f"{who}: filtered RSRP over the serving cell's", "20 dB", -2, 2),
        Feature(f"candidate_{k}_is_next", f"{who}: target of the A3 handover under way", "0/1", 0, 1),
        Feature(f"candidate_{k}_is_target", f"{who}: target of the migration under way", "0/1", 0, 1),
        Feature(f"candidate_{k}_prefill", f"{who}: prefill of the whole context", "t / (t + 2 s)", 0, 1),
        Feature(f"candidate_{k}_wait", f"{who}: time until its server could start a batch", "t / (t + 2 s)", 0, 1),
        Feature(f"candidate_{k}_receive_time", f"{who}: the cache at 16 bit over its ingress alone", "t / (t + 2 s)", 0,
                1),
        Feature(f"candidate_{k}_ingress_queue", f"{who}: bits queued towards it at its capacity", "t / (t + 2 s)", 0,
                1),
        Feature(f"candidate_{k}_receiving", f"{who}: transfers towards it", "n / (n + 2)", 0, 1),
        Feature(f"candidate_{k}_arriving",
                f"{who}: others who are about to change to it, those near at hand count more", "n / (n + 2)", 0, 1),
        Feature(f"candidate_{k}_load", f"{who}: share of its radio resources in use", "1", 0, 1),
        Feature(f"candidate_{k}_is_predicted", f"{who}: predicted next cell", "0/1", 0, 1),
        Feature(f"candidate_{k}_iteration", f"{who}: one decode iteration of its server", "0.1 s", 0, 1),
        Feature(f"candidate_{k}_memory", f"{who}: share of its server's memory that is free", "1", 0, 1),
    ]


# Where a kernel writes each number: in the own part, and within the part of each candidate.
OWN = indices("Own", (feature.name for feature in _own()))
SLOT = indices("Slot", (feature.name.removeprefix("candidate_0_") for feature in _candidate(0)))


def features(candidates: int) -> tuple[Feature, ...]:
    """Every number of the observation row, in order, with so many neighbours as candidates."""
    return (*_own(), *(feature for k in range(candidates + 1) for feature in _candidate(k)))


def observe(view: NetworkView) -> np.ndarray:
    """Observations of all UEs, float32 [E, U, len(features)], a fresh array each call."""
    slots = view.candidates.shape[2]
    out = np.empty((view.num_envs, view.num_ues, len(OWN) + slots * len(SLOT)), np.float32)
    write = _observe_parallel if view.sim.parallel() else _observe
    blocks = BLOCKS if write is _observe_parallel else 1
    write(0, view.num_envs, view.sim.state, view.sim.params,
          (view.candidates, view.margin_db, view.prefill_wait_s, view.egress_queue_bits, view.ingress_queue_bits,
           view.free_memory_bytes, view.iteration_s, *view.known[:2]), view.sim.tables.hops,
          np.empty((blocks, 4, view.num_cells)), out)
    return out


@kernel
def _share(value, unit):
    return min(max(value / unit, 0.0), 1.0)


@kernel
def grown(value, half):
    """0 for nothing, 1/2 for `half`, towards 1 for much."""
    return value / (value + half) if value < np.inf else 1.0


@kernel
def _nearness(me, now, predicted_s):
    """How near at hand a UE's change of cell is: 1 when event A3 has announced it, falling to 0 at the horizon."""
    if me.fire_s < np.inf:
        return 1.0
    return 1.0 - _share(max(predicted_s - now, 0.0), HORIZON_S)


@kernel
def _count_neighbours(ue, pool, now, predicted_cell, predicted_s, counts):
    """Who is on, or about to use, each cell's links, written into `counts` [4, C].

    Transfers out and in; those who are about to leave and to arrive, by how near at hand that is.
    """
    counts[:] = 0.0
    for u in range(ue.shape[0]):
        me = ue[u]
        if me.phase != IDLE and me.bits_left > 0.0:
            counts[0, 0 if pool == 1 else me.origin] += 1.0
            counts[1, 0 if pool == 1 else me.target] += 1.0
        target = me.fire_cell if me.fire_s < np.inf else predicted_cell[u]
        if target >= 0:
            near = _nearness(me, now, predicted_s[u])
            counts[2, 0 if pool == 1 else me.server] += near
            counts[3, 0 if pool == 1 else target] += near


@entry
def _observe(first, last, state, params, seen, hops, counts, out):
    for e in range(first, last):
        _observe_one(e, state, params, seen, hops, counts[0], out)


@parallel_entry
def _observe_parallel(first, last, state, params, seen, hops, counts, out):
    blocks = min(last - first, BLOCKS)
    for b in nb.prange(blocks):
        _observe(first + (last - first) * b // blocks, first + (last - first) * (b + 1) // blocks, state, params, seen,
                 hops, counts[b:b + 1], out)


@inlined
def _observe_one(e, state, params, seen, hops, counts, out):
    (candidates, margin_db, wait_s, egress_queue, ingress_queue, free_memory, iteration_s, predicted_cell,
     predicted_s) = seen
    p = params[0]
    ue, cell, now = state.ue[e], state.cell[e], state.world[e].time_s
    movers = 0
    for u in range(ue.shape[0]):
        movers += ue[u].phase != IDLE
    _count_neighbours(ue, p.pool, now, predicted_cell[e], predicted_s[e], counts)
    for u in range(ue.shape[0]):
        me, row = ue[u], out[e, u]
        source = 0 if p.pool == 1 else me.server
        mine_s = min(me.fire_s, predicted_s[e, u])
        near = _nearness(me, now, predicted_s[e, u]) if mine_s < np.inf else 0.0
        goes_on = background(me)
        moving = me.phase != IDLE
        whole = me.held * p.kv_bits_16
        row[OWN.streaming] = me.streaming
        row[OWN.healthy] = me.healthy
        row[OWN.context] = _share(me.context, me.end)
        row[OWN.tokens] = grown(me.context, HALF_TOKENS)
        row[OWN.preparing] = me.phase == PREPARING
        row[OWN.interrupted] = me.phase == INTERRUPTED
        row[OWN.detoured] = me.server != me.radio
        row[OWN.waiting] = me.streaming or me.prompt != NO_JOB
        row[OWN.held] = _share(me.held, me.context)
        row[OWN.following] = goes_on == FOLLOWING
        row[OWN.repairing] = goes_on == REPAIRING
        row[OWN.hops] = _share(hops[me.server, me.radio], HOPS_UNIT)
        row[OWN.forwarding] = _share(p.forwarding, HOPS_UNIT)
        row[OWN.server_iteration] = _share(iteration_s[e, me.server], ITERATION_UNIT_S)
        row[OWN.interrupted_for] = grown(now - me.handover_s, HALF_S) if me.phase == INTERRUPTED else 0.0
        row[OWN.sinr] = min(max(me.sinr_db / 30.0, -1.0), 2.0)
        row[OWN.air] = _share(me.air_s, p.max_air_s) if p.max_air_s > 0.0 else 0.0
        row[OWN.velocity_x] = min(max(me.vx / 20.0, -2.0), 2.0)
        row[OWN.velocity_y] = min(max(me.vy / 20.0, -2.0), 2.0)
        row[OWN.speed] = min(np.sqrt(me.vx * me.vx + me.vy * me.vy) / 20.0, 2.0)
        row[OWN.urgency] = 1.0 - _share(me.fire_s - now, URGENCY_S)
        row[OWN.since_handover] = _share(now - me.since_s, 10.0)
        bottleneck = cell[source].egress_bps
        if p.pool == 0:
            bottleneck = min(bottleneck, cell[me.target].ingress_bps)
        row[OWN.transfer_left] = grown(me.bits_left / bottleneck, HALF_S) if moving else 0.0
        row[OWN.rest_left] = grown(me.rest_bits / bottleneck, HALF_S) if moving else 0.0
        row[OWN.prefill_left] = moving and me.job != NO_JOB and me.job != DONE
        row[OWN.moves_tokens] = moving and me.medium == TOKEN
        row[OWN.moves_kv] = moving and me.medium == KV
        row[OWN.moves_split] = moving and me.medium == SPLIT
        row[OWN.moving_keep] = me.keep if moving else 0.0
        row[OWN.moving_bits] = me.bits / 16.0 if moving else 0.0
        row[OWN.send_time] = grown(whole / cell[source].egress_bps, HALF_S)
        row[OWN.egress_queue] = grown(egress_queue[e, source] / cell[source].egress_bps, HALF_S)
        row[OWN.sending] = grown(counts[0, source], HALF)
        row[OWN.leaving] = grown(max(counts[2, source] - near, 0.0), HALF)
        first = 0.0
        for v in range(ue.shape[0]):
            its_s = min(ue[v].fire_s, predicted_s[e, v])
            if (its_s < mine_s or (its_s == mine_s and v < u)) and (p.pool == 1 or ue[v].server == me.server):
                first += 1.0
        row[OWN.leaving_first] = grown(first, HALF) if mine_s < np.inf else 0.0
        row[OWN.movers] = movers / ue.shape[0]
        row[OWN.server_wait] = grown(wait_s[e, me.server], HALF_S)
        row[OWN.predicted_in] = 1.0 - _share(max(predicted_s[e, u] - now, 0.0), HORIZON_S)
        row[OWN.prompting] = me.prompt != NO_JOB
        for k in range(candidates.shape[2]):
            c, at = candidates[e, u, k], len(OWN) + k * len(SLOT)
            if c < 0:
                row[at:at + len(SLOT)] = 0.0
                continue
            sink = 0 if p.pool == 1 else c
            row[at + SLOT.present] = 1.0
            row[at + SLOT.margin] = min(max(margin_db[e, u, k] / 20.0, -2.0), 2.0)
            row[at + SLOT.is_next] = c == me.fire_cell
            row[at + SLOT.is_target] = moving and c == me.target
            row[at + SLOT.prefill] = grown(p.prefill_a * me.context / cell[c].speed + p.prefill_b, HALF_S)
            row[at + SLOT.wait] = grown(wait_s[e, c], HALF_S)
            row[at + SLOT.receive_time] = grown(whole / cell[sink].ingress_bps, HALF_S)
            row[at + SLOT.ingress_queue] = grown(ingress_queue[e, c] / cell[c].ingress_bps, HALF_S)
            row[at + SLOT.receiving] = grown(counts[1, sink], HALF)
            target = me.fire_cell if me.fire_s < np.inf else predicted_cell[e, u]
            row[at + SLOT.arriving] = grown(max(counts[3, sink] - (near if p.pool == 1 or target == c else 0.0), 0.0),
                                             HALF)
            row[at + SLOT.load] = cell[c].load
            row[at + SLOT.is_predicted] = c == predicted_cell[e, u]
            row[at + SLOT.iteration] = _share(iteration_s[e, c], ITERATION_UNIT_S)
            row[at + SLOT.memory] = _share(free_memory[e, c], cell[c].memory_bytes)
