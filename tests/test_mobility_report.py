"""The mobility report: its numbers from hand-made courses, and the whole command once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kvroam.benchmarks.mobility import accuracy, command, fluid_flow_per_min, movement, stays

STEP_S, STEPS = 0.1, 200


def seen(changes: list[tuple[float, int]], predictions: list[tuple[float, int, float]] = ()) -> dict[str, np.ndarray]:
    """One UE that starts in cell 0: its changes (time, cell), and predictions (from when, cell, for when)."""
    radio, since = np.zeros(STEPS + 1, int), np.full(STEPS + 1, -np.inf)
    handovers = np.zeros(STEPS, int)
    for at_s, cell in changes:
        step = int(np.ceil(at_s / STEP_S - 1e-9))
        radio[step:], since[step:], handovers[step - 1] = cell, at_s, 1
    cell, at = np.full(STEPS + 1, -1), np.full(STEPS + 1, np.inf)
    for from_s, which, for_s in predictions:
        begin = round(from_s / STEP_S)
        cell[begin:], at[begin:] = which, for_s
    arrays = dict(radio=radio, since_s=since, velocity_cell=cell, velocity_s=at, handovers=handovers,
                  rlf=np.zeros(STEPS, int), handover_failures=np.zeros(STEPS, int), out=np.zeros(STEPS + 1, bool))
    return {name: values[:, None, None] for name, values in arrays.items()}


def test_stays_are_those_that_begin_and_end_within_the_episode():
    made = seen([(2.03, 1), (2.55, 0), (9.0, 2), (12.5, 1)])
    length, back = stays(made["radio"][:, 0, 0], made["since_s"][:, 0, 0])
    assert length == pytest.approx([0.52, 6.45, 3.5])
    assert back.tolist() == [True, False, False]


def test_rates_and_shares_of_a_hand_made_course():
    made = seen([(2.03, 1), (2.55, 0), (9.0, 2), (12.5, 1)])
    made["rlf"][50:53, 0, 0] = 1
    made["handover_failures"][50, 0, 0] = 1
    made["out"][:50] = True
    numbers = movement(made, np.array([0]), STEP_S)
    assert numbers["ue_minutes"] == pytest.approx(20 / 60) and numbers["handovers_per_min"] == pytest.approx(12)
    assert numbers["pingpong_share"] == 0.25 and numbers["rlf_per_min"] == pytest.approx(9)
    assert numbers["handover_failure_share"] == 0.2 and numbers["out_of_coverage_share"] == pytest.approx(50 / 201)
    assert numbers["stay_median_s"] == pytest.approx(3.5)


def test_a_stay_of_more_than_the_minimum_is_no_pingpong():
    assert movement(seen([(2.0, 1), (3.1, 0)]), np.array([0]), STEP_S)["pingpong_share"] == 0.0


def test_hits_errors_and_silence_by_lead():
    made = seen([(5.04, 1), (12.04, 2)], [(2.0, 1, 5.5), (4.0, 3, 5.0), (5.1, -1, np.inf), (10.5, 2, 12.0)])
    by_lead = accuracy(made, np.array([0]), STEP_S)
    one, two, four = (by_lead[lead] for lead in ("1", "2", "4"))
    # One second before, cell 3 was named for the first handover and the right one for the second.
    assert (one["handovers"], one["hit_share"], one["other_cell_share"], one["none_share"]) == (2, 0.5, 0.5, 0.0)
    assert one["time_error_s"] == pytest.approx(0.04)
    # Two seconds before: right for the first, nothing yet for the second.
    assert (two["hit_share"], two["other_cell_share"], two["none_share"]) == (0.5, 0.0, 0.5)
    assert two["time_error_s"] == pytest.approx(0.46)
    # Four seconds before, nothing at all.
    assert (four["handovers"], four["none_share"]) == (2, 1.0) and np.isnan(four["time_error_s"])


def test_a_handover_in_a_stay_that_is_younger_than_the_lead_is_not_asked_about():
    made = seen([(5.04, 1), (7.04, 2)])
    assert [accuracy(made, np.array([0]), STEP_S)[lead]["handovers"] for lead in ("1", "2", "4")] == [2, 1, 1]


def test_false_alarms_are_predictions_that_come_to_nothing_within_the_horizon():
    # Samples every 0.5 s: 2.0 ... 4.5 name cell 3 for 6.0 s, in vain; 5.0 and after name cell 1, and it comes at 9.0.
    made = seen([(9.0, 1)], [(2.0, 3, 6.0), (5.0, 1, 9.0), (9.0, -1, np.inf)])
    by_lead = accuracy(made, np.array([0]), STEP_S)
    assert (by_lead["4"]["alarms"], by_lead["4"]["false_alarm_share"]) == (6 + 8, pytest.approx(6 / 14))
    assert (by_lead["2"]["alarms"], by_lead["2"]["false_alarm_share"]) == (2 + 4, pytest.approx(2 / 6))


def test_fluid_flow_is_what_random_lines_over_a_hexagonal_grid_cross():
    generator, spacing = np.random.default_rng(0), 100.0
    axis = np.arange(-25, 26)
    i, j = (a.ravel() for a in np.meshgrid(axis, axis))
    sites = spacing * np.stack([i + 0.5 * j, np.sqrt(3) / 2 * j], -1)
    crossings, length = 0, 300.0
    for _ in range(300):
        angle, start = generator.uniform(0, 2 * np.pi), generator.uniform(-spacing, spacing, 2)
        points = start + np.linspace(0, length, 301)[:, None] * [np.cos(angle), np.sin(angle)]
        near = sites[np.hypot(*sites.T) < 700.0]
        cell = np.argmin(((points[:, None] - near[None]) ** 2).sum(-1), axis=1)
        crossings += int((np.diff(cell) != 0).sum())
    per_metre = crossings / (300 * length)
    assert fluid_flow_per_min((10.0, 14.0), spacing) == pytest.approx(60 * 12 * per_metre, rel=0.05)


def test_the_command_writes_a_page_numbers_and_a_figure(tmp_path, capsys):
    out = tmp_path / "docs"
    command(["--scenes", "simple_street_canyon", "--episodes", "2", "--duration", "30", "--out", str(out)])
    results = json.loads((out / "mobility.json").read_text(encoding="utf-8"))
    vehicles = results["scenes"]["simple_street_canyon"]["vehicles"]
    assert vehicles["ue_minutes"] == pytest.approx(12 * 2 * 0.5) and vehicles["handovers"] > 10
    page = (out / "mobility.md").read_text(encoding="utf-8")
    line, streets = (vehicles["predictor"][name]["4"] for name in ("velocity", "streets"))
    assert line["handovers"] == streets["handovers"] > 5 and streets["hit_share"] >= line["hit_share"]
    assert "street map" in page and f"{streets['hit_share']:.1%}" in page
    assert f"{vehicles['handovers_per_min']:.2f}" in page and results["command"] in page
    assert (out / "mobility_simple_street_canyon.png").stat().st_size > 10_000
    assert page in capsys.readouterr().out
    again = tmp_path / "again"
    command(["--scenes", "simple_street_canyon", "--episodes", "2", "--duration", "30", "--out", str(again),
          "--figures"])
    assert not list(again.glob("*.png")) and "![" not in (again / "mobility.md").read_text(encoding="utf-8")
    assert json.loads((again / "mobility.json").read_text())["scenes"] == results["scenes"]


def test_wrong_arguments_are_one_line(tmp_path, capsys):
    for wrong in (["--episodes", "0"], ["--scenes", "atlantis"], ["--duration", "0"],
                  ["--figures", "etoile"]):
        assert command.main([*wrong, "--out", str(tmp_path)]) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith("python -m kvroam.benchmarks.mobility: ")
