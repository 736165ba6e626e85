"""Pallas: its formula against the simulator, the window against a fine search, and the policy under way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvroam.agents.handover.pallas import Pallas, service_interruption_s, window
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import IDLE, INTERRUPTED, KV, PREPARING, SPLIT, TOKEN

from ..envs.sim_bench import FIRST_TOKEN_S, KV_BITS, RADIO_S, SERVING, Bench

NUMBERS = dict(decode_tokens_per_s=25.0, prefill_s_per_token=1e-4, load_s=2e-3)


def simulated_s(city, phy, steps: int, late_s: float, capacity_bps: float, context: float, split: bool,
                streaming: bool) -> float:
    """Interruption when cell 1 prepares for `steps` intervals and the handover comes `late_s` into the next [s]."""
    bench = Bench(city, phy, serving=dict(restore_bytes_per_s=1e18), backhaul=dict(capacity_bps=capacity_bps))
    bench.put(0, context=context, streaming=streaming)
    bench.step(3)
    bench.plan(0, target=1, medium=SPLIT if split else TOKEN)
    bench.step(steps)
    if not steps:
        bench.plan(0, target=-1)  # nothing is prepared: the same medium at the handover
    bench.hand_over(0, 1, bench.sim.state.world["time_s"][0] + late_s)
    return float(bench.until_resumed(most=3000)["interruption_s"])


@pytest.mark.parametrize("capacity_bps", [1e9, 2e7, 8e6])
@pytest.mark.parametrize(("steps", "late_s"), [(0, 0.0), (1, 0.03), (3, 0.05), (12, 0.0), (20, 0.07)])
@pytest.mark.parametrize(("split", "context", "streaming"), [
    (False, 300.0, True), (False, 6000.0, True), (False, 6000.0, False), (True, 6000.0, True), (True, 900.0, False)])
def test_the_formula_is_what_the_simulator_does(city, phy, capacity_bps, steps, late_s, split, context, streaming):
    length = steps * 0.1 + late_s
    begun = context + 25.0 * 0.3 if streaming else context  # tokens when the preparation starts
    found, _ = service_interruption_s(
        length, remaining_s=length, context_tokens=begun, split=split, block_s=0.1, radio_s=RADIO_S,
        floor_s=FIRST_TOKEN_S, backhaul_tokens_per_s=capacity_bps / KV_BITS,
        **(NUMBERS | dict(decode_tokens_per_s=25.0 if streaming else 0.0)))
    # The simulator sends whole tokens of a split, so that its two halves end up to one prefilled token apart.
    rounding = KV_BITS / capacity_bps if split else 0.0
    assert simulated_s(city, phy, steps, late_s, capacity_bps, context, split, streaming) == pytest.approx(
        float(found), abs=1e-6 + rounding, rel=0.0)


def test_streamed_without_blocks_it_is_the_formula_of_the_paper():
    generator = np.random.default_rng(0)
    for _ in range(300):
        w, extra, k, d, b, a, load, floor = generator.uniform(0, [3, 2, 5000, 50, 60, 1e-3, 0.1, 0.2])
        history = k + d * extra
        prefill = load + history * a
        residual = max(0.0, d * w / b - w)
        found, early = service_interruption_s(w, remaining_s=w + extra, context_tokens=k, decode_tokens_per_s=d,
                                              backhaul_tokens_per_s=b, prefill_s_per_token=a, load_s=load,
                                              floor_s=floor)
        assert found == pytest.approx(floor + max(0.0, prefill - w, residual))
        assert early == pytest.approx(max(0.0, w - prefill))


def test_the_grid_finds_the_cost_of_a_hundred_times_finer_search():
    generator = np.random.default_rng(1)
    count = 200
    remaining, context = generator.uniform(0.0, 8.0, count), generator.uniform(0.0, 9000.0, count)
    world = dict(decode_tokens_per_s=generator.uniform(0, 40, count), prefill_s_per_token=3e-4, load_s=0.01,
                 backhaul_tokens_per_s=10.0 ** generator.uniform(0.5, 4, count))
    found = window(remaining, context, **world)
    for i in range(count):
        every = np.linspace(0.0, min(5.0, remaining[i]), 6401)
        one = {name: value[i] if np.ndim(value) else value for name, value in world.items()}
        interruption, early = service_interruption_s(every, remaining_s=remaining[i], context_tokens=context[i], **one)
        cost = 0.8 * interruption + 0.2 * early
        # J changes by at most (alpha + its slope) per second of window, and the grid's step is T_max / 64.
        assert cost.min() - 1e-12 <= found.cost[i] <= cost.min() + 2.0 * every[-1] / 64
        assert found.window_s[i] <= min(5.0, remaining[i])
        assert found.cost[i] == pytest.approx(0.8 * found.interruption_s[i] + 0.2 * found.early_s[i])


def test_without_decoding_the_window_is_the_prefill():
    found = window(4.0, 1000.0, decode_tokens_per_s=0.0, backhaul_tokens_per_s=100.0, prefill_s_per_token=1e-3,
                   points=4001)
    assert found.window_s == pytest.approx([1.0], abs=1e-3)
    assert found.interruption_s == pytest.approx([0.0], abs=2e-3)


def test_nothing_to_prepare_needs_no_window():
    found = window([3.0, 0.0], [0.0, 500.0], decode_tokens_per_s=0.0, backhaul_tokens_per_s=0.0,
                   prefill_s_per_token=1e-3)
    assert found.window_s.tolist() == [0.0, 0.0]
    assert found.interruption_s == pytest.approx([0.0, 0.5])
    assert window([], [], decode_tokens_per_s=1.0, backhaul_tokens_per_s=1.0, prefill_s_per_token=1.0).cost.size == 0


@pytest.mark.parametrize(("name", "value"), [
    ("remaining_s", -1.0), ("remaining_s", math.inf), ("context_tokens", -1.0), ("context_tokens", math.nan),
    ("backhaul_tokens_per_s", -1.0), ("prefill_s_per_token", -1e-9), ("alpha", 1.5), ("points", 1)])
def test_a_bad_argument_is_named(name, value):
    world = dict(remaining_s=1.0, context_tokens=1.0, decode_tokens_per_s=1.0, backhaul_tokens_per_s=1.0,
                 prefill_s_per_token=1.0)
    with pytest.raises(ValueError, match=name):
        window(**(world | {name: value}))


@pytest.mark.parametrize(("fields", "says"), [
    (dict(bits=5), "bits is 5"), (dict(alpha=-1.0), "alpha"), (dict(medium="kv"), "medium is 'kv'"),
    (dict(longest_s=0.0), "longest_s")])
def test_a_policy_that_cannot_be_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        Pallas(**fields)


class Scripted(Pallas):
    """Pallas that is told what to expect."""

    expected = (-1, np.inf)

    def forecast(self, view):
        shape = (view.num_envs, view.num_ues)
        return np.full(shape, self.expected[0]), np.full(shape, self.expected[1], float)


def drive(bench, policy, view, steps, cell, at_s):
    """Steps under `policy`, which expects a handover to `cell` at `at_s`; the phases after each step."""
    phases = []
    for _ in range(steps):
        policy.expected = (cell, max(0.0, at_s - view.time_s[0]))
        bench.plans = policy.act(view)
        bench.step()
        view.refresh()
        phases.append(int(bench.ue[0]["phase"]))
    return phases


@pytest.fixture
def stage(city, phy):
    """A UE with 12000 tokens that answers, a view of it, and Pallas."""
    bench = Bench(city, phy)
    bench.put(0, context=12_000.0, streaming=True)
    view, policy = NetworkView(bench.sim, 3), Scripted()
    policy.reset(view)
    return bench, view, policy


def test_it_starts_once_the_window_opens_and_is_ready_at_the_handover(stage):
    bench, view, policy = stage
    phases = drive(bench, policy, view, 40, 1, 4.05)
    begun = phases.index(PREPARING)
    # 12,000 tokens take 1.2 s; the last decision before the window opens is at 2.8 s.
    assert begun in (26, 27, 28) and set(phases[:begun]) == {IDLE}
    bench.hand_over(0, 1, 4.05)
    event = bench.until_resumed()
    expected = RADIO_S + FIRST_TOKEN_S
    assert event["medium"] == TOKEN
    assert event["interruption_s"] == pytest.approx(expected, abs=2e-3)


def test_a_wrong_target_is_cancelled_and_the_right_one_prepared(stage):
    bench, view, policy = stage
    drive(bench, policy, view, 2, 1, 1.0)
    assert (bench.ue[0]["phase"], bench.ue[0]["target"]) == (PREPARING, 1)
    drive(bench, policy, view, 1, 2, 1.0)
    assert (bench.ue[0]["phase"], bench.ue[0]["target"]) == (PREPARING, 2)
    drive(bench, policy, view, 1, 3, 60.0)
    assert bench.ue[0]["phase"] == IDLE
    assert bench.total("wasted_gpu_s") > 0.0


def test_a_handover_that_never_comes_is_given_up(stage):
    bench, view, policy = stage
    phases = drive(bench, policy, view, 1, 1, 0.5) + drive(bench, policy, view, 70, -1, np.inf)
    held = phases.count(PREPARING)
    assert 50 <= held <= 60 and phases[-1] == IDLE


def test_an_unforeseen_handover_is_recomputed(stage):
    bench, view, policy = stage
    drive(bench, policy, view, 2, -1, np.inf)
    bench.plans = policy.act(view)
    bench.hand_over(0, 1, 0.2)
    event = bench.until_resumed()
    assert (event["medium"], event["target"]) == (TOKEN, 1)
    assert event["interruption_s"] == pytest.approx(12_005 * 1e-4 + SERVING.prefill_overhead_s + FIRST_TOKEN_S,
                                                    abs=1e-3)


def test_with_compression_the_increments_are_smaller(city, phy):
    sent = {}
    for bits in (16, 4):
        bench = Bench(city, phy)
        bench.put(0, context=3000.0, streaming=True)
        view, policy = NetworkView(bench.sim, 3), Scripted(bits=bits)
        policy.reset(view)
        drive(bench, policy, view, 10, 1, 0.1)
        sent[bits] = bench.total("bits_sent")
    assert sent[4] == pytest.approx(sent[16] * SERVING.kv_bits_per_token(4) / KV_BITS, rel=1e-6) and sent[4] > 0.0


def test_split_sends_part_of_the_prefix(city, phy):
    bench = Bench(city, phy)
    bench.put(0, context=3000.0)
    view, policy = NetworkView(bench.sim, 3), Scripted(medium="split")
    policy.reset(view)
    drive(bench, policy, view, 1, 1, 0.1)
    assert 0.0 < bench.ue[0]["prefix"] < 3000.0 and bench.ue[0]["medium"] == SPLIT != KV
    assert bench.ue[0]["phase"] in (PREPARING, INTERRUPTED)


def test_a_full_server_is_not_prepared(stage):
    bench, view, policy = stage
    policy.expected = (1, 0.1)
    assert policy.act(view)["target"][0, 0] == 1
    bench.cell[1]["memory_bytes"] = 0.0
    view.refresh()
    assert policy.act(view)["target"][0, 0] == -1


def test_a_busy_server_is_asked_earlier(stage):
    bench, view, policy = stage
    # Free from 3.5 s on, for 1.2 s of prefill: already too late for a handover at 4.05 s.
    bench.cell[1]["busy_until"] = 3.5
    view.refresh()
    assert drive(bench, policy, view, 1, 1, 4.05) == [PREPARING]


def test_it_gives_up_a_while_after_the_last_forecast(stage):
    bench, view, policy = stage
    phases = drive(bench, policy, view, 6, 1, 0.5) + drive(bench, policy, view, 100, -1, np.inf)
    assert set(phases[:54]) == {PREPARING} and set(phases[57:]) == {IDLE}


@pytest.mark.parametrize(("ingress", "steps"), [(1.0, 4), (1.0, 12), (0.3, 4)])
def test_the_window_is_searched_with_what_was_seen(city, phy, ingress, steps):
    # UE 0 has not answered yet, UE 1 has at 25 token/s, UE 2 is sending from the same cell all the time.
    slow = 1.2e7
    bench = Bench(city, phy, ues=3, backhaul=dict(capacity_bps=slow), serving=dict(prefill_s_per_token=2e-4))
    bench.put(0, context=12_000.0)
    bench.put(1, radio=5, streaming=True)
    bench.put(2, context=9000.0)
    bench.cell["ingress_bps"][1] *= ingress
    bench.plan(2, target=3, medium=KV)
    bench.step()
    view, policy = NetworkView(bench.sim, 3), Pallas()
    policy.reset(view)
    for _ in range(steps):
        policy.act(view)
        bench.step()
        view.refresh()
    policy.act(view)
    found = policy._window_s(view, np.array([0]), np.array([0]), np.array([1]), np.array([2.5]))
    # A moving average that begins at 1 and is pulled towards one half, once at each of the decisions.
    share = 0.5 + 0.5 * 0.8 ** (steps + 1)
    expected = window(2.5, 12_000.0, decode_tokens_per_s=25.0, prefill_s_per_token=2e-4,
                      backhaul_tokens_per_s=min(slow * share, slow * ingress) / KV_BITS,
                      load_s=SERVING.prefill_overhead_s, block_s=0.1)
    assert found == pytest.approx(expected.window_s, abs=1e-9)
    assert 0.1 < found[0] < 2.4
