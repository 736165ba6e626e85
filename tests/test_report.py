"""Results are summarised, tabulated, drawn, and written whole or not at all."""

import json
import math
import platform
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from kvroam.envs.handover.task import HandoverTask
from kvroam.errors import KvroamError
from kvroam.evaluation import figures, provenance, report, scatter
from kvroam.evaluation.estimates import Difference, paired_difference
from kvroam.palette import SHAPES

NAN = float("nan")


def make_results(policies: dict[str, dict[str, list[float]]]) -> dict:
    count = len(next(iter(next(iter(policies.values())).values())))
    return {
        "format": report.FORMAT,
        "kvroam": "0.1.0",
        "config": {"speeds_mps": [8.0, 20.0], "limit": math.inf},
        "versions": report.versions(),
        "machine": report.machine(),
        "seeds": list(range(count)),
        "policies": {
            name: {"kind": "heuristic", "episodes": episodes, "parts": {}, "summary": report.summarise(episodes),
                   "wall_s": 0.5}
            for name, episodes in policies.items()
        },
        "paired": {"ctHO": {"ppo": {"cost": Difference(-1.0, -2.0, -0.5, -1.0, -2.0, -0.5, 3)._asdict()}}},
    }


@pytest.fixture
def results() -> dict:
    return make_results(
        {
            "ctHO": {
                "cost": [10.0, 12.0, 14.0],
                "interruption_s_mean": [0.9, 1.0, 1.1],
                "drift_kl_mean": [0.0, 0.0, 0.0],
                "recall_strict": [1.0, 1.0, 1.0],
            },
            "top|k": {
                "cost": [8.0, 9.0, 10.0],
                "interruption_s_mean": [0.05, 0.06, 0.04],
                "drift_kl_mean": [0.5, 0.7, 0.6],
                "recall_strict": [0.5, 0.25, 0.75],
            },
            "stay": {
                "cost": [20.0, 30.0, 40.0],
                "interruption_s_mean": [NAN, NAN, NAN],
                "drift_kl_mean": [0.0, 0.0, 0.0],
                "recall_strict": [1.0, 1.0, 1.0],
            },
        }
    )


def test_a_summary_leaves_out_the_episodes_without_a_value():
    episodes = {"interruption_s_mean": [0.2, NAN, 0.4, None, 0.3], "cost": [1.0] * 5, "recall": [NAN] * 5}
    summary = report.summarise(episodes)
    entry = summary["interruption_s_mean"]
    assert entry["n"] == 3 and entry["mean"] == pytest.approx(0.3) and entry["iqm"] == pytest.approx(0.3)
    # Student's t of three values: 4.303 * 0.1 / sqrt(3) on either side.
    assert (entry["ci_low"], entry["ci_high"]) == pytest.approx((0.3 - 0.2484, 0.3 + 0.2484), abs=1e-4)
    assert summary["cost"]["mean"] == 1.0 and math.isnan(summary["cost"]["ci_low"])
    assert math.isnan(summary["recall"]["mean"]) and summary["recall"]["n"] == 0


def test_the_interval_beside_the_mean_is_that_of_the_mean():
    values = np.random.default_rng(0).lognormal(0.0, 1.5, size=100)
    entry = report.summarise({"cost": values.tolist()})["cost"]
    assert entry["ci_low"] < entry["mean"] < entry["ci_high"]
    assert entry["iqm_low"] < entry["iqm"] < entry["iqm_high"] < entry["ci_low"]


