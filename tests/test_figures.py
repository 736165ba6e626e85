"""The figures of an evaluation: who is on the Pareto front, which apply, and that nothing overlaps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from matplotlib.text import Text

from kvroam.evaluation import curves, drawing, figures, heatmap, report, scatter

MANY = [f"policy-{k}" for k in range(12)]


@pytest.fixture
def drawn(monkeypatch):
    """The figure that was last saved."""
    from matplotlib.figure import Figure

    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
    return lambda: saved[-1]


def test_the_front_is_the_points_that_no_other_beats() -> None:
    points = [(int(x), int(y)) for x, y in np.random.default_rng(0).integers(0, 9, (60, 2))]
    expected = {i for i, (x, y) in enumerate(points) if all(
        not (a <= x and b <= y and (a < x or b < y)) for a, b in points)}
    found = drawing.front(points)
    assert set(found) == expected
    assert [points[i] for i in found] == sorted(points[i] for i in found)
    assert drawing.front([]) == [] and drawing.front([(1.0, 1.0), (1.0, 1.0)]) == [0, 1]


def test_pareto_shows_delay_beyond_the_floor_and_bounds_are_not_in_the_front(made_up, tmp_path, drawn) -> None:
    results = made_up(["a", "b", "best"], kinds={"best": "upper_bound"})
    for name, delay, traffic in (("a", 2.0, 1.0), ("b", 1.0, 2.0), ("best", 0.5, 0.5)):
        policy = results["policies"][name]
        policy["parts"] = {term: [delay / 5 if term in scatter.DELAY else 0.0] * 6 for term in policy["parts"]}
        policy["episodes"]["backhaul_gb"] = [traffic] * 6
    scatter.pareto(results, tmp_path / "x.png")
    axes = drawn().axes
    assert len(axes) == 1, "no answer is worse"
    front = next(line for line in axes[0].lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(front.get_xydata(), [(0.99, 2.0), (1.99, 1.0)])
    bound = next(line for line in axes[0].lines if line.get_markerfacecolor() == "white")
    np.testing.assert_allclose(bound.get_xydata(), [(0.49, 0.5)])


@pytest.mark.parametrize("count", [3, 12, 20])
def test_names_do_not_overlap(count, made_up, tmp_path, drawn) -> None:
    results = made_up([f"policy-{k}" for k in range(count)], ["calm", "rush"])
    scatter.pareto(results, tmp_path / "x.png")
    figure = drawn()
    renderer = figure.canvas.get_renderer()
    texts = [text for axes in figure.axes for text in axes.texts]
    legends = [text for one in figure.legends for text in one.get_texts()]
    assert len(texts) == (2 * count if count <= drawing.LABELS else 0)
    assert len(legends) == (0 if count <= drawing.LABELS else count)
    # Of the texts alone: a line leads to a marker that is far.
    boxes = [Text.get_window_extent(text, renderer) for text in (*texts, *legends)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    for axes in figure.axes:
        for label in (axes.xaxis.label, axes.yaxis.label):
            box = label.get_window_extent(renderer)
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_a_policy_looks_the_same_in_every_figure(made_up, tmp_path, drawn) -> None:
    results = made_up(MANY)
    looks = drawing.styles(results)
    assert len({look[:2] for look in looks.values()}) == len(MANY)
    scatter.interruption_drift(results, tmp_path / "a.png")
    points = [line.get_color() for line in drawn().axes[0].lines if line.get_marker() != "None" and
              len(line.get_xdata()) == 1]
    curves.distributions(results, tmp_path / "b.png")
    steps = [line.get_color() for line in drawn().axes[0].lines]
    assert points == steps == [look.colour for look in looks.values()]


def test_a_distribution_rises_from_none_to_all(made_up, tmp_path, drawn) -> None:
    results = made_up(["a", "b"])
    curves.distributions(results, tmp_path / "x.png")
    first, second = drawn().axes
    values = sorted(results["policies"]["a"]["episodes"]["avoidable_cost"])
    np.testing.assert_allclose(first.lines[0].get_xdata()[1:], values)
    np.testing.assert_allclose(first.lines[0].get_ydata(), np.arange(7) / 6)
    assert "[ms]" in second.get_xlabel() and second.get_ylim() == (0.0, 1.0)


def test_the_heat_map_is_relative_to_the_best_who_competes(made_up, tmp_path, drawn) -> None:
    results = made_up(["a", "b", "bound"], ["calm", "rush"], kinds={"bound": "upper_bound"})
    costs = {"calm": (2.0, 1.0, 0.5), "rush": (3.0, 6.0, 0.0)}
    for scenario, part in results["by_scenario"].items():
        for policy, cost in zip(part["policies"].values(), costs[scenario], strict=True):
            policy["summary"]["avoidable_cost"]["mean"] = cost
    assert heatmap.relative(results) == {"a": {"calm": 2.0, "rush": 1.0}, "b": {"calm": 1.0, "rush": 2.0},
                                         "bound": {"calm": 0.5, "rush": 0.0}}
    heatmap.heatmap(results, tmp_path / "x.png")
    assert [text.get_text() for text in drawn().axes[0].texts] == ["2.00", "1.00", "1.00", "2.00", "0.50", "0.00"]
    for part in results["by_scenario"].values():
        part["policies"]["b"]["summary"]["avoidable_cost"]["mean"] = 0.0
    assert math.isnan(heatmap.relative(results)["a"]["calm"])
    heatmap.heatmap(results, tmp_path / "x.png")


def test_long_names_are_cut_and_stay_apart() -> None:
    names = ["cho", "constant:medium=kv,keep=0.5,bits=4", "constant:medium=kv,keep=0.25,bits=4", "x" * 40]
    shown = drawing.titles(names)
    assert shown["cho"] == "cho" and len(set(shown.values())) == 4
    assert list(shown.values())[1:3] == ["constant:... 1", "constant:... 2"]


CURVE = "steps,seconds,avoidable_cost,ci_low,ci_high\n200,2,0.5,0.4,0.6\n100,1,0.9,,\n300,3,nan,,\nbroken\n"


def test_learning_curves_are_read_as_far_as_they_can_be(tmp_path) -> None:
    (tmp_path / curves.CURVE).write_text(CURVE)
    found = curves.learning_curve(tmp_path)
    assert found["steps"] == [100.0, 200.0] and found["avoidable_cost"] == [0.9, 0.5]
    assert math.isnan(found["ci_low"][0]) and found["ci_high"][1] == 0.6
    for text in ("", "other,columns\n1,2\n", "steps\n1\n"):
        (tmp_path / curves.CURVE).write_text(text)
        assert curves.learning_curve(tmp_path) == {}
    (tmp_path / curves.CURVE).write_bytes(b"\xff\xfe")
    assert curves.learning_curve(tmp_path) == curves.learning_curve(tmp_path / "absent") == {}


def test_only_what_applies_is_drawn(made_up, tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    one = made_up(["a"], episodes=2)
    assert list(figures.figures(one, {"a": run})) == ["pareto.png", "interruption_drift.png"]
    (run / curves.CURVE).write_text(CURVE)
    grid = made_up(["a", "b"], ["calm", "rush"])
    assert set(figures.figures(grid, {"a": run})) == set(figures.TITLES)
    paths = report.write_results(tmp_path / "out", grid, {"a": run})
    assert set(figures.TITLES) < set(paths) and all(path.stat().st_size > 1000 for path in paths.values())
    report.write_results(tmp_path / "out", one)
    assert not (tmp_path / "out" / "heatmap.png").exists(), "a figure of earlier results does not stay"
