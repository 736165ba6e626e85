"""Arbitrary plans and handovers, simulated a second time by a plain Python program that knows only the design."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvroam.envs.handover.world.state import BACKFILLED, CANCEL, CONTINUE, IDLE, REPAIRED

from .reference_world import CELLS, CHUNK, PERIOD_S, PROMPT, VARIATION, Reference, User
from .sim_bench import KV_BITS, SERVING, Bench

STEP_S = 0.1
TOTALS = ("tokens", "bits_sent", "wasted_bits", "gpu_s", "wasted_gpu_s", "refused", "prompt_gpu_s", "interruption_s",
          "unavoidable_s", "detour_s", "forwarded_bits")


def arbitrary(generator: np.random.Generator, features: tuple[str, ...], healthy: bool) -> dict:
    """A plan; the target is kept from step to step by the caller."""
    plan = dict(target=int(generator.choice([CONTINUE, CONTINUE, CANCEL, *range(CELLS)])),
                medium=int(generator.integers(0, 4)), keep=float(generator.choice([1.0, 0.4])),
                bits=int(generator.choice([16, 8, 4])), weight=float(generator.choice([0.0, 0.25, 1.0, 4.0])),
                prefix=int(generator.integers(0, 2500)), prefill_delay_s=0.0, backfill=0.0, arrival=0, repair=0)
    if "hold" in features:
        plan["prefill_delay_s"] = float(generator.choice([0.0, 0.0, 0.033, 0.21]))
    if "rests" in features:
        plan |= dict(backfill=float(generator.choice([0.0, 0.5, 2.0])), arrival=int(generator.integers(0, 3)),
                     repair=int(not healthy and generator.random() < 0.3))
    return plan


# local: nothing is forwarded; near: over one hop; rests: of caches follow, arrivals and repairs are planned.
FEATURES = (
    ("hold",), ("prompts",), ("chunked",), ("places",), ("variation",), ("hold", "prompts", "chunked"),
    ("hold", "prompts", "chunked", "places", "variation"), ("hold", "prompts", "places", "variation"),
    ("rests",), ("local",), ("local", "places"), ("near",), ("shared",), ("rests", "local"),
    ("rests", "near", "prompts", "chunked"),
    ("rests", "near", "hold", "prompts", "places", "variation"),
    ("rests", "local", "hold", "prompts", "chunked", "places", "variation", "shared"))
CASES = [(seed, ()) for seed in range(8)] + [
    (seed + 10 * case, features) for seed in range(4) for case, features in enumerate(FEATURES, 1)]


@pytest.mark.parametrize(("seed", "features"), CASES, ids=lambda v: "+".join(v) if isinstance(v, tuple) else str(v))
def test_the_simulator_and_the_reference_agree(city, phy, seed, features):
    generator = np.random.default_rng(seed)
    places = 3 if "places" in features else math.inf
    reach = 0 if "local" in features else 1 if "near" in features else 8
    each = KV_BITS / 8 * SERVING.context_scale * 10**6
    bench, users = Bench(
        city, phy, ues=6, sessions=dict(prompt_tokens=(PROMPT if "prompts" in features else 0.0, 0.0)),
        compute=dict(prefill="chunked" if "chunked" in features else "batch", chunk_tokens=CHUNK,
                     decode="shared" if "shared" in features else "alone",
                     kv_memory_bytes=1e15 if places == math.inf else (places + 0.5) * each),
        backhaul=dict(variation=VARIATION if "variation" in features else 1.0, variation_period_s=PERIOD_S,
                      forwarding=reach or "none")), []
    bench.cell["speed"][:CELLS] = speed = generator.uniform(0.3, 2.0, CELLS)
    hops = bench.sim.tables.hops
    for u in range(6):
        radio, server = int(generator.integers(0, CELLS)), u % CELLS
        radio = radio if hops[server, radio] <= reach else server
        users.append(User(radio, float(generator.integers(50, 2500)), bool(u % 2), server))
        bench.put(u, radio, server, users[u].context, users[u].streaming)
        if "prompts" in features and not users[u].streaming:
            bench.ue[u]["pause_left_s"] = users[u].ask_at = float(generator.uniform(0.0, 2.0))
    reference = Reference(users, list(speed), hops, reach, "chunked" in features, places,
                          bench.sim.state.keys[0] if "variation" in features else None,
                          SERVING.kv_read_s_per_token if "shared" in features else 0.0)
    for k in range(60):
        plans = [arbitrary(generator, features, user.healthy) for user in users]
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
    compare(bench, users)
    assert sum(len(user.log) for user in users) > 20 and bench.total("rlf") > 3
    assert (sum(user.prompt_gpu_s for user in users) > 0) == ("prompts" in features)
    assert sum(user.refused for user in users) > 0 or "places" not in features
    kinds = {kind for user in users for kind, *_ in user.log}
    assert kinds & {BACKFILLED, REPAIRED} or features != ("rests",)


def compare(bench: Bench, users: list[User]) -> None:
    """Events, totals and states are the same."""
    for u, user in enumerate(users):
        got = [[e[f] for f in ("kind", "time_s", "source", "target", "interruption_s", "felt_s", "context", "prefix")]
               for e in bench.events if e["ue"] == u]
        assert np.array(got) == pytest.approx(np.array(user.log), rel=1e-6, abs=1e-6)
        for name in TOTALS:
            assert bench.total(name, u) == pytest.approx(getattr(user, name), rel=1e-6, abs=1e-6), name
        me = bench.ue[u]
        assert me["context"] - me["held"] == pytest.approx(user.lacks, abs=1e-6)
        assert (me["healthy"], me["stranded"]) == (user.healthy, user.stranded)
        assert np.isfinite(me["reconnect_s"]) == (user.lost is not None)
        assert (me["phase"] == IDLE) == (user.move is None and user.cut is None)
        assert (me["server"], me["radio"]) == (user.server, user.radio)