def test_the_terminal_table_is_aligned_and_has_units_and_marks(results):
    table = report.terminal_table(results)
    heads, units, rule, *rows, caption, warning = table.splitlines()
    assert heads.split()[:3] == ["policy", "cost", "interruption"]
    assert "[ms]" in units and "[nats/token]" in units
    assert set(rule) == {"-"} and all(len(row) <= len(rule) for row in rows)
    by_policy = dict(zip(("ctHO", "top|k", "stay"), rows, strict=True))
    assert all(row.startswith(name) for name, row in by_policy.items())
    assert "1000 +- " in by_policy["ctHO"] and "50.0 +- " in by_policy["top|k"]
    # Two policies tie on drift and on recall, and both are marked; only one is cheapest.
    assert by_policy["ctHO"].count("*") == 2 and by_policy["stay"].count("*") == 2
    assert by_policy["top|k"].count("*") == 2
    assert " - " in by_policy["stay"]
    assert "3 episodes" in caption
    assert warning.startswith("warning: intervals from fewer than 16 episodes (here 3)")
    end = heads.index("cost") + len("cost")
    assert all(row[end - 1].isdigit() and row[end] in "* " for row in rows)
    assert "\t" not in table and table.isascii()


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([12.0, 12.0], "12.0"),
        ([0.0, 0.0], "0"),
        ([1.0], "1.00"),
        ([NAN], "-"),
        ([12345.0, 12345.0], "12345"),
        ([0.01234, 0.01234], "0.0123"),
        ([1.5e-7, 1.5e-7], "1.5e-07"),
        ([-0.5, -0.5], "-0.500"),
        # Student's t of two values: 12.706 times half their distance.
        ([-0.51, -0.49], "-0.500 +- 0.127"),
        ([1.4e-7, 1.6e-7], "1.5e-07 +- 1.3e-07"),
    ],
)
def test_a_cell_has_three_digits_and_no_interval_where_no_spread_is_seen(values, cell):
    table = report.terminal_table(make_results({"a": {"cost": values}}))
    assert table.splitlines()[3].split(maxsplit=1)[1] == cell


def test_the_number_after_the_mean_is_the_longer_arm_in_the_shown_unit():
    results = make_results({"a": {"interruption_s_mean": [0.5, 0.6]}})
    entry = {"mean": 0.5, "ci_low": 0.43, "ci_high": 0.63, "n": 2}
    results["policies"]["a"]["summary"]["interruption_s_mean"] = entry
    assert report.terminal_table(results).splitlines()[3].split() == ["a", "500", "+-", "130"]


def test_a_metric_can_say_from_how_many_episodes_on_its_interval_is_shown():
    rng = np.random.default_rng(3)
    for n, shown in ((31, False), (32, True)):
        names = ["interruption_s_p95", "wasted_gb"]
        results = make_results({"a": {name: rng.random(n).tolist() for name in names}})
        p95, wasted = (report.terminal_table(results, [name]).splitlines()[3] for name in names)
        assert ("+-" in p95) is shown and "+-" not in wasted
        assert not math.isnan(results["policies"]["a"]["summary"]["wasted_gb"]["ci_low"]), "JSON has it"


@pytest.mark.parametrize(("n", "warned"), [(1, False), (2, True), (15, True), (16, False)])
def test_few_episodes_behind_an_interval_give_one_line(n, warned):
    results = make_results({"a": {"cost": list(range(n)), "recall": [1.0] * n}})
    for table in (report.terminal_table(results), report.markdown_table(results)):
        assert table.count("warning: ") == warned and table.count(f"(here {n})") == warned


def test_equal_policies_are_not_marked():
    table = report.terminal_table(make_results({"a": {"cost": [1.0, 2.0]}, "b": {"cost": [1.0, 2.0]}}))
    assert "*" not in "".join(table.splitlines()[:-2])


def test_the_best_value_respects_the_direction_of_the_metric():
    results = make_results({"a": {"recall": [0.9], "cost": [3.0]}, "b": {"recall": [0.8], "cost": [2.0]}})
    rows = report.markdown_table(results, ["recall", "cost"]).splitlines()[2:4]
    assert rows == ["| a | **0.900** | 3.00 |", "| b | 0.800 | **2.00** |"]


def test_the_markdown_table_is_one(results):
    lines = report.markdown_table(results).splitlines()
    assert "cost [1] ↓" in lines[0] and "recall strict [share] ↑" in lines[0]
    cells = [line.replace("\\|", "").count("|") for line in lines[:5]]
    assert len(set(cells)) == 1
    assert lines[3].startswith("| top\\|k | **9.00 ± ")


def test_an_unknown_metric_is_refused_with_the_nearest_name(results):
    with pytest.raises(KvroamError, match=r"unknown metric 'drift_kl'; did you mean 'drift_kl_mean'"):
        report.terminal_table(results, ["drift_kl"])


def test_every_metric_is_described():
    names = [metric.name for metric in HandoverTask.metrics]
    assert len(set(names)) == len(names)
    for metric in HandoverTask.metrics:
        assert metric.better in ("lower", "higher")
        assert metric.meaning and metric.unit and "\n" not in metric.meaning
        # A time is stored in seconds, whatever the tables show.
        assert ("s" in metric.name.split("_")) == (metric.unit == "s")
        assert metric.scale == {("s", "ms"): 1e3}.get((metric.unit, metric.shown_unit), 1.0)
    assert set(HandoverTask.headline) <= set(names)


