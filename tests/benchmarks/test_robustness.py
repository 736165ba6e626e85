"""Robustness: the planner against itself is 1, cases change what they say, rows are kept, a page by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from kvroam.benchmarks import robustness
from kvroam.envs.handover.config import resolve
from kvroam.errors import ConfigError
from kvroam.experiment import load_experiment

TINY = ["num_ues=3", "episode_s=5.0", "mobility.vehicle_share=1.0", "mobility.vehicle_speed_mps=[15.0,25.0]"]


def run(tmp_path: Path, *more: str) -> list[dict[str, str]]:
    """A small run; its table."""
    robustness.command(["--episodes", "3", "--quiet", "--rows", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path),
                        *more, "--set", *TINY])
    return list(csv.DictReader((tmp_path / "robustness.csv").open()))


def test_the_planner_pays_exactly_what_it_pays(tmp_path, capsys):
    rows = run(tmp_path, "--policies", "again=greedy-planner", "tho", "--levels", robustness.BASE, "x 1/4", "--axes",
               "scenario", "link capacity")
    assert len(rows) == 2 * 3 * 3
    stored = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()[1:]]
    for case in (("scenario", robustness.BASE), ("link capacity", "x 1/4")):
        assert robustness.ratio(stored, case, "again", "greedy-planner").ratio == 1.0
        assert robustness.ratio(stored, case, "tho", "greedy-planner").ratio > 1.0
    text = (tmp_path / "robustness.md").read_text()
    assert "`again` pays exactly what `greedy-planner` does" in text and str(tmp_path) not in text
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_played_is_kept_and_only_the_rest_is_played(tmp_path, monkeypatch, capsys):
    few = ("--policies", "tho", "--axes", "scenario")
    first = run(tmp_path, *few)
    monkeypatch.setattr(robustness, "outcomes", None)
    assert run(tmp_path, *few) == first
    monkeypatch.undo()
    more = run(tmp_path, "--policies", "tho", "cho", "--axes", "scenario")
    assert [row for row in more if row["policy"] != "cho"] == first and len(more) == 9


def test_every_case_changes_what_it_says_and_nothing_else():
    base = resolve("default", ["scoring.mode=table"])
    found = robustness.cases(base)
    assert len({(case.axis, case.level) for case in found}) == len(found) > 15
    for case in found:
        config = load_experiment("default", ["scoring.mode=table", *case.changes]).environment
        assert (config == base) == (case.axis == "scenario")
    quarter = next(case for case in found if case.level == "x 1/4")
    assert resolve("default", quarter.changes).backhaul.capacity_bps == base.backhaul.capacity_bps / 4
    users = next(case for case in found if case.level == "64")
    assert resolve("default", users.changes).num_ues == 64


@pytest.mark.parametrize("factor, says", [(0.5, "cheaper than `greedy-planner` in 1 of 1"),
                                          (2.0, "`mine` is dearer with users 4")])
def test_the_page_says_what_the_numbers_say(factor, says):
    rng, rows = np.random.default_rng(0), []
    for seed in range(16):
        cost = float(rng.uniform(0.5, 1.5))
        rows += [{"axis": "users", "level": "4", "policy": name, "seed": seed, "cost": cost,
                  "avoidable_cost": cost * times}
                 for name, times in (("greedy-planner", 1.0), ("mine", factor * float(rng.uniform(0.95, 1.05))))]
    text = robustness.page(rows, ["mine"], "greedy-planner", "default", 16, "make")
    assert says in text


@pytest.mark.parametrize("wrong, message", [
    (["--episodes", "0"], "--episodes is 0"), (["--axes", "weather"], "--axes names weather"),
    (["--policies", "tho", "tho", "--axes", "scenario", "--episodes", "1", "--set", *TINY], "two policies are called"),
])
def test_options_that_cannot_be_are_refused(wrong, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        robustness.command(["--quiet", "--rows", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path), *wrong])
