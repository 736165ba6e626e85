"""Greedy planner: enumerates the plans of every UE near a handover and takes the cheapest by the environment's prices.

Handovers come from the A3 timers and from the network's predictor. A preparation begins as soon as it is the cheapest
plan; it is dropped only for another cell. At the handover a session resumes on what is there if waiting
would cost more. The delay model is delays.py. UEs are planned one after the other, nearest handover first, so that a
plan knows those made before it in the same step; what is begun later is not seen.
"""

from __future__ import annotations

import numpy as np

from ...envs.handover.actions import can_repair
from ...envs.handover.config import HandoverConfig
from ...envs.handover.view import NetworkView
from ...envs.handover.world.state import (
    CONTINUE,
    DETOUR,
    FORWARD,
    IDLE,
    INTERRUPTED,
    PREPARING,
    RESUME,
    SPLIT,
    TOKEN,
)
from ...envs.sim.predictor import HORIZON_S
from ...envs.sim.route_predictor import RoutePredictor
from ...errors import require
from ..base import label
from .delays import (
    AT,
    EARLY,
    FETCH,
    STAY,
    Option,
    Situation,
    costs_of,
    harm,
    harm_grid,
    option_records,
    options,
    prefill,
    world_record,
)
from .judgement import Judgement, judgement, slowness
from .plans import forwarded, reactive_plans

_CAPACITY_MEMORY = 0.05  # weight of a new capacity in the moving average