def test_the_written_json_is_strict_and_holds_the_results(results, tmp_path):
    paths = report.write_results(tmp_path / "new" / "folder", results)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(paths["results.json"].read_text(), parse_constant=refuse)
    assert read["policies"]["stay"]["episodes"]["interruption_s_mean"] == [None, None, None]
    assert read["policies"]["stay"]["summary"]["interruption_s_mean"]["mean"] is None
    assert read["policies"]["ctHO"]["episodes"] == results["policies"]["ctHO"]["episodes"]
    assert read["paired"]["ctHO"]["ppo"]["cost"]["n"] == 3
    assert read["config"] == {"speeds_mps": [8.0, 20.0], "limit": "inf"}
    # What was read back can be shown again.
    assert report.terminal_table(read) == report.terminal_table(results)


def test_numpy_values_are_written_as_numbers(results, tmp_path):
    results["seeds"] = np.arange(3)
    results["policies"]["ctHO"]["wall_s"] = np.float32(0.25)
    read = json.loads(report.write_results(tmp_path, results)["results.json"].read_text())
    assert read["seeds"] == [0, 1, 2] and read["policies"]["ctHO"]["wall_s"] == 0.25


def test_all_files_are_written_and_nothing_else(results, tmp_path):
    paths = report.write_results(tmp_path, results)
    assert {path.name for path in tmp_path.iterdir()} == set(paths)
    assert paths["interruption_drift.png"].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert paths["table.md"].read_text().count("| policy |") == 3


