"""Rendering: what frames show, when they change, windows without a display, and what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from kvroam.envs import HandoverEnv
from kvroam.envs.base.drawing import Arc, Chart
from kvroam.envs.handover.config import HandoverConfig, ScoringConfig
from kvroam.envs.handover.drawing import LOOKS, drawing, looks_of
from kvroam.envs.handover.scoring import Scores
from kvroam.envs.handover.world.state import FOLLOWING, IDLE, INTERRUPTED, KV, PREPARING, REPAIRING, TOKEN
from kvroam.envs.render import Renderer, colours
from kvroam.envs.render.chart import ceiling
from kvroam.envs.render.ground import cell_colours
from kvroam.envs.render.history import History

CONFIG = HandoverConfig(num_ues=6, episode_s=3.0, scoring=ScoringConfig(mode="none"))


@pytest.fixture
def env() -> Iterator[HandoverEnv]:
    env = HandoverEnv(CONFIG, render_mode="rgb_array")
    env.reset(seed=1)
    yield env
    env.close()


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def stay(env: HandoverEnv) -> None:
    """One step in which nobody does anything."""
    env.step({agent: np.zeros(len(env.core.task.parts), int) for agent in env.agents})


def frame_of(env: HandoverEnv) -> np.ndarray:
    frame = env.render()
    assert frame is not None
    return frame


def near(frame: np.ndarray, at: np.ndarray, reach: int = 6) -> np.ndarray:
    """The pixels around (x, y)."""
    x, y = np.rint(at).astype(int)
    return frame[max(0, y - reach):y + reach + 1, max(0, x - reach):x + reach + 1]


def share_of(pixels: np.ndarray, colour: colours.Colour) -> float:
    return float((np.abs(pixels.astype(int) - colour).max(axis=-1) <= 12).mean())


def all_at_home(env: HandoverEnv) -> np.ndarray:
    """Make every session whole, streaming and at the gNB of its user; returns the records, to be changed."""
    ue = env.core.task.sim.state.ue[0]
    ue["server"] = ue["target"] = ue["radio"]
    ue["healthy"], ue["streaming"], ue["phase"], ue["then"], ue["stranded"] = True, True, IDLE, IDLE, False
    ue["bits_left"] = ue["bits_sent"] = 0.0
    return ue


def test_a_frame_is_an_own_array_of_the_documented_shape(env: HandoverEnv) -> None:
    frame = frame_of(env)
    assert frame.shape == (600, 800, 3) and frame.dtype == np.uint8
    assert frame.flags.owndata and frame.flags.writeable and frame.flags.c_contiguous
    copy = frame.copy()
    frame[:] = 0
    assert np.array_equal(frame_of(env), copy)


def test_the_same_episode_gives_the_same_frames_and_time_changes_them() -> None:
    def film() -> list[np.ndarray]:
        env = HandoverEnv(CONFIG, render_mode="rgb_array")
        env.reset(seed=4)
        frames = [frame_of(env)]
        for _ in range(3):
            stay(env)
            frames.append(frame_of(env))
        return frames

    first = film()
    assert all(np.array_equal(a, b) for a, b in zip(first, film(), strict=True))
    assert all(not np.array_equal(a, b) for a, b in pairwise(first))


def test_rendering_does_not_change_the_world() -> None:
    digests = []
    for mode in (None, "rgb_array"):
        env = HandoverEnv(CONFIG, render_mode=mode)
        env.reset(seed=2)
        for _ in range(5):
            stay(env)
            if mode:
                env.render()
        digests.append(env.core.digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("change", "state"), [
    ({}, "streaming"),
    ({"streaming": False}, "idle"),
    ({"healthy": False}, "degraded"),
    ({"server": 1, "healthy": False}, "forwarded"),
    ({"phase": FOLLOWING, "origin": 1, "medium": KV, "healthy": False}, "following"),
    ({"phase": REPAIRING, "medium": TOKEN, "healthy": False}, "repairing"),
    ({"server": 1, "phase": INTERRUPTED, "stranded": True}, "stranded"),
    ({"phase": INTERRUPTED, "then": FOLLOWING, "origin": 1, "medium": KV}, "interrupted"),
    ({"server": 1, "phase": PREPARING, "medium": KV}, "preparing"),
    ({"server": 1, "phase": INTERRUPTED, "medium": KV, "healthy": False}, "interrupted"),
])
def test_a_user_has_the_colour_of_what_happens_to_its_session(env: HandoverEnv, change: dict, state: str) -> None:
    ue = all_at_home(env)
    ue["radio"] = ue["server"] = ue["target"] = 0
    for name, value in change.items():
        ue[0][name] = value
    assert LOOKS[looks_of(env.core.task, 0)[0]].name == state
    renderer = Renderer(env.core)
    # Far from the gNBs and their badges, and from the other users.
    far = max(np.ndindex(20, 20), key=lambda k: np.min(np.hypot(
        *(env.core.task.sim.scene.gnb_xyz_m[:, :2] - corner(env, k)).T)))
    ue["x"], ue["y"] = corner(env, (10, 10))
    ue[0]["x"], ue[0]["y"] = corner(env, far)
    frame = renderer.frame(History(0))
    seen = {look.name: share_of(near(frame, renderer.user_px()[0], 5), look.colour) for look in LOOKS}
    assert max(seen, key=lambda s: seen[s]) == state and seen[state] > 0.2


def corner(env: HandoverEnv, place: tuple[int, ...]) -> np.ndarray:
    """A point of a 20 x 20 raster over the map, 10 % away from its edges [m]."""
    scene = env.core.task.sim.scene
    rows, columns = scene.street.shape
    share = 0.1 + 0.8 * np.array(place) / 19
    return np.asarray(scene.origin_m) + share * np.array([columns, rows]) * scene.cell_size_m


def test_a_transfer_is_an_arc_whose_sent_part_is_bright(env: HandoverEnv) -> None:
    ue = all_at_home(env)
    renderer, history = Renderer(env.core), History(0)
    before = renderer.frame(history)
    source, target = 0, 6
    ue[0]["server"], ue[0]["radio"], ue[0]["target"] = source, source, target
    ue[0]["phase"], ue[0]["medium"], ue[0]["bits_left"], ue[0]["bits_sent"] = PREPARING, KV, 1e9, 0.0
    waiting = renderer.frame(history)
    start, end = renderer.gnb_px[source], renderer.gnb_px[target]
    along = end - start
    # The top of the bent line, from the definition of a quadratic Bezier curve.
    top = (start + end) / 2 + 0.11 * np.array([along[1], -along[0]])
    quarter = 0.5625 * start + 0.375 * (2 * top - (start + end) / 2) + 0.0625 * end
    assert np.any(near(before, top, 4) != near(waiting, top, 4))
    assert np.array_equal(near(before, (start + end) / 2, 3), near(waiting, (start + end) / 2, 3))
    assert share_of(near(waiting, quarter, 2), colours.ORANGE) == 0.0
    ue[0]["bits_left"], ue[0]["bits_sent"] = 0.5e9, 0.5e9
    half = renderer.frame(history)
    assert share_of(near(half, quarter, 2), colours.ORANGE) > 0.2
    beyond = 0.0625 * start + 0.375 * (2 * top - (start + end) / 2) + 0.5625 * end
    assert share_of(near(half, beyond, 2), colours.ORANGE) == 0.0
    # A faster transfer is a wider line.
    env.core.task.sim.state.flow[0][0]["bits_sent"] = 4e9 * env.core.task.sim.interval_s
    fast = renderer.frame(history)
    assert share_of(near(fast, quarter, 8), colours.ORANGE) > 1.5 * share_of(near(half, quarter, 8), colours.ORANGE)


def test_transfers_say_what_is_sent_and_at_what_rate(env: HandoverEnv) -> None:
    ue = all_at_home(env)
    ue[2]["phase"], ue[2]["medium"], ue[2]["server"], ue[2]["target"] = PREPARING, KV, 3, 5
    ue[2]["bits_sent"], ue[2]["bits_left"] = 3e8, 1e8
    nominal_bps = float(env.core.task.sim.params["capacity_bps"][0])
    env.core.task.sim.state.flow[0][2]["bits_sent"] = 0.5 * nominal_bps * env.core.task.sim.interval_s
    ue[4]["phase"], ue[4]["medium"], ue[4]["server"], ue[4]["target"] = INTERRUPTED, TOKEN, 5, 3
    drawn = drawing(env.core.task, 0)
    kv, token = drawn.arcs
    preparing, interrupted = (next(k for k, look in enumerate(LOOKS) if look.name == name)
                              for name in ("preparing", "interrupted"))
    # Half of what a link has: the square root of its share.
    assert kv == Arc(3, 5, preparing, pytest.approx(0.5 ** 0.5), pytest.approx(0.75), pytest.approx(nominal_bps / 2))
    assert token == Arc(5, 3, interrupted, None, 1.0, 0.0)
    assert drawn.total == f"backhaul carries {nominal_bps / 2e9:.1f} Gbit/s"
    assert [drawn.shape[u] for u in (0, 2, 4)] == ["disc", "square", "triangle"]


def test_a_rest_comes_from_the_origin_and_a_repair_from_nowhere(env: HandoverEnv) -> None:
    ue = all_at_home(env)
    ue["server"] = ue["target"] = ue["radio"] = ue["origin"] = 2
    ue[:3]["origin"], ue[:3]["medium"], ue[:3]["bits_left"], ue[:3]["bits_sent"] = 7, KV, 3e8, 1e8
    ue["phase"][:3], ue["then"][:3] = [FOLLOWING, INTERRUPTED, REPAIRING], [IDLE, FOLLOWING, IDLE]
    arcs = drawing(env.core.task, 0).arcs
    assert [(arc.source, arc.target, LOOKS[arc.look].name) for arc in arcs] == [(7, 2, "following"),
                                                                                (7, 2, "interrupted")]
    assert all(arc.done == pytest.approx(0.25) for arc in arcs)


def test_the_legend_names_every_look_once_and_fits_the_smallest_frame(env: HandoverEnv) -> None:
    assert len({look.name for look in LOOKS}) == len(LOOKS) == len({look.meaning for look in LOOKS})
    words = Renderer(env.core, size=(760, 560)).frame(History(0))[:, -230:]
    text = (np.abs(words.astype(int) - colours.PANEL).max(axis=-1) > 40).any(axis=1)
    assert text[520:555].any() and not text[557:].any()


def test_the_panel_says_what_the_step_costs_and_what_of_it_is_unavoidable(env: HandoverEnv) -> None:
    assert [value for _, value in env.core.task.drawing(0).numbers] == ["0.000", "0.000"]
    stay(env)
    flow = env.core.task.sim.state.flow[0]
    for name in flow.dtype.names:
        flow[name] = 0
    flow["interruption_s"][:2], flow["unavoidable_s"][:2] = [0.09, 0.06], [0.03, 0.03]
    # 0.15 s of six users in 0.1 s at a price of 1.
    assert [value for _, value in env.core.task.drawing(0).numbers] == ["0.250", "0.100"]


def test_a_session_left_behind_draws_its_forwarding_once(env: HandoverEnv) -> None:
    ue = all_at_home(env)
    ue["radio"] = ue["server"] = 2
    assert drawing(env.core.task, 0).dashes == ()
    ue["server"][:3] = 7
    assert [dash[:2] for dash in drawing(env.core.task, 0).dashes] == [(7, 2)]
    # Also while it is being fetched; not while its user is out of service.
    ue["phase"][:3] = PREPARING
    assert [dash[:2] for dash in drawing(env.core.task, 0).dashes] == [(7, 2)]
    ue["phase"][:3] = INTERRUPTED
    assert drawing(env.core.task, 0).dashes == ()


def test_a_gnb_shows_its_loads_and_its_memory(env: HandoverEnv) -> None:
    cell, view = env.core.task.sim.state.cell[0], env.core.view
    cell["load"][:2], cell["memory_bytes"][:2] = [0.3, 1.4], [40e9, 80e9]
    view.prefill_wait_s[0, :2], view.free_memory_bytes[0, :2] = [0.0, 0.25], [10e9, 80e9]
    radio, prefill, memory = (share for _, share in drawing(env.core.task, 0).bars)
    assert radio[:2].tolist() == [0.3, 1.0] and prefill[:2].tolist() == [0.0, 0.5]
    assert memory[:2].tolist() == [0.75, 0.0]


def test_the_history_has_each_step_of_the_last_20_s_once_and_begins_anew_with_an_episode() -> None:
    now = SimpleNamespace(time_s=0.0, charts=(Chart("", colours.SKY, 1.0, 0.0), Chart("", colours.SKY, 1.0, None)))
    core, history = SimpleNamespace(task=SimpleNamespace(drawing=lambda env: now)), History()
    history.record(core)
    assert not history.points
    for step in range(1, 301):
        now.time_s, now.charts = 0.1 * step, (replace(now.charts[0], value=float(step)), now.charts[1])
        history.record(core)
        history.record(core)
    assert len(history.points) == 200
    assert history.points[-1] == (pytest.approx(30.0), (300.0, None))
    assert history.points[0][0] == pytest.approx(10.1)
    now.time_s = 0.1
    history.record(core)
    assert len(history.points) == 1


def test_the_charts_of_handover_are_waiting_drift_and_wrong_answers() -> None:
    scored = HandoverEnv(HandoverConfig(num_ues=2, episode_s=1.0))
    scored.reset(seed=0)
    task = scored.core.task
    task.sim.state.flow["interruption_s"][0] = [0.05, 0.1]
    task.sim.state.flow["late_s"][0], task.sim.state.flow["slow_s"][0] = [0.02, 0.0], [0.0, 0.03]
    task.scores = Scores.zeros((1, 2))
    task.scores.kl[0], task.scores.wrong[0] = [0.5, 0.25], [0.0, 2.0]
    assert [chart.value for chart in drawing(task, 0).charts] == [pytest.approx(200.0), 0.75, 2.0]
    physics = HandoverEnv(CONFIG)
    physics.reset(seed=0)
    assert [chart.value is None for chart in physics.core.task.drawing(0).charts] == [False, True, True]


def test_the_chart_of_service_lost_has_a_bar_as_high_as_the_loss(env: HandoverEnv) -> None:
    renderer = Renderer(env.core)
    env.core.task.sim.state.world["time_s"] = 20.0
    heights = []
    for lost in (50.0, 100.0):
        history = History(0)
        history.points.append((20.0, (lost, None, None)))
        chart = renderer.frame(history)[600 - 104:, 30:180]
        heights.append((np.abs(chart.astype(int) - colours.VERMILLION).max(axis=-1) == 0).any(axis=1).sum())
    assert heights[0] > 10 and heights[1] == pytest.approx(2 * heights[0], abs=1)


@pytest.mark.parametrize(("value", "expected"), [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (30.0, 50.0), (501.0, 1000.0),
                                                 (0.03, 0.05)])
def test_an_axis_ends_at_a_round_number_that_is_not_below_its_values(value: float, expected: float) -> None:
    assert ceiling(value) == pytest.approx(expected)


def test_neighbouring_cells_have_different_colours() -> None:
    best = np.repeat(np.repeat(np.arange(4).reshape(2, 2), 5, axis=0), 5, axis=1)
    colours = cell_colours(best, np.ones(best.shape, bool), 4)
    assert len({colours[0], colours[1], colours[2]}) == 3 and len({colours[1], colours[2], colours[3]}) == 3


def test_another_environment_of_a_batch_is_drawn_as_it_would_be_alone() -> None:
    from kvroam.envs import make_core

    batch, alone = make_core(CONFIG, 2), make_core(CONFIG)
    batch.reset([5, 6])
    alone.reset([6])
    history = History(0)
    assert np.array_equal(Renderer(batch, 1).frame(history), Renderer(alone).frame(history))
    assert not np.array_equal(Renderer(batch, 0).frame(history), Renderer(alone).frame(history))
    with pytest.raises(ValueError, match=r"environment 2 .* there are 2"):
        Renderer(batch, 2)
    with pytest.raises(ValueError, match="64 x 48"):
        Renderer(batch, 0, size=(64, 48))


def test_human_mode_shows_every_step_in_a_window_that_close_releases() -> None:
    import pygame

    env = HandoverEnv(CONFIG, render_mode="human")
    assert env.reset(seed=1) and pygame.display.get_surface().get_size() == (800, 600)
    shown = []
    for _ in range(2):
        stay(env)
        shown.append(pygame.surfarray.array3d(pygame.display.get_surface()))
    assert shown[0].any() and not np.array_equal(*shown)
    assert env.render() is None
    env.close()
    assert pygame.display.get_surface() is None
    env.close()


def test_the_window_shows_what_the_array_holds() -> None:
    import pygame

    frames = []
    for mode in ("human", "rgb_array"):
        env = HandoverEnv(CONFIG, render_mode=mode)
        env.reset(seed=1)
        stay(env)
        frames.append(env.render())
        if mode == "human":
            frames[0] = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        env.close()
    assert np.array_equal(*frames)


def test_render_modes_and_the_rate_of_frames_are_declared() -> None:
    env = HandoverEnv({"interval_s": 0.05, "episode_s": 1.0, "scoring": {"mode": "none"}}, render_mode="rgb_array")
    assert env.metadata["render_modes"] == ["human", "rgb_array"] and env.metadata["render_fps"] == 20
    assert HandoverEnv.metadata["render_fps"] == 10 and env.render_mode == "rgb_array"


def test_an_unknown_mode_is_refused_and_no_mode_warns() -> None:
    with pytest.raises(gymnasium.error.UnsupportedMode, match=r"'ansi'.*human, rgb_array"):
        HandoverEnv(CONFIG, render_mode="ansi")
    env = HandoverEnv(CONFIG)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert env.render() is None
    env.close()


def test_a_frame_before_the_first_reset_is_refused() -> None:
    with pytest.raises(RuntimeError, match="reset"):
        HandoverEnv(CONFIG, render_mode="rgb_array").render()


def test_an_environment_that_was_drawn_can_be_pickled(env: HandoverEnv) -> None:
    stay(env)
    frame = frame_of(env)
    viewer = pickle.loads(pickle.dumps(env._viewer))
    assert np.array_equal(viewer.render(), frame)


def test_pygame_is_imported_by_the_first_frame_only() -> None:
    program = ("import sys, kvroam; from kvroam.envs import HandoverEnv; "
               "env = HandoverEnv({'scoring': {'mode': 'none'}}, render_mode='rgb_array'); env.reset(seed=0); "
               "assert 'pygame' not in sys.modules; env.render(); assert 'pygame' in sys.modules")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_pygame_the_error_names_the_remedy(env: HandoverEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(gymnasium.error.DependencyNotInstalled, match=r"kvroam\[render\]"):
        env.render()


def test_the_palette_is_the_one_that_okabe_and_ito_published() -> None:
    published = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
                 (240, 228, 66)]
    assert list(colours.ALL[:7]) == published
    assert colours.blend((200, 100, 0), (0, 0, 0), 0.5) == (100, 50, 0)
    assert {look.colour for look in LOOKS} <= set(colours.ALL)
    assert len({look.colour for look in LOOKS}) == len(LOOKS)
