"""Arbitrary plans and handovers, simulated a second time by a plain Python program that knows only the design."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from kvroam.envs.handover.world.state import CANCEL, CONTINUE, DETOUR, IDLE, KV, TOKEN
from kvroam.envs.sim.streams import LINK_EGRESS_VARIES, LINK_INGRESS_VARIES, WORLD, uniform

from .sim_bench import KV_BITS, LINK_BPS, RADIO_S, REESTABLISHMENT_S, SERVING, Bench

RATE, CELLS, STEP_S, CYCLE_S, SLOWDOWN = 25.0, 4, 0.1, 0.01, 0.5
PROMPT, CHUNK, PERIOD_S, VARIATION = 300.0, 128, 0.07, 3.0
BITS = {16: KV_BITS, 8: 28 * 4 * (2 * 128 * 8 + 160.0), 4: 28 * 4 * (2 * 128 * 4 + 160.0)}


@dataclass
class Move:
    """A migration under way; `job`: 'none', 'queued', the end of its batch, 'head' of a chunked queue, or 'done'."""

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
    left_s: float = 0.0
    sent: float = 0.0
    gpu_s: float = 0.0
    late: float = 0.0


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
    waste: float = 0.0
    gpu_waste: float = 0.0
    gpu_s: float = 0.0
    sent: float = 0.0
    tokens: float = 0.0
    ask_at: float = math.inf
    prompt: object = "none"
    prompt_since: float = 0.0
    prompt_left_s: float = 0.0
    prompt_gpu_s: float = 0.0
    refused: int = 0
    log: list = field(default_factory=list)


class Reference:
    """Four cells of the bench, written as a list of users and a clock.

    Args:
        users, speed: the UEs; the relative speeds of the servers.
        chunked: prefill one job after the other in chunks; otherwise in batches.
        places: sessions that fit on one server.
        keys: of the simulator's streams, when the capacity of the links varies.
    """

    def __init__(self, users: list[User], speed: list[float], chunked: bool = False, places: float = math.inf,
                 keys=None) -> None:
        self.users, self.speed, self.now, self.begun = users, speed, 0.0, 0.0
        self.chunked, self.places, self.keys = chunked, places, keys
        self.batch_end = [None] * CELLS

    def has_room(self, c: int) -> bool:
        """Whether a session may come to server `c`: those that live there, and those under way to it."""
        return sum(u.server == c or (u.move is not None and u.move.target == c) for u in self.users) < self.places

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
            found[c] = (user, prompt, work / (work + chunks / RATE) if decoding else 1.0, work / chunks)
        return found

    def stop_prompt(self, user: User) -> None:
        """The session leaves the server that prefills its prompt."""
        if user.prompt != "none":
            user.prompt = "queued"

    def answer(self, user: User) -> None:
        """The prompt is in the cache."""
        user.prompt, user.streaming = "none", True
        user.context += PROMPT

    def start(self, user: User, plan: dict, target: int) -> None:
        """Begin a migration; the balanced split is not modelled here (see the closed forms)."""
        medium, context = plan["medium"], user.context
        prefix = context if medium == TOKEN else 0.0 if medium == KV else min(plan["prefix"], context)
        per_token = BITS[plan["bits"]]
        user.move = Move(target, prefix, context, (context - prefix) * plan["keep"] * per_token, per_token,
                         plan["weight"], "queued" if prefix > 0 else "none", context,
                         self.begun + plan["prefill_delay_s"], self.now)

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
            user.move.hold_until = self.now + plan["prefill_delay_s"]
        if user.cut is not None:
            return
        if plan["target"] == CANCEL:
            self.drop(user)
        wanted = plan["target"] >= 0 and plan["medium"] != DETOUR and plan["target"] != user.server
        if wanted and not (user.move and user.move.target == plan["target"]):
            self.drop(user)
            if self.has_room(plan["target"]):
                self.start(user, plan, plan["target"])
            else:
                user.refused += 1

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
                if self.has_room(cell):
                    self.start(user, plan, cell)
                else:
                    user.refused += 1
        if user.move:
            self.stop_prompt(user)
            user.move.late = user.move.bits_left

    def fail(self, user: User) -> None:
        """A radio-link failure."""
        user.lost, user.back, user.resume = self.now + REESTABLISHMENT_S, math.inf, math.inf
        if user.cut is None:
            user.cut = self.now
            if user.move:
                self.ship(user)
        if user.move:
            self.stop_prompt(user)

    def return_to(self, user: User, plan: dict) -> None:
        """Re-establishment at the strongest cell."""
        moved, user.radio, user.lost, user.back = user.strongest != user.radio, user.strongest, None, self.now
        if user.move is None or user.move.target != user.radio:
            self.drop(user)
            if moved and user.radio != user.server and plan["medium"] != DETOUR:
                if self.has_room(user.radio):
                    self.start(user, plan, user.radio)
                    self.stop_prompt(user)
                else:
                    user.refused += 1
        if user.move:
            user.move.late = user.move.bits_left

    def settle(self, user: User) -> None:
        """Whoever has everything knows when it resumes; who was left behind changes over."""
        move = user.move
        if move and (move.bits_left > 0 or move.job not in ("none", "done")):
            return
        if move and user.cut is None and move.target == user.radio:
            user.cut = user.back = self.now
            self.stop_prompt(user)
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
        user.prompt_since = self.now

    def link_rates(self) -> dict[int, float]:
        """Fill all links at one speed per unit of weight until each transfer has met a full one."""
        flows = {i: u.move for i, u in enumerate(self.users) if u.move and u.move.bits_left > 0}
        links = {(side, c): self.capacity(side, c) for c in range(CELLS) for side in ("out", "in")}
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
            times = [end, *(at for at, _ in due.values()), *(u.resume for u in self.users)]
            times += [*failing.values(), *(u.lost for u in self.users if u.lost is not None)]
            times += [u.ask_at for u in self.users]
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
            until = max(self.now, min(times))
            self.flow(rate, heads, until - self.now)
            self.now = until
            if until >= end:
                break
            for c, at in enumerate(self.batch_end):
                if at is not None and at <= until:
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
            if user.move and user.cut is None:
                self.ship(user)

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
                user.move.job, user.move.gpu_s = self.batch_end[c], share
                user.gpu_s += share

    def flow(self, rate: dict[int, float], heads: dict, elapsed: float) -> None:
        """Let time pass."""
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
            self.users[i].sent += bits
        for user in self.users:
            if user.streaming and user.cut is None:
                pace = RATE * (1 - SLOWDOWN) if self.batch_end[user.server] is not None else RATE
                if user.server in heads:
                    pace = 1 / (1 / RATE + heads[user.server][3])
                user.context += pace * elapsed
                user.tokens += pace * elapsed


def arbitrary(generator: np.random.Generator, hold: bool) -> dict:
    """A plan; the target is kept from step to step by the caller."""
    return dict(target=int(generator.choice([CONTINUE, CONTINUE, CANCEL, *range(CELLS)])),
                medium=int(generator.integers(0, 4)), keep=float(generator.choice([1.0, 0.4])),
                bits=int(generator.choice([16, 8, 4])), weight=float(generator.choice([0.0, 0.25, 1.0, 4.0])),
                prefix=int(generator.integers(0, 2500)),
                prefill_delay_s=float(generator.choice([0.0, 0.0, 0.033, 0.21])) if hold else 0.0)


CASES = [(seed, ()) for seed in range(8)] + [
    (seed + 10 * case, features) for seed in range(4) for case, features in enumerate((
        ("hold",), ("prompts",), ("chunked",), ("places",), ("variation",), ("hold", "prompts", "chunked"),
        ("hold", "prompts", "chunked", "places", "variation"), ("hold", "prompts", "places", "variation")), 1)]


@pytest.mark.parametrize(("seed", "features"), CASES, ids=lambda v: "+".join(v) if isinstance(v, tuple) else str(v))
def test_the_simulator_and_the_reference_agree(city, phy, seed, features):
    generator = np.random.default_rng(seed)
    places = 3 if "places" in features else math.inf
    each = KV_BITS / 8 * SERVING.context_scale * 10**6
    bench, users = Bench(
        city, phy, ues=6, sessions=dict(prompt_tokens=(PROMPT if "prompts" in features else 0.0, 0.0)),
        compute=dict(prefill="chunked" if "chunked" in features else "batch", chunk_tokens=CHUNK,
                     kv_memory_bytes=1e15 if places == math.inf else (places + 0.5) * each),
        backhaul=dict(variation=VARIATION if "variation" in features else 1.0, variation_period_s=PERIOD_S)), []
    bench.cell["speed"][:CELLS] = speed = generator.uniform(0.3, 2.0, CELLS)
    for u in range(6):
        radio, server = int(generator.integers(0, CELLS)), u % CELLS
        users.append(User(radio, float(generator.integers(50, 2500)), bool(u % 2), server))
        bench.put(u, radio, server, users[u].context, users[u].streaming)
        if "prompts" in features and not users[u].streaming:
            bench.ue[u]["pause_left_s"] = users[u].ask_at = float(generator.uniform(0.0, 2.0))
    reference = Reference(users, list(speed), "chunked" in features, places,
                          bench.sim.state.keys[0] if "variation" in features else None)
    for k in range(60):
        plans = [arbitrary(generator, "hold" in features) for _ in users]
        handovers, failures = {}, {}
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
    assert (sum(user.refused for user in users) > 0) == ("places" in features)
    assert (sum(user.prompt_gpu_s for user in users) > 0) == ("prompts" in features)
    for u, user in enumerate(users):
        got = [[e[f] for f in ("time_s", "source", "target", "interruption_s", "context", "prefix")]
               for e in bench.resumed(u)]
        assert np.array(got) == pytest.approx(np.array(user.log), rel=1e-6, abs=1e-6)
        for name, value in (("tokens", user.tokens), ("bits_sent", user.sent), ("wasted_bits", user.waste),
                            ("gpu_s", user.gpu_s), ("wasted_gpu_s", user.gpu_waste), ("refused", user.refused),
                            ("prompt_gpu_s", user.prompt_gpu_s)):
            assert bench.total(name, u) == pytest.approx(value, rel=1e-6, abs=1e-6), name
        lost += bench.total("rlf", u)
        assert np.isfinite(bench.ue[u]["reconnect_s"]) == (user.lost is not None)
        assert (bench.ue[u]["phase"] == IDLE) == (user.move is None and user.cut is None)
        assert (bench.ue[u]["server"], bench.ue[u]["radio"]) == (user.server, user.radio)
    assert lost > 3