def test_a_failure_on_the_way_leaves_the_earlier_results_and_no_drafts(results, tmp_path, monkeypatch):
    paths = report.write_results(tmp_path, results)
    before = {name: path.read_bytes() for name, path in paths.items()}

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(figures, "figures", lambda *_: {"pareto.png": fail})
    results["seeds"] = [99]
    with pytest.raises(MemoryError):
        report.write_results(tmp_path, results)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(results, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for target in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(KvroamError) as caught:
            report.write_results(target, results)
        assert "cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_write_that_the_system_denies_is_refused_in_one_line(results, tmp_path, monkeypatch):
    # Simulated, because root, as which containers run, may write into a read-only folder.
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", deny)
    with pytest.raises(KvroamError, match=r"cannot be written \(Permission denied\); name another folder"):
        report.write_results(tmp_path, results)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the figure that was last saved."""
    from matplotlib.figure import Figure

    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
    return lambda: saved[-1].axes[0]


def test_the_figure_places_each_policy_at_its_means(results, tmp_path, drawn):
    scatter.interruption_drift(results, tmp_path / "figure.png")
    axes = drawn()
    assert [text.get_text() for text in axes.texts] == ["top|k", "ctHO"]
    markers = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() in SHAPES]
    assert markers == [pytest.approx((1000.0, 0.0)), pytest.approx((50.0, 0.6))]
    assert axes.get_xscale() == "log" and axes.get_yscale() == "symlog"
    low, high = axes.get_ylim()
    assert low < 0.0 and high > 0.7
    assert axes.get_title(loc="right") == "without a handover: stay"
    assert "[ms]" in axes.get_xlabel() and "[nats/token]" in axes.get_ylabel()


def test_the_interruption_axis_is_linear_within_a_factor_of_ten(tmp_path, drawn):
    entries = {
        name: {"interruption_s_mean": [x], "drift_kl_mean": [0.0]} for name, x in {"a": 0.1, "b": 0.9}.items()
    }
    scatter.interruption_drift(make_results(entries), tmp_path / "figure.png")
    assert drawn().get_xscale() == "linear"


def test_labels_of_crowded_markers_do_not_overlap(tmp_path, drawn):
    rng = np.random.default_rng(1)
    crowd = {
        f"policy {i}": {"interruption_s_mean": [0.2 + 0.02 * rng.random()], "drift_kl_mean": [0.0]}
        for i in range(5)
    }
    crowd["far"] = {"interruption_s_mean": [0.6], "drift_kl_mean": [0.3]}
    scatter.interruption_drift(make_results(crowd), tmp_path / "figure.png")
    axes = drawn()
    renderer = axes.figure.canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("policies", [{"stay": {"cost": [1.0]}}, {"zero": {"interruption_s_mean": [0.0]}}])
def test_a_figure_without_any_point_is_still_drawn(policies, tmp_path):
    scatter.interruption_drift(make_results(policies), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_the_machine_is_described_without_names_or_paths():
    text = json.dumps([report.machine(), report.versions()])
    assert platform.node() not in text
    assert str(Path.home()) not in text and str(Path.cwd()) not in text
    found = report.machine()
    assert found["cores"] >= found["usable_cores"] >= 1 and found["cpu"]


def test_a_package_that_is_absent_is_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package"))
    assert report.versions() == {"python": platform.python_version(), "numpy": np.__version__}


def test_the_paired_table_shows_the_difference_with_its_interval_in_the_shown_unit(results):
    difference = Difference(-0.25, -0.5, 0.125, 0.0, 0.0, 0.0, 3)._asdict()
    results["paired"] = {"ctHO": {"stay": {"interruption_s_mean": difference}}}
    row = report.paired_table(results, "ctHO", ["cost", "interruption_s_mean"]).splitlines()[2]
    assert row == "| stay | - | - | -250 [-500, +125] |"


def test_the_paired_table_shows_the_ratio_of_its_first_metric(results):
    difference = Difference(-0.25, -0.5, 0.125, 0.0, 0.0, 0.0, 20)._asdict()
    ratio = {"ratio": 0.5, "ratio_low": 0.25, "ratio_high": 1.25}
    results["paired"] = {"ctHO": {"a": {"cost": difference | ratio}, "b": {"cost": difference | ratio | {
        "ratio_low": None, "ratio_high": None}}}}
    head, _, first, second, *_ = report.paired_table(results, "ctHO", ["cost"]).splitlines()
    assert head == "| policy | cost [1] | cost, times ctHO's |"
    assert first == "| a | -0.25 [-0.5, +0.125] | 0.5 [0.25, 1.25] |"
    assert second == "| b | -0.25 [-0.5, +0.125] | 0.5 |"


def test_results_that_are_read_are_those_that_were_written(results, tmp_path):
    path = report.write_results(tmp_path, results)["results.json"]
    read = report.read_results(path)
    assert read["format"] == report.FORMAT and report.terminal_table(read) == report.terminal_table(results)


@pytest.mark.parametrize(("text", "words"), [
    ('{"kvroam": "0.1.0"}', ["format 1", "evaluate anew"]),
    ('{"format": 99}', ["format 99", "evaluate anew"]),
    ("[]", ["format None"]),
    ("{", ["no results of an evaluation", "results.json"]),
])
def test_results_of_another_format_are_refused_in_one_line(text, words, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(KvroamError) as caught:
        report.read_results(tmp_path / "results.json")
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_the_scenario_table_marks_the_best_policy_of_each_scenario():
    calm = make_results({"a": {"cost": [1.0, 1.0]}, "b": {"cost": [2.0, 2.0]}})
    rush = make_results({"a": {"cost": [4.0, 6.0]}, "b": {"cost": [4.0, 2.0]}})
    both = make_results({"a": {"cost": [1.0, 1.0, 4.0, 6.0]}, "b": {"cost": [2.0, 2.0, 4.0, 2.0]}})
    both["by_scenario"] = {"calm": calm, "rush": rush}
    lines = report.scenario_table(both).splitlines()
    assert lines[0] == "| cost [1] | calm | rush |"
    assert lines[2] == "| a | **1.00** | 5.0 ± 12.7 |"
    assert lines[3] == "| b | 2.00 | **3.0 ± 12.7** |"
    assert "(here 2)" in lines[-1]
    # The same against one of them, scenario by scenario.
    for part in (calm, rush):
        cost = {name: policy["episodes"]["cost"] for name, policy in part["policies"].items()}
        part["paired"] = {"b": {"a": {"cost": paired_difference(cost["a"], cost["b"])._asdict()}}}
    both["paired"] = {"b": {"a": {}}}
    lines = report.paired_scenario_table(both, "b").splitlines()
    assert lines[0] == "| cost [1] | calm | rush |" and lines[2] == "| a | -1 | +2 [-23.4, +27.4] |"
