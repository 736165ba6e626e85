"""Arbitrary plans and handovers, simulated a second time by a plain Python program that knows only the design."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from kvroam.envs.sim.state import CANCEL, CONTINUE, DETOUR, IDLE, KV, TOKEN

from .sim_bench import KV_BITS, LINK_BPS, RADIO_S, REESTABLISHMENT_S, SERVING, Bench

RATE, CELLS, STEP_S, CYCLE_S, SLOWDOWN = 25.0, 4, 0.1, 0.01, 0.5
BITS = {16: KV_BITS, 8: 28 * 4 * (2 * 128 * 8 + 160.0), 4: 28 * 4 * (2 * 128 * 4 + 160.0)}


@dataclass
class Move:
    """A migration under way; `job`: 'none', 'queued', the end of its batch, or 'done'."""

    target: int
    prefix: float
    snapshot: float
    bits_left: float
    per_token: float
    weight: float
    job: object
    shipped: float
    sent: float = 0.0
    gpu_s: float = 0.0
    late: float = 0.0


@dataclass
class User:
    """A UE and its session; `cut` is the instant at which the interruption began."""

    radio: int
    context: float
    streaming: bool
    server: int
    move: Move | None = None
    cut: float | None = None
    back: float = 0.0
    lost: float | None = None  # when it re-establishes after a radio-link failure
    strongest: int = 0
    resume: float = math.inf
    waste: float = 0.0
    gpu_waste: float = 0.0
    gpu_s: float = 0.0
    sent: float = 0.0
    tokens: float = 0.0
    log: list = field(default_factory=list)


class Reference:
    """Four cells of the bench, written as a list of users and a clock."""

    def __init__(self, users: list[User], speed: list[float]) -> None:
        self.users, self.speed, self.now = users, speed, 0.0
        self.batch_end = [None] * CELLS

    def start(self, user: User, plan: dict, target: int) -> None:
        """Begin a migration; the balanced split is not modelled here (see the closed forms)."""
        medium, context = plan["medium"], user.context
        prefix = context if medium == TOKEN else 0.0 if medium == KV else min(plan["prefix"], context)
        per_token = BITS[plan["bits"]]
        user.move = Move(target, prefix, context, (context - prefix) * plan["keep"] * per_token, per_token,
                         plan["weight"], "queued" if prefix > 0 else "none", context)

    def drop(self, user: User) -> None:
        """Cancel what is under way."""
        if user.move:
            user.waste += user.move.sent
            user.gpu_waste += user.move.gpu_s
        user.move, user.resume = None, math.inf

    def ship(self, user: User) -> None:
        """Queue the KV of the tokens since the last time."""
        user.move.bits_left += (user.context - user.move.shipped) * user.move.per_token
        user.move.shipped = user.context

    def plan(self, user: User, plan: dict) -> None:
        """What a plan does at the start of an interval."""
        if user.move:
            user.move.weight = plan["weight"]
        if user.cut is not None:
            return
        if plan["target"] == CANCEL:
            self.drop(user)
        wanted = plan["target"] >= 0 and plan["medium"] != DETOUR and plan["target"] != user.server
        if wanted and not (user.move and user.move.target == plan["target"]):
            self.drop(user)
            self.start(user, plan, plan["target"])

    def change_cell(self, user: User, cell: int, plan: dict) -> None:
        """A radio handover."""
        user.radio, user.back = cell, self.now + RADIO_S
        prepared = user.cut is None and user.move is not None and user.move.target == cell
        user.cut = self.now if user.cut is None else user.cut
        if prepared:
            self.ship(user)
        else:
            self.drop(user)
            if cell != user.server and plan["medium"] != DETOUR:
                self.start(user, plan, cell)
        if user.move:
            user.move.late = user.move.bits_left

    def fail(self, user: User) -> None:
        """A radio-link failure."""
        user.lost, user.back, user.resume = self.now + REESTABLISHMENT_S, math.inf, math.inf
        if user.cut is None:
            user.cut = self.now
            if user.move:
                self.ship(user)

    def return_to(self, user: User, plan: dict) -> None:
        """Re-establishment at the strongest cell."""
        moved, user.radio, user.lost, user.back = user.strongest != user.radio, user.strongest, None, self.now
        if user.move is None or user.move.target != user.radio:
            self.drop(user)
            if moved and user.radio != user.server and plan["medium"] != DETOUR:
                self.start(user, plan, user.radio)
        if user.move:
            user.move.late = user.move.bits_left

    def settle(self, user: User) -> None:
        """Whoever has everything knows when it resumes; who was left behind changes over."""
        move = user.move
        if move and (move.bits_left > 0 or move.job not in ("none", "done")):
            return
        if move and user.cut is None and move.target == user.radio:
            user.cut = user.back = self.now
            self.ship(user)
            move.late = move.bits_left
            if move.bits_left > 0:
                return
        if user.cut is not None and user.resume == math.inf and user.lost is None:
            restore = move.late / 8 / SERVING.restore_bytes_per_s if move else 0.0
            user.resume = max(self.now, user.back) + restore + 1 / RATE

    def resumes(self, user: User) -> None:
        """The session goes on where it now is."""
        target = user.move.target if user.move else user.server
        prefix = user.move.prefix if user.move else 0.0
        user.log.append((self.now, user.server, target, self.now - user.cut, user.context, prefix))
        user.server, user.move, user.cut, user.resume = target, None, None, math.inf

    def link_rates(self) -> dict[int, float]:
        """Fill all links at one speed per unit of weight until each transfer has met a full one."""
        flows = {i: u.move for i, u in enumerate(self.users) if u.move and u.move.bits_left > 0}
        links = {("out", c): LINK_BPS for c in range(CELLS)} | {("in", c): LINK_BPS for c in range(CELLS)}
        rate = dict.fromkeys(flows, 0.0)
        growing = {i for i, m in flows.items() if m.weight > 0}
        while growing:
            weight = {link: sum(flows[i].weight for i in growing
                                if link in (("out", self.users[i].server), ("in", flows[i].target))) for link in links}
            level = min(links[link] / w for link, w in weight.items() if w > 0)
            for i in growing:
                rate[i] += level * flows[i].weight
            links = {link: left - level * weight[link] for link, left in links.items()}
            full = {link for link in links if links[link] <= 1e-3 and weight[link] > 0}
            growing -= {i for i in growing
                        if full & {("out", self.users[i].server), ("in", flows[i].target)}}
        return rate

    def interval(self, plans: list[dict], handovers: dict[int, tuple[float, int]], failures: dict[int, float],
                 end: float) -> None:
        """One decision interval, with the handovers (time, cell) and the radio-link failures (time) of some users."""
        due, failing = dict(handovers), dict(failures)
        for user, plan in zip(self.users, plans, strict=True):
            self.plan(user, plan)
        while True:
            for user in self.users:
                self.settle(user)
            rate = self.link_rates()
            queued = {u.move.target for u in self.users if u.move and u.move.job == "queued"}
            cycle = math.ceil(self.now / CYCLE_S - 1e-9) * CYCLE_S
            times = [end, *(at for at, _ in due.values()), *(u.resume for u in self.users)]
            times += [*failing.values(), *(u.lost for u in self.users if u.lost is not None)]
            times += [self.now + self.users[i].move.bits_left / r for i, r in rate.items() if r > 0]
            times += [at for at in self.batch_end if at is not None]
            times += [max(self.now, cycle) for c in queued if self.batch_end[c] is None]
            until = max(self.now, min(times))
            self.flow(rate, until - self.now)
            self.now = until
            if until >= end:
                break
            for c, at in enumerate(self.batch_end):
                if at is not None and at <= until:
                    self.batch_end[c] = None
                    for user in self.users:
                        if user.move and user.move.target == c and user.move.job == at:
                            user.move.job = "done"
            for i, user in enumerate(self.users):
                if i in due and due[i][0] <= until:
                    self.change_cell(user, due.pop(i)[1], plans[i])
                elif i in failing and failing[i] <= until:
                    del failing[i]
                    self.fail(user)
                elif user.lost is not None and user.lost <= until:
                    self.return_to(user, plans[i])
                elif user.resume <= until:
                    self.resumes(user)
            if abs(until / CYCLE_S - round(until / CYCLE_S)) < 1e-7:
                for c in queued:
                    self.start_batch(c)
        for user in self.users:
            if user.move and user.cut is None:
                self.ship(user)

    def start_batch(self, c: int) -> None:
        """One batch of all who wait at server `c`, if it is free."""
        jobs = [u for u in self.users if u.move and u.move.job == "queued" and u.move.target == c]
        if self.batch_end[c] is not None or not jobs:
            return
        lasts = 1e-4 * max(u.move.prefix for u in jobs) / self.speed[c] + 2e-3
        self.batch_end[c] = self.now + lasts
        for user in jobs:
            user.move.job = self.batch_end[c]
            user.move.gpu_s = lasts * user.move.prefix / sum(u.move.prefix for u in jobs)
            user.gpu_s += user.move.gpu_s

    def flow(self, rate: dict[int, float], elapsed: float) -> None:
        """Let time pass."""
        for i, r in rate.items():
            move = self.users[i].move
            bits = min(move.bits_left, r * elapsed)
            move.bits_left = 0.0 if move.bits_left - bits < 1e-3 else move.bits_left - bits
            move.sent += bits
            self.users[i].sent += bits
        for user in self.users:
            if user.streaming and user.cut is None:
                slow = 1 - SLOWDOWN if self.batch_end[user.server] is not None else 1.0
                user.context += RATE * slow * elapsed
                user.tokens += RATE * slow * elapsed


def arbitrary(generator: np.random.Generator) -> dict:
    """A plan; the target is kept from step to step by the caller."""
    return dict(target=int(generator.choice([CONTINUE, CONTINUE, CANCEL, *range(CELLS)])),
                medium=int(generator.integers(0, 4)), keep=float(generator.choice([1.0, 0.4])),
                bits=int(generator.choice([16, 8, 4])), weight=float(generator.choice([0.0, 0.25, 1.0, 4.0])),
                prefix=int(generator.integers(0, 2500)))


@pytest.mark.parametrize("seed", range(12))
def test_the_simulator_and_the_reference_agree(city, phy, seed):
    generator = np.random.default_rng(seed)
    bench, users = Bench(city, phy, ues=6), []
    bench.cell["speed"][:CELLS] = speed = generator.uniform(0.3, 2.0, CELLS)
    for u in range(6):
        radio, server = (int(c) for c in generator.integers(0, CELLS, 2))
        users.append(User(radio, float(generator.integers(50, 2500)), bool(u % 2), server))
        bench.put(u, radio, server, users[u].context, users[u].streaming)
    reference = Reference(users, list(speed))
    for k in range(60):
        plans, handovers, failures = [arbitrary(generator) for _ in users], {}, {}
        for u, user in enumerate(users):
            if user.move and generator.random() < 0.7:
                plans[u]["target"] = CONTINUE
            bench.plan(u, **plans[u])
            if user.lost is not None:
                continue
            if generator.random() < 0.04:
                user.strongest = user.move.target if user.move and generator.random() < 0.4 else int(
                    generator.integers(0, CELLS))
                failures[u] = k * STEP_S + float(generator.uniform(0, 0.0999))
                bench.fail(u, failures[u], user.strongest)
            elif generator.random() < 0.12:
                goal = user.move.target if user.move and generator.random() < 0.5 else int(generator.integers(0, CELLS))
                if goal != user.radio:
                    handovers[u] = (k * STEP_S + float(generator.uniform(0, 0.0999)), goal)
                    bench.hand_over(u, goal, handovers[u][0])
        bench.step()
        reference.interval(plans, handovers, failures, (k + 1) * STEP_S)
    assert sum(len(user.log) for user in users) > 20
    lost = 0.0
    for u, user in enumerate(users):
        got = [[e[f] for f in ("time_s", "source", "target", "interruption_s", "context", "prefix")]
               for e in bench.resumed(u)]
        assert np.array(got) == pytest.approx(np.array(user.log), rel=1e-6, abs=1e-6)
        assert bench.total("tokens", u) == pytest.approx(user.tokens, rel=1e-6)
        for name, value in (("bits_sent", user.sent), ("wasted_bits", user.waste), ("gpu_s", user.gpu_s),
                            ("wasted_gpu_s", user.gpu_waste)):
            assert bench.total(name, u) == pytest.approx(value, rel=1e-6, abs=1e-6), name
        lost += bench.total("rlf", u)
        assert np.isfinite(bench.ue[u]["reconnect_s"]) == (user.lost is not None)
        assert (bench.ue[u]["phase"] == IDLE) == (user.move is None and user.cut is None)
        assert (bench.ue[u]["server"], bench.ue[u]["radio"]) == (user.server, user.radio)
    assert lost > 3
