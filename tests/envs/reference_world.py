"""The simulator a second time: a plain Python program of users and a clock, which knows only the design."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from kvroam.envs.handover.world.state import BACKFILLED, CANCEL, DETOUR, FORWARD, KV, REPAIRED, RESUME, RESUMED, TOKEN
from kvroam.envs.sim.streams import LINK_EGRESS_VARIES, LINK_INGRESS_VARIES, WORLD, uniform

from .sim_bench import KV_BITS, LINK_BPS, RADIO_S, REESTABLISHMENT_S, SERVING

RATE, CELLS, CYCLE_S, SLOWDOWN, HOP_S, TOKEN_BITS = 25.0, 4, 0.01, 0.5, 0.02, 4096.0
PROMPT, CHUNK, PERIOD_S, VARIATION = 300.0, 128, 0.07, 3.0
BITS = {16: KV_BITS, 8: 28 * 4 * (2 * 128 * 8 + 160.0), 4: 28 * 4 * (2 * 128 * 4 + 160.0)}


@dataclass
class Move:
    """A migration under way; `job`: 'none', 'queued', the end of its batch, 'head' of a chunked queue, or 'done'.

    `what`: 'move'; 'rest', of a cache whose session has resumed; or 'repair'. `serves`: its user is (but for the radio)
    served at the source meanwhile.
    """

    what: str
    source: int
    target: int
    prefix: float
    snapshot: float
    bits_left: float
    per_token: float
    weight: float
    job: object
    shipped: float
    hold_until: float
    queued_since: float
    keep: float = 1.0
    bits: int = 16
    density: float = 1.0
    rest_bits: float = 0.0
    serves: bool = True
    left_s: float = 0.0
    sent: float = 0.0
    gpu_s: float = 0.0
    late: float = 0.0

    @property
    def unfinished(self) -> bool:
        """Whether something that the session is to resume on is not there."""
        return self.bits_left > 0 or self.job not in ("none", "done")

    @property
    def row_bits(self) -> float:
        """The cache that is transferred, but for what the session produces meanwhile."""
        return (self.snapshot - self.prefix) * self.density * self.per_token


@dataclass
class User:
    """A UE and its session; `cut` is the instant at which the interruption began, `prompt` is like a Move's job."""

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
    lacks: float = 0.0  # tokens of the context whose KV is not there
    healthy: bool = True
    stranded: bool = False
    backfill: float = 0.0
    ask_at: float = math.inf
    prompt: object = "none"
    prompt_since: float = 0.0
    prompt_left_s: float = 0.0
    begun: bool = False  # to answer
    path: int = 0
    # what it has cost so far
    felt_s: float = 0.0
    interruption_s: float = 0.0
    unavoidable_s: float = 0.0
    detour_s: float = 0.0
    forwarded_bits: float = 0.0
    wasted_bits: float = 0.0
    wasted_gpu_s: float = 0.0
    gpu_s: float = 0.0
    bits_sent: float = 0.0
    tokens: float = 0.0
    prompt_gpu_s: float = 0.0
    refused: int = 0
    log: list = field(default_factory=list)

    def doing(self, what: str) -> bool:
        """Whether it is being moved, followed or repaired."""
        return self.move is not None and self.move.what == what

    def note(self, kind: int, now: float, target: int, prefix: float, lasted: float = 0.0, felt: float = 0.0) -> None:
        """An event."""
        self.log.append((kind, now, self.server, target, lasted, felt, self.context, prefix))