class GreedyPlanner:
    """The cheapest plan of each UE whose handover is announced or predicted, or whose session was left behind.

    Assumptions: the prices and delays of the configuration; drift and wrong answers from the table; a session goes on
    to the end of its script (or `rest_tokens` where that is less).

    Args:
        config: the environment (prices, action levels, delays that the view does not show).
        rest_tokens: horizon of the expected cost of detour and drift [serving tokens].
        horizon_s: handovers that are predicted later are not prepared yet [s].
        streets: foresee handovers by the street map (envs/sim/route_predictor.py) instead of straight on.

    Attributes:
        judgement: how it judges what it cannot know.
    """

    judgement = Judgement()

    def __init__(self, config: HandoverConfig, rest_tokens: float = 1000.0, horizon_s: float = 5.0,
                 streets: bool = False) -> None:
        require(0.0 <= rest_tokens < np.inf, f"rest_tokens is {rest_tokens}: it must be finite and not negative")
        require(0.0 <= horizon_s < np.inf, f"horizon_s is {horizon_s}: it must be finite and not negative")
        self.config, self.rest_tokens, self.horizon_s, self.options = config, rest_tokens, horizon_s, options(config)
        self.streets = streets
        self._world, self._harm = world_record(config), harm_grid(config)
        when = np.array([option.when for option in self.options])
        self._reactive, self._moves = np.isin(when, (EARLY, AT))[:, None], (when != STAY)[:, None]
        self._rebuild = int(np.flatnonzero(when == AT)[0])
        self.name = label("greedy-planner", rest_tokens=(rest_tokens, 1000.0), horizon_s=(horizon_s, 5.0),
                          streets=(streets, False))

    def reset(self, view: NetworkView) -> None:
        """Nobody has been observed."""
        self._routes = RoutePredictor(view.sim) if self.streets else None
        self._egress, self._ingress = view.egress_bps, view.ingress_bps
        self._records = option_records(self.options, view.kv_bits_per_token)
        self._shape = view.phase.shape

    def act(self, view: NetworkView) -> np.ndarray:
        """Plans, PLAN [E, U]."""
        if getattr(self, "_shape", None) != view.phase.shape:
            self.reset(view)
        self._egress += _CAPACITY_MEMORY * (view.egress_bps - self._egress)
        self._ingress += _CAPACITY_MEMORY * (view.ingress_bps - self._ingress)
        now = self._read(view)
        phase, server, radio = now["phase"], now["server"], now["radio"]
        cell, in_s, known, chance = self.forecast(view)
        in_s = np.maximum(in_s, 0.0)
        self._foresee_others(now, cell, in_s, chance)
        plans = self.fallback(view)
        self._in_the_background(view, plans, now, cell, in_s)
        behind = (server != radio) & (phase == IDLE)
        soon = (cell >= 0) & (in_s <= self.horizon_s * _by_env(self.judgement.horizon)) & (cell != server)
        soon &= chance >= _by_env(self.judgement.least)
        # What follows would be lost with a new preparation: it gets the time that there is.
        change_s = _by_env(self.judgement.change_s)
        soon &= ((phase == IDLE) | ((phase == PREPARING) & (now["target"] != cell) & (in_s < change_s))
                 | ((phase != INTERRUPTED) & (phase != PREPARING) & (in_s < 0.5)))
        wanted = soon | behind
        if not wanted.any():
            return plans
        # One UE of every environment after the other, the nearest handover first.
        rank = np.where(wanted, np.where(behind & ~soon, 0.0, in_s), np.inf).argsort(axis=1, kind="stable")
        for nth in range(int(wanted.sum(axis=1).max())):
            u = rank[:, nth]
            e = np.flatnonzero(wanted[np.arange(view.num_envs), u])
            u = u[e]
            leaving = soon[e, u]
            target = np.where(leaving, cell[e, u], radio[e, u])
            s = self.situation(view, e, u, target, np.where(leaving, in_s[e, u], 0.0), ~leaving, known[e, u], now)
            table = self._table(s, now["free"][e, target] >= view.session_bytes)
            chosen = table.argmin(axis=0)
            for i in range(len(e)):
                self._write(plans[e[i], u[i]], self.options[chosen[i]], int(target[i]), bool(leaving[i]),
                            float(s.context[i]))
            self._take(now, plans, s, e, u, target)
        return plans

    def _read(self, view: NetworkView) -> dict[str, np.ndarray]:
        """What is read of the view once per step; `_take` adds to the last ones what the plans of this step begin."""
        e = np.arange(view.num_envs)[:, None]
        phase, left, server, target = view.phase, view.bits_left, view.server_cell, view.migration_target
        sends = (phase != IDLE) & (left > 0.0)
        flows_out, flows_in, sharers = (np.zeros((view.num_envs, view.num_cells)) for _ in range(3))
        origin = np.zeros_like(server) if view.pool else server
        np.add.at(flows_out, (e, origin), sends)
        np.add.at(flows_in, (e, target), sends)
        np.add.at(sharers, (e, server), view.streaming & (phase != INTERRUPTED))
        return dict(phase=phase, server=server, radio=view.radio_cell, target=target, left=left, sharers=sharers,
                    context=view.context_tokens, held=view.held_tokens, waiting=view.waiting, hops=view.hops,
                    prefill_s=view.prefill_s_per_token, iteration_s=view.iteration_s, streaming=view.streaming,
                    flows_out=flows_out, flows_in=flows_in, free=view.free_memory_bytes.copy(),
                    queue_out=view.egress_queue_bits.copy(), queue_in=view.ingress_queue_bits.copy(),
                    wait=view.prefill_wait_s.copy())

    def fallback(self, view: NetworkView) -> np.ndarray:
        """Plans for a change of cell that nobody announced, such as that of a failed link: a part first, and the rest
        behind it."""
        levels = self.config.actions
        part = min(levels.keep, key=lambda keep: abs(keep - 0.25))
        return reactive_plans(view, SPLIT, part if max(levels.backfill) > 0.0 else 1.0, min(levels.bits))

    def _in_the_background(self, view: NetworkView, plans: np.ndarray, now: dict, cell, in_s) -> None:
        """Weights by urgency, what to do at a handover that comes before its preparation is finished, repairs."""
        phase, waiting = now["phase"], now["waiting"]
        judge = self.judgement
        left_s = np.where(phase == INTERRUPTED, 0.1, np.where(now["target"] == cell, in_s, 5.0))
        plans["weight"] = np.clip(np.maximum(left_s, 0.1) ** -_by_env(judge.urgency), 0.2, 10.0) * np.where(
            waiting, 1.0, _by_env(judge.ease))
        plans["backfill"] = _by_env(judge.background) * np.where(now["streaming"], 2.0, 1.0)
        plans["arrival"] = np.where(forwarded(view), FORWARD, RESUME)
        able = can_repair(view)
        if not able.any():
            return
        e, u = np.nonzero(able)
        home, context = now["server"][e, u], now["context"][e, u]
        s = self.situation(view, e, u, home, np.zeros(len(e)), np.zeros(len(e), bool), np.ones(len(e), bool), now)
        work, takes, elsewhere = prefill(context, s, self._world)
        takes = takes + s.wait_s
        # The next handover may rebuild it anyway.
        near = np.where(cell[e, u] >= 0, in_s[e, u], np.inf)
        tokens = np.clip(np.minimum(s.rest, s.tokens_per_s * near) - s.tokens_per_s * takes, 0.0, None)
        worth = s.judge.repair * s.judge.harm * harm(s.density, min(self.config.actions.bits), self.config) * tokens
        pays = (worth / self.config.serving.context_scale
                > s.judge.gpu * self.config.reward.gpu * work + s.judge.elsewhere * elsewhere)
        plans["repair"][e, u] = pays

    def _table(self, s: Situation, room) -> np.ndarray:
        """Cost of every option for every session [P, N]; inf where it cannot be followed."""
        table = np.empty((len(self.options), len(s.context)))
        costs_of(self._records, *s.records, self._world, self._harm, table)
        # Somebody who is left behind has no handover to prepare for or to move with; others must be in reach.
        table[self._reactive & s.behind] = np.inf
        table[~self._reactive & ~np.isfinite(s.delay_s)] = np.inf
        table[self._moves & ~room] = np.inf
        # Whoever can do nothing is rebuilt from token ids once there is room.
        table[self._rebuild, ~np.isfinite(table).any(axis=0)] = 1e9
        return table

    @staticmethod
    def _write(plan: np.void, option: Option, target: int, leaving: bool, context: float) -> None:
        """Put the decision into a plan."""
        now = option.when == EARLY or (option.when == FETCH and not leaving)
        plan["target"] = target if now else CONTINUE
        stays = option.when == STAY or (option.when == FETCH and leaving)
        plan["medium"] = DETOUR if stays else option.medium
        plan["keep"], plan["bits"] = option.keep, option.bits
        if option.medium == SPLIT:
            plan["prefix"] = int(option.prefix * context)
        if option.when == AT or option.medium == TOKEN:
            plan["backfill"] = plan["backfill"] * (option.backfill > 0.0)

    def _take(self, now: dict, plans: np.ndarray, s: Situation, e, u, target) -> None:
        """Add what the plans of UEs `u` begin in this step to the queues that the next ones see."""
        begun = plans["target"][e, u] >= 0
        if not begun.any():
            return
        prefixes = np.where(plans["medium"][e, u] == TOKEN, s.context, np.maximum(plans["prefix"][e, u], 0.0))
        work, _, _ = prefill(prefixes, s, self._world)
        for i in np.flatnonzero(begun):
            plan, source, prefix = plans[e[i], u[i]], now["server"][e[i], u[i]], float(prefixes[i])
            bits = float(plan["keep"] * s.density[i] * (s.context[i] - prefix)) * self._bits(int(plan["bits"]))
            now["queue_out"][e[i], source] += bits
            now["queue_in"][e[i], target[i]] += bits
            now["flows_out"][e[i], source] += bits > 0.0
            now["flows_in"][e[i], target[i]] += bits > 0.0
            now["wait"][e[i], target[i]] += work[i]
            now["free"][e[i], target[i]] -= self.config.serving.kv_bits_per_token(16) / 8.0

    def _bits(self, bits: int) -> float:
        return self.config.serving.kv_bits_per_token(bits)

    def forecast(self, view: NetworkView) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Next cell (-1: none), time until the handover (inf: none) [s], whether it is known, and how likely the
        predictor takes it to be [1], of every UE [E, U]."""
        known = np.isfinite(view.handover_in_s)
        if self._routes is None:
            return (np.where(known, view.handover_cell, view.predicted_cell),
                    np.where(known, view.handover_in_s, view.predicted_in_s), known, np.ones(known.shape))
        seen = self._routes.watch(view.sim)
        return seen.cell.copy(), seen.at_s - view.time_s[:, None], known, seen.chance.copy()

    def sure(self, ahead_s, chance, judge: Judgement) -> np.ndarray:
        """How likely a predicted handover comes [1]."""
        return np.clip(chance * judge.sure_at - judge.sure_ahead * np.maximum(ahead_s, 0.0), 0.0, 1.0)

    def _foresee_others(self, now: dict, cell, in_s, chance) -> None:
        """Who is about to change cell and has not begun to prepare, by how near at hand that is, at the cells that they
        leave and come to."""
        near = np.where((cell >= 0) & (now["phase"] == IDLE), chance * np.clip(1.0 - in_s / HORIZON_S, 0.0, 1.0), 0.0)
        now["near"], now["next"], now["chance"] = near, cell, chance
        now["leaving"], now["arriving"] = (np.zeros(now["flows_out"].shape) for _ in range(2))
        e = np.arange(len(near))[:, None]
        np.add.at(now["leaving"], (e, now["server"]), near)
        np.add.at(now["arriving"], (e, np.maximum(cell, 0)), near)

    def situation(self, view: NetworkView, e, u, target, ahead_s, behind, known, now=None) -> Situation:
        """The delay model's inputs for the listed sessions."""
        if now is None:
            now = self._read(view)
            cell, in_s, _, chance = self.forecast(view)
            self._foresee_others(now, cell, np.maximum(in_s, 0.0), chance)
        judge, mine = self.judgement.of(e), now["near"][e, u]
        config, source, sessions = self.config, now["server"][e, u], self.config.sessions
        if view.pool:
            rate, queue, flows = self._egress[e, 0], now["queue_out"][e, 0], now["flows_out"][e, 0]
        else:
            rate = np.minimum(self._egress[e, source], self._ingress[e, target])
            queue = np.maximum(now["queue_out"][e, source], now["queue_in"][e, target])
            flows = np.maximum(now["flows_out"][e, source], now["flows_in"][e, target])
        rate = judge.margin * rate
        leaving = np.maximum(now["leaving"][e, source] - mine, 0.0)
        arriving = np.maximum(now["arriving"][e, target] - mine * (now["next"][e, u] == target), 0.0)
        context, iteration = now["context"][e, u], now["iteration_s"]
        talk_s = sessions.answer_tokens[0] * iteration[e, source]
        share = talk_s / np.maximum(talk_s + sessions.think_s, 1e-9)
        end = sessions.script_tokens * config.serving.context_scale
        # What a user does now says little about some seconds from now.
        fades = np.exp(-np.asarray(ahead_s) / judge.fade_s)
        waits = share + (now["waiting"][e, u] - share) * fades
        hops, chance = now["hops"][source, target], now["chance"][e, u]
        within = (hops <= view.forwarding_hops) & (view.forwarding_hops > 0)
        return Situation(
            context=context, density=np.clip(now["held"][e, u] / np.maximum(context, 1.0), 1e-3, 1.0),
            rest=np.clip(end - context, 0.0, judge.rest * self.rest_tokens), ahead_s=np.maximum(ahead_s, 0.0),
            sure=np.where(known, chance, self.sure(ahead_s, chance, judge)), known=known, behind=behind, waits=waits,
            delay_s=np.where(within, view.hop_s * hops, np.inf), rate_bps=rate, backlog_bits=queue, flows=flows,
            wait_s=now["wait"][e, target] + judge.crowd * arriving, prefill_s_per_token=now["prefill_s"][e, target],
            iteration_s=iteration[e, target], sharers=now["sharers"][e, target],
            tokens_per_s=np.where(now["streaming"][e, u], 1.0, share) / iteration[e, source],
            company=np.maximum(leaving, arriving), judge=judge)


def _by_env(value):
    """A number of a judgement, to be used with arrays [E, U]."""
    return value[:, None] if isinstance(value, np.ndarray) else value


def tuned(numbers: np.ndarray, config: HandoverConfig) -> GreedyPlanner:
    """The planner that knows the streets, with a judgement that was learned (judgement.judgement)."""
    planner = GreedyPlanner(config, streets=True)
    planner.judgement = judgement(numbers, slowness(config))
    return planner
