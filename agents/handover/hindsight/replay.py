"""Plan books, followed in the real simulator: from any step of an episode that was recorded, for any number of steps.

A tape holds what the simulator was at the start of every step, so that to try another option for one handover only the
steps are simulated in which it makes a difference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ....envs.handover.harm.charges import HarmTable, follow_caches
from ....envs.handover.rewards import write_amounts
from ....envs.handover.world import engine
from ....envs.handover.world.state import (
    CONTINUE,
    DETOUR,
    IDLE,
    INTERRUPTED,
    WAIT,
    State,
    Tables,
)
from ....envs.handover.world.state import STAY as NO_HANDOVER
from ....envs.sim.jit import entry, kernel
from .book import ARRIVAL, BACKFILL, BITS, FETCH, KEEP, MEDIUM, REPAIR, WEIGHT, WHEN
from .calendar import Calendar

_SAME_BITS = 1e5  # transfers that differ by less have the same left to send


class Tape(NamedTuple):
    """An episode of S steps under one book: what was there at the start of every step."""

    ue: np.ndarray  # UE [S + 1, U]
    cell: np.ndarray  # CELL [S + 1, C]
    world: np.ndarray  # WORLD [S + 1]
    rsrp_dbm: np.ndarray  # [S + 1, U, C]
    a3_since_s: np.ndarray  # [S + 1, U, C]
    rate: np.ndarray  # of the harm [S + 1, U] [price per measured token]
    spent: np.ndarray  # avoidable cost up to there [S + 1]
    floor: np.ndarray  # the other cost up to there [S + 1]
    read: np.ndarray  # measured tokens read up to there [S + 1, U]
    share: np.ndarray  # the step took every rate r to share * max(r, least) [S + 1, U]
    least: np.ndarray  # [S + 1, U]


class Rules(NamedTuple):
    """What stays the same in an episode: the world, its prices, and the calendar."""

    params: np.ndarray
    tables: Tables
    calendar: Calendar
    levels: np.ndarray  # book.LEVELS
    prices: np.ndarray  # [T]
    harm: HarmTable
    floor: float  # price of a second that nobody can avoid


class Desk(NamedTuple):
    """Working memory: one environment, its plans, and what a step costs."""

    state: State
    scratch: engine.Scratch
    plan: np.ndarray  # PLAN [1, U]
    at: np.ndarray  # [U]
    rate: np.ndarray
    harm: np.ndarray
    share: np.ndarray
    least: np.ndarray
    nothing: np.ndarray  # zeros: harm is priced on its own
    amounts: np.ndarray  # [U, T]


@kernel
def write_plans(step, interval_s, look_s, ue, book, levels, when: Calendar, plan):
    """The plans of one environment for a step, as its book says, PLAN [U].

    The option of the next change is in force from its lead time on, or from the interval of the change itself; before
    that, and as long as the last change interrupts the session, the option of the last change is. With `look_s` above 0
    [s] everything is in force so much earlier, for plans that are held until the next decision.
    """
    for u in range(ue.shape[0]):
        it, nxt = plan[u], when.coming[step, u]
        it.target, it.medium, it.keep, it.bits, it.weight = CONTINUE, DETOUR, 1.0, 16, 1.0
        it.prefix, it.prefill_delay_s, it.handover = -1, 0.0, NO_HANDOVER
        it.backfill, it.arrival, it.repair = 0.0, WAIT, 0
        k, ahead = nxt - 1, False
        if nxt < when.changes[u]:
            lead_s = levels[WHEN, book[u, nxt, WHEN]]
            begins_s = when.time_s[u, nxt] - max(lead_s, 0.0) - look_s
            begun = (lead_s > 0.0 or look_s > 0.0) and begins_s < (step + 1) * interval_s
            if when.step[u, nxt] == step or (begun and ue[u].phase != INTERRUPTED):
                k, ahead = nxt, True
        if k < 0:
            continue
        row = book[u, k]
        lead_s = levels[WHEN, row[WHEN]]
        it.weight, it.backfill = levels[WEIGHT, row[WEIGHT]], levels[BACKFILL, row[BACKFILL]]
        it.arrival = np.int32(levels[ARRIVAL, row[ARRIVAL]])
        it.keep, it.bits = levels[KEEP, row[KEEP]], np.int32(levels[BITS, row[BITS]])
        if ahead:
            it.medium = DETOUR if lead_s < 0.0 else np.int32(levels[MEDIUM, row[MEDIUM]])
            if lead_s > 0.0:
                it.target = when.cell[u, k]
        elif lead_s == FETCH and ue[u].server != ue[u].radio:
            it.medium, it.target = np.int32(levels[MEDIUM, row[MEDIUM]]), ue[u].radio
        elif ue[u].phase == IDLE and not ue[u].healthy:
            it.repair = np.int32(levels[REPAIR, row[REPAIR]])


@kernel
def load(tape: Tape, step, desk: Desk):
    """Put the simulator where the tape was at the start of a step."""
    state = desk.state
    state.world[0] = tape.world[step]
    for c in range(state.cell.shape[1]):
        state.cell[0, c] = tape.cell[step, c]
    for u in range(state.ue.shape[1]):
        state.ue[0, u] = tape.ue[step, u]
        desk.rate[u] = tape.rate[step, u]
        desk.at[u] = tape.ue[step, u].context
        for c in range(state.cell.shape[1]):
            state.rsrp_dbm[0, u, c] = tape.rsrp_dbm[step, u, c]
            state.a3_since_s[0, u, c] = tape.a3_since_s[step, u, c]


@kernel
def record(tape: Tape, step, desk: Desk):
    """Write down where the simulator is at the start of a step."""
    state = desk.state
    tape.world[step] = state.world[0]
    for c in range(state.cell.shape[1]):
        tape.cell[step, c] = state.cell[0, c]
    for u in range(state.ue.shape[1]):
        tape.ue[step, u] = state.ue[0, u]
        tape.rate[step, u] = desk.rate[u]
        for c in range(state.cell.shape[1]):
            tape.rsrp_dbm[step, u, c] = state.rsrp_dbm[0, u, c]
            tape.a3_since_s[step, u, c] = state.a3_since_s[0, u, c]


@kernel
def advance(step, book, rules: Rules, desk: Desk):
    """One step under a book; returns what it costs, mean over the UEs: what could be avoided, and the rest."""
    state, p = desk.state, rules.params[0]
    ue = state.ue[0]
    write_plans(step, p.dt, 0.0, ue, book, rules.levels, rules.calendar, desk.plan[0])
    engine.advance(0, 1, state, desk.plan, rules.params, rules.tables, desk.scratch)
    follow_caches(ue, state.event[0], state.world[0].events, rules.harm, p.context_scale, desk.at, desk.rate,
                  desk.harm, desk.share, desk.least)
    write_amounts(state.flow[0], desk.nothing, desk.nothing, desk.amounts)
    cost, floor = 0.0, 0.0
    for u in range(ue.shape[0]):
        cost += desk.harm[u]
        floor += rules.floor * state.flow[0, u].unavoidable_s
        for term in range(rules.prices.shape[0]):
            cost += rules.prices[term] * desk.amounts[u, term]
    return (cost - floor) / ue.shape[0], floor / ue.shape[0]


@entry
def play(first, book, rules: Rules, desk: Desk, tape: Tape):
    """Follow a book to the end of the episode from where the simulator is, the start of step `first`, and record."""
    steps = tape.spent.shape[0] - 1
    if first == 0:
        tape.spent[0] = tape.floor[0] = 0.0
        tape.read[0] = 0.0
    record(tape, first, desk)
    for step in range(first, steps):
        cost, floor = advance(step, book, rules, desk)
        record(tape, step + 1, desk)
        tape.spent[step + 1], tape.floor[step + 1] = tape.spent[step] + cost, tape.floor[step] + floor
        for u in range(desk.rate.shape[0]):
            # A session that opened has no drift, so that the jump back does not count.
            more = max(0.0, tape.ue[step + 1, u].context - tape.ue[step, u].context)
            tape.read[step + 1, u] = tape.read[step, u] + more / rules.params[0].context_scale
            tape.share[step, u], tape.least[step, u] = desk.share[u], desk.least[u]


@entry
def branch(first, book, rules: Rules, desk: Desk, tape: Tape, onto: Tape):
    """`play` from the start of step `first` of a tape, recorded onto another one that is the same up to there."""
    load(tape, first, desk)
    onto.spent[first], onto.floor[first] = tape.spent[first], tape.floor[first]
    for u in range(desk.rate.shape[0]):
        onto.read[first, u] = tape.read[first, u]
    play(first, book, rules, desk, onto)


@entry
def copy_from(first, tape: Tape, onto: Tape):
    """Copy a tape onto another one, from step `first` on."""
    for step in range(first, tape.spent.shape[0]):
        onto.world[step], onto.spent[step], onto.floor[step] = tape.world[step], tape.spent[step], tape.floor[step]
        for c in range(tape.cell.shape[1]):
            onto.cell[step, c] = tape.cell[step, c]
        for u in range(tape.ue.shape[1]):
            onto.ue[step, u] = tape.ue[step, u]
            onto.rate[step, u], onto.read[step, u] = tape.rate[step, u], tape.read[step, u]
            onto.share[step, u], onto.least[step, u] = tape.share[step, u], tape.least[step, u]
            for c in range(tape.cell.shape[1]):
                onto.rsrp_dbm[step, u, c] = tape.rsrp_dbm[step, u, c]
                onto.a3_since_s[step, u, c] = tape.a3_since_s[step, u, c]


@kernel
def back_in_step(tape: Tape, step, desk: Desk):
    """Whether the sessions are where they were on the tape: nothing goes on that did not go on there."""
    for u in range(tape.ue.shape[1]):
        was, now = tape.ue[step, u], desk.state.ue[0, u]
        if (now.phase != was.phase or now.server != was.server or now.target != was.target or now.job != was.job
                or abs(now.bits_left - was.bits_left) > _SAME_BITS):
            return False
        if now.phase != IDLE and (now.medium != was.medium or now.keep != was.keep or now.bits != was.bits
                                  or now.then != was.then):
            return False
    return True


@kernel
def drift_to_come(tape: Tape, step, u, rate):
    """What the cache of UE `u` would still cost after `step` if it cost `rate` per token there."""
    total, last = 0.0, tape.spent.shape[0] - 1
    for later in range(step, last):
        if tape.share[later, u] != 1.0 or tape.least[later, u] > 0.0:
            rate = tape.share[later, u] * max(rate, tape.least[later, u])
        if rate == 0.0:
            break
        total += rate * (tape.read[later + 1, u] - tape.read[later, u])
    return total


@kernel
def write_rows(book, changes, rows):
    """Put the rows int8 [M, LEVERS] of M changes of cell, int64 [M, 2], into a book."""
    for i in range(changes.shape[0]):
        for lever in range(rows.shape[1]):
            book[changes[i, 0], changes[i, 1], lever] = rows[i, lever]


@entry
def try_options(changes, options, firsts, latest, book, rules: Rules, desk: Desk, tape: Tape, now, gain):
    """How much each option for some changes of cell would add to the cost of the episode on the tape.

    Every option is simulated until everything is as it was on the tape, or up to step `latest`; what its drift will
    still cost is added. One that is certain to be worse than the best so far is given up.

    Args:
        changes: int64 [M, 2], UE and number of each change.
        options: int8 [N, M, LEVERS].
        firsts: int64 [N], the first step in which the option may make a difference.
        latest: step at which the comparison ends.
        book: int8 [U, K, LEVERS], of the tape; it is as before afterwards.
        now: int8 [M, LEVERS], what the book says for the changes.
        gain: float64 [N], written: the added cost; inf where it was given up.

    Returns:
        Steps that were simulated.
    """
    done, best, settled = 0, 0.0, 0
    for i in range(changes.shape[0]):
        settled = max(settled, rules.calendar.step[changes[i, 0], changes[i, 1]] + 1)
    for i in range(options.shape[0]):
        write_rows(book, changes, options[i])
        load(tape, firsts[i], desk)
        added, step, given_up = 0.0, firsts[i], False
        while step < latest:
            cost, _ = advance(step, book, rules, desk)
            added += cost - (tape.spent[step + 1] - tape.spent[step])
            step += 1
            if added - (tape.spent[latest] - tape.spent[step]) > best:
                given_up = True
                break
            if step >= settled and back_in_step(tape, step, desk):
                break
        done += step - firsts[i]
        gain[i] = np.inf
        if not given_up:
            for v in range(desk.rate.shape[0]):
                if desk.rate[v] != tape.rate[step, v]:
                    more = drift_to_come(tape, step, v, desk.rate[v]) - drift_to_come(tape, step, v, tape.rate[step, v])
                    added += more / desk.rate.shape[0]
            gain[i] = added
            best = min(best, added)
    write_rows(book, changes, now)
    return done