class Reference:
    """Four cells of the bench, written as a list of users and a clock.

    Args:
        users, speed: the UEs; the relative speeds of the servers.
        hops, reach: Xn hops from cell to cell, and the most over which tokens are forwarded.
        chunked: prefill one job after the other in chunks; otherwise in batches.
        places: sessions that fit on one server.
        keys: of the simulator's streams, when the capacity of the links varies.
        shared_s: what every token in the caches of those who decode adds to an iteration of their server [s].
    """

    def __init__(self, users: list[User], speed: list[float], hops: np.ndarray, reach: int, chunked: bool = False,
                 places: float = math.inf, keys=None, shared_s: float = 0.0) -> None:
        self.users, self.speed, self.now, self.begun = users, speed, 0.0, 0.0
        self.hops, self.reach, self.shared_s = hops.tolist(), reach, shared_s
        self.chunked, self.places, self.keys = chunked, places, keys
        self.batch_end = [None] * CELLS

    def has_room(self, c: int) -> bool:
        """Whether a session may come to server `c`: those that live there, are under way to it, or leave a rest."""
        taken = 0
        for u in self.users:
            taken += u.server == c
            if u.move:
                taken += {"move": u.move.target, "rest": u.move.source, "repair": u.server}[u.move.what] == c
        return taken < self.places

    def reaches(self, server: int, radio: int) -> bool:
        """Whether tokens get from a server to a gNB."""
        return self.hops[server][radio] <= self.reach

    def iteration(self, c: int) -> float:
        """A decode iteration of server `c`."""
        resident = sum(u.context - u.lacks for u in self.users if u.streaming and u.cut is None and u.server == c)
        return (1 / RATE + self.shared_s * resident) / self.speed[c]

    def capacity(self, side: str, c: int) -> float:
        """Capacity of a link now."""
        if self.keys is None:
            return LINK_BPS
        what = LINK_EGRESS_VARIES if side == "out" else LINK_INGRESS_VARIES
        draw = uniform(self.keys[WORLD], c, what, int(self.now / PERIOD_S + 1e-9))
        return LINK_BPS * math.exp(math.log(VARIATION) * (2.0 * draw - 1.0))

    def work(self, c: int, tokens: float) -> tuple[float, int]:
        """GPU time of a chunked job, and its chunks."""
        chunks = max(1, math.ceil(tokens / CHUNK))
        return 1e-4 * tokens / self.speed[c] + 2e-3 * chunks, chunks

    def heads(self) -> dict[int, tuple[User, bool, float, float]]:
        """For every busy chunked server: whose job it works on, whether it is a prompt, its rate, time of a chunk."""
        queue = {c: [] for c in range(CELLS)}
        for i, user in enumerate(self.users):
            if user.move and (user.move.job == "head" or (user.move.job == "queued" and
                                                          user.move.hold_until <= self.now + 1e-12)):
                queue[user.move.target].append((user.move.job != "head", user.move.queued_since, i, False))
            if user.prompt == "head" or (user.prompt == "queued" and user.cut is None):
                queue[user.server].append((user.prompt != "head", user.prompt_since, i, True))
        found = {}
        for c, jobs in queue.items():
            if not jobs:
                continue
            waits, _, i, prompt = min(jobs)
            user = self.users[i]
            work, chunks = self.work(c, PROMPT if prompt else user.move.prefix)
            if waits and prompt:
                user.prompt, user.prompt_left_s = "head", work
            elif waits:
                user.move.job, user.move.left_s = "head", work
            decoding = any(u.streaming and u.cut is None and u.server == c for u in self.users)
            found[c] = (user, prompt, work / (work + chunks * self.iteration(c)) if decoding else 1.0, work / chunks)
        return found

    def answer(self, user: User) -> None:
        """The prompt is in the cache."""
        user.prompt, user.streaming, user.begun = "none", True, False
        user.context += PROMPT

    def start(self, user: User, plan: dict, target: int, serves: bool) -> None:
        """Begin a migration; the balanced split is not modelled here (see the closed forms)."""
        context, medium = user.context, TOKEN if plan["medium"] == DETOUR else plan["medium"]
        prefix = context if medium == TOKEN else 0.0 if medium == KV else min(plan["prefix"], context)
        move = Move("move", user.server, target, prefix, context, 0.0, BITS[plan["bits"]], plan["weight"],
                    "queued" if prefix > 0 else "none", context, self.begun + plan["prefill_delay_s"], self.now,
                    keep=plan["keep"], bits=plan["bits"], density=1.0 - user.lacks / context, serves=serves)
        move.bits_left = move.keep * move.row_bits
        move.rest_bits = (1 - move.keep) * move.row_bits if plan["backfill"] > 0 else 0.0
        user.move = move

    def drop(self, user: User) -> None:
        """Cancel what is under way."""
        if user.move:
            user.wasted_bits += user.move.sent
            user.wasted_gpu_s += user.move.gpu_s
        user.move, user.resume, user.stranded = None, math.inf, False

    def ship(self, user: User) -> None:
        """Queue the KV of the tokens since the last time."""
        user.move.bits_left += (user.context - user.move.shipped) * user.move.per_token
        user.move.shipped = user.context

    def plan(self, user: User, plan: dict) -> None:
        """What a plan does at the start of an interval."""
        user.backfill = plan["backfill"]
        if user.move:
            user.move.weight = plan["backfill"] if user.doing("rest") else plan["weight"]
            user.move.hold_until = self.now + plan["prefill_delay_s"]
        if user.stranded:
            if user.lost is None and self.has_room(user.radio):
                user.stranded = False
                self.start(user, plan, user.radio, serves=False)
                self.leave(user)
            return
        if user.cut is not None:
            return
        if plan["target"] == CANCEL:
            self.drop(user)
        wanted = plan["target"] >= 0 and plan["medium"] != DETOUR and plan["target"] != user.server
        if wanted and not (user.doing("move") and user.move.target == plan["target"]):
            self.drop(user)
            if self.has_room(plan["target"]):
                self.start(user, plan, plan["target"], serves=True)
            else:
                user.refused += 1
        elif plan["repair"] and not user.move and not user.healthy:
            if self.has_room(user.server):
                user.move = Move("repair", user.server, user.server, user.context, user.context, 0.0, 0.0, 0.0,
                                 "queued", user.context, self.now + plan["prefill_delay_s"], self.now)
            else:
                user.refused += 1

    def interrupt(self, user: User) -> None:
        """Service stops now, if it has not yet."""
        if user.cut is None:
            user.cut, user.felt_s = self.now, 0.0

    def leave(self, user: User) -> None:
        """Service has stopped, and it is decided where it goes on; a prefill for the user at the source is lost."""
        user.resume = math.inf
        if user.doing("move"):
            user.move.late = user.move.bits_left
            if not user.move.serves and user.prompt != "none":
                user.prompt = "queued"

    def change_cell(self, user: User, cell: int, plan: dict) -> None:
        """A radio handover."""
        user.radio, user.back = cell, self.now + RADIO_S
        self.interrupt(user)
        if user.doing("move") and user.move.serves and user.move.target == cell:
            self.arrive(user, plan)
        else:
            self.follow(user, plan)
        self.leave(user)

    def arrive(self, user: User, plan: dict) -> None:
        """The user is in the cell that the session was prepared for."""
        move = user.move
        self.ship(user)
        move.serves = False
        if move.unfinished and plan["arrival"] == FORWARD:
            move.serves = self.reaches(user.server, user.radio)
        elif move.unfinished and plan["arrival"] == RESUME:
            missing = move.bits_left - (user.context - move.snapshot) * move.per_token
            if move.row_bits > 0 and missing > 0:
                # It resumes on the rows that are there, at least a twentieth; the others follow.
                first = move.keep * move.row_bits
                enough = max(first - missing, min(first, 0.05 * move.row_bits))
                move.bits_left += enough - first
                move.rest_bits = move.row_bits - enough
                move.keep = enough / move.row_bits

    def follow(self, user: User, plan: dict) -> None:
        """Nothing is prepared where the user is now."""
        reached = self.reaches(user.server, user.radio)
        stays = user.radio == user.server or (plan["medium"] == DETOUR and reached)
        if stays and user.move and not user.doing("move"):
            return
        self.drop(user)
        if stays:
            return
        if self.has_room(user.radio):
            self.start(user, plan, user.radio, serves=plan["arrival"] == FORWARD and reached)
        else:
            user.refused += 1
            user.stranded = not reached

    def fail(self, user: User) -> None:
        """A radio-link failure."""
        user.lost, user.back = self.now + REESTABLISHMENT_S, math.inf
        if user.doing("move"):
            if user.cut is None:
                self.ship(user)
            user.move.serves = False
        self.interrupt(user)
        self.leave(user)

    def return_to(self, user: User, plan: dict) -> None:
        """Re-establishment at the strongest cell."""
        moved, user.radio, user.lost, user.back = user.strongest != user.radio, user.strongest, None, self.now
        if user.stranded or (user.move.target if user.move else user.server) != user.radio:
            if moved or not self.reaches(user.server, user.radio):
                self.follow(user, plan)
            elif user.doing("move"):
                self.drop(user)
        elif user.doing("move"):
            self.arrive(user, plan)
        self.leave(user)

    def settle(self, user: User) -> None:
        """Whoever has everything knows when it resumes; who was forwarded changes over; rests and repairs end."""
        move = user.move
        if user.stranded:
            return
        if user.doing("rest") and move.bits_left <= 0:
            user.note(BACKFILLED, self.now, user.server, move.prefix)
            user.lacks = (1 - move.density) * (move.snapshot - move.prefix)
            user.healthy = move.bits == 16 and move.density == 1 and user.context <= move.shipped
            user.move = None
        elif user.doing("repair") and not move.unfinished:
            if user.context - move.snapshot >= 1:
                move.prefix, move.snapshot = user.context - move.snapshot, user.context
                move.job, move.queued_since = "queued", self.now
            else:
                user.note(REPAIRED, self.now, user.server, move.prefix)
                user.lacks, user.healthy, user.move = 0.0, True, None
        elif user.doing("move") and user.cut is None and move.target == user.radio and not move.unfinished:
            self.interrupt(user)
            user.back, move.serves = -math.inf, False
            self.ship(user)
            self.leave(user)
        move = user.move
        if user.cut is None or user.resume < math.inf or user.lost is not None:
            return
        if not user.doing("move") or move.serves:
            user.resume = max(self.now, user.back) + self.iteration(user.server)
        elif not move.unfinished:
            user.resume = max(self.now, user.back) + move.late / 8 / SERVING.restore_bytes_per_s
            if user.back > -math.inf:
                user.resume += self.iteration(move.target)

    def resumes(self, user: User) -> None:
        """The session goes on where it now is."""
        move = user.move if user.doing("move") and not user.move.serves else None
        user.note(RESUMED, self.now, move.target if move else user.server, move.prefix if move else 0.0,
                  self.now - user.cut, user.felt_s)
        user.cut, user.resume, user.prompt_since = None, math.inf, self.now
        if not move:
            return
        if move.prefix >= user.context:
            user.healthy = True
        elif (move.keep < 1 and move.prefix < move.snapshot) or move.bits < 16:
            user.healthy = False
        user.lacks = (1 - move.keep * move.density) * (move.snapshot - move.prefix)
        user.server, user.move = move.target, None
        if move.rest_bits > 0:
            user.move = Move("rest", move.source, move.target, move.prefix, move.snapshot, move.rest_bits,
                             move.per_token, user.backfill, "none", user.context, 0.0, 0.0, keep=move.keep,
                             bits=move.bits, density=move.density)

    def link_rates(self) -> dict[int, float]:
        """Fill all links at one speed per unit of weight until each transfer has met a full one."""
        flows = {i: u.move for i, u in enumerate(self.users) if u.move and u.move.bits_left > 0}
        links = {(side, c): self.capacity(side, c) for c in range(CELLS) for side in ("out", "in")}
        ends = {i: {("out", move.source), ("in", move.target)} for i, move in flows.items()}
        rate = dict.fromkeys(flows, 0.0)
        growing = {i for i, m in flows.items() if m.weight > 0}
        while growing:
            weight = {link: sum(flows[i].weight for i in growing if link in ends[i]) for link in links}
            level = min(links[link] / w for link, w in weight.items() if w > 0)
            for i in growing:
                rate[i] += level * flows[i].weight
            links = {link: left - level * weight[link] for link, left in links.items()}
            full = {link for link in links if links[link] <= 1e-3 and weight[link] > 0}
            growing -= {i for i in growing if full & ends[i]}
        return rate

    def next_event(self, rate: dict[int, float], heads: dict, waiting: list, other: list[float]) -> float:
        """The instant of whatever comes next."""
        times = [*other, *(u.resume for u in self.users), *(u.ask_at for u in self.users)]
        times += [u.lost for u in self.users if u.lost is not None]
        times += [self.now + self.users[i].move.bits_left / r for i, r in rate.items() if r > 0]
        times += [at for at in self.batch_end if at is not None]
        if self.keys is not None:
            times.append((int(self.now / PERIOD_S + 1e-9) + 1) * PERIOD_S)
        if self.chunked:
            times += [at for _, at in waiting if at > self.now + 1e-12]
            times += [self.now + (u.prompt_left_s if prompt else u.move.left_s) / share
                      for u, prompt, share, _ in heads.values()]
        else:
            times += [math.ceil(max(self.now, at) / CYCLE_S - 1e-9) * CYCLE_S for c, at in waiting
                      if self.batch_end[c] is None]
        return max(self.now, min(times))

    def interval(self, plans: list[dict], handovers: dict[int, tuple[float, int]], failures: dict[int, float],
                 end: float) -> None:
        """One decision interval, with the handovers (time, cell) and the radio-link failures (time) of some users."""
        due, failing, self.begun = dict(handovers), dict(failures), self.now
        for user, plan in zip(self.users, plans, strict=True):
            self.plan(user, plan)
        while True:
            for user in self.users:
                self.settle(user)
            rate = self.link_rates()
            heads = self.heads() if self.chunked else {}
            waiting = [(u.move.target, u.move.hold_until) for u in self.users if u.move and u.move.job == "queued"]
            waiting += [(u.server, self.now) for u in self.users if u.prompt == "queued" and u.cut is None]
            until = self.next_event(rate, heads, waiting, [end, *(at for at, _ in due.values()), *failing.values()])
            self.flow(rate, heads, until - self.now)
            self.now = until
            if until >= end:
                break
            self.end_jobs(heads)
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
                if user.ask_at <= until:
                    user.ask_at, user.prompt, user.prompt_since = math.inf, "queued", until
            if not self.chunked and abs(until / CYCLE_S - round(until / CYCLE_S)) < 1e-7:
                for c in {c for c, _ in waiting}:
                    self.start_batch(c)
        for user in self.users:
            if user.doing("move") and user.cut is None:
                self.ship(user)

    def end_jobs(self, heads: dict) -> None:
        """Prefills that are done now."""
        for c, at in enumerate(self.batch_end):
            if at is not None and at <= self.now:
                self.batch_end[c] = None
                for user in self.users:
                    if user.move and user.move.target == c and user.move.job == at:
                        user.move.job = "done"
                    if user.server == c and user.prompt == at:
                        self.answer(user)
        for user, prompt, _, _ in heads.values():
            if prompt and user.prompt_left_s <= 1e-12:
                self.answer(user)
            elif not prompt and user.move.left_s <= 1e-12:
                user.move.job = "done"

    def start_batch(self, c: int) -> None:
        """One batch of all who wait at server `c`, if it is free."""
        jobs = [(u, False, u.move.prefix) for u in self.users if u.move and u.move.job == "queued"
                and u.move.target == c and u.move.hold_until <= self.now + 1e-12]
        jobs += [(u, True, PROMPT) for u in self.users if u.prompt == "queued" and u.cut is None and u.server == c]
        if self.batch_end[c] is not None or not jobs:
            return
        lasts = 1e-4 * max(tokens for *_, tokens in jobs) / self.speed[c] + 2e-3
        self.batch_end[c] = self.now + lasts
        for user, prompt, tokens in jobs:
            share = lasts * tokens / sum(tokens for *_, tokens in jobs)
            if prompt:
                user.prompt = self.batch_end[c]
                user.prompt_gpu_s += share
            else:
                user.move.job = self.batch_end[c]
                user.move.gpu_s += share
                user.gpu_s += share

    def flow(self, rate: dict[int, float], heads: dict, elapsed: float) -> None:
        """Let time pass."""
        pace = [1 / self.iteration(c) for c in range(CELLS)]
        for user, prompt, share, _ in heads.values():
            if prompt:
                user.prompt_left_s -= share * elapsed
                user.prompt_gpu_s += share * elapsed
            else:
                user.move.left_s -= share * elapsed
                user.move.gpu_s += share * elapsed
                user.gpu_s += share * elapsed
        for i, r in rate.items():
            move = self.users[i].move
            bits = min(move.bits_left, r * elapsed)
            move.bits_left = 0.0 if move.bits_left - bits < 1e-3 else move.bits_left - bits
            move.sent += bits
            self.users[i].bits_sent += bits
        for user in self.users:
            if user.cut is None and user.streaming:
                each = pace[user.server] * (1 - SLOWDOWN if self.batch_end[user.server] is not None else 1)
                if user.server in heads:
                    each = 1 / (1 / each + heads[user.server][3])
                self.stream(user, each * elapsed)
            elif user.cut is not None and (user.streaming or user.prompt != "none"):
                # A switch behind the scenes is felt when it lasts longer than a token.
                begin = self.now if user.back > -math.inf else max(self.now, user.cut + 1 / RATE)
                lost = max(0.0, self.now + elapsed - begin)
                user.felt_s += lost
                user.interruption_s += lost
                user.unavoidable_s += min(lost, max(0.0, min(self.now + elapsed, user.back + 1 / RATE) - self.now))

    def stream(self, user: User, tokens: float) -> None:
        """The user is sent so many tokens."""
        if tokens > 0:
            hops = self.hops[user.server][user.radio]
            user.detour_s += HOP_S * max(0, hops - (user.path if user.begun else 0))
            user.path, user.begun = hops, True
            user.forwarded_bits += tokens * hops * TOKEN_BITS
        user.context += tokens
        user.tokens += tokens
