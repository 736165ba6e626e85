"""The headroom gate: ratios by hand, verdicts on rows that are made up, and a run that is killed and goes on."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from kvroam.benchmarks.headroom import __main__ as program
from kvroam.benchmarks.headroom import jobs
from kvroam.benchmarks.headroom.jobs import CONSTANT, HINDSIGHT, LEVER, NAMED, PREDICTED, Job, Row
from kvroam.evaluation.estimates import paired_ratio
from kvroam.benchmarks.headroom.store import Store
from kvroam.benchmarks.headroom.verdicts import Gate, gather, judge, page
from kvroam.errors import ConfigError

SMALL = ["--set", "num_ues=2", "episode_s=6.0", "mobility.vehicle_speed_mps=[25.0, 30.0]",
         "mobility.vehicle_share=1.0"]


def made_up(levers=True):
    """Rows of two scenarios in which everything is known."""
    rows = []
    for scenario, constants in (("a", {"x": 3.0, "y": 4.0}), ("b", {"x": 4.0, "y": 2.0})):
        for seed in (0, 1):
            def row(kind, name, avoidable, scenario=scenario, seed=seed):
                rows.append(asdict(Row(scenario, kind, name, seed, 0.5 + avoidable, 0.5)))

            row(HINDSIGHT, "hindsight", 1.0 + seed)
            row(PREDICTED, "foresight", 5.0)
            row(NAMED, "n", 2.0 * (1.0 + seed))
            for name, cost in constants.items():
                row(CONSTANT, name, cost * (1.0 + seed))
            if levers:
                row(LEVER, "keep all: ", 1.0 + seed)
                row(LEVER, "one medium: kv", 3.0 * (1.0 + seed))
                row(LEVER, "one medium: token", (1.2 if scenario == "a" else 6.0) * (1.0 + seed))
    return rows


def test_a_ratio_of_means_and_its_interval():
    found = paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.ratio == 2.0 and found.low == pytest.approx(2.0) and found.high == pytest.approx(2.0) and found.n == 3
    noisy = paired_ratio([2.0, 5.0, 5.0], [1.0, 2.0, 3.0])
    assert noisy.low < noisy.ratio == 2.0 < noisy.high
    assert np.isnan(paired_ratio([1.0], [0.0]).ratio) and np.isnan(paired_ratio([2.0], [1.0]).low)


def test_the_interval_of_a_ratio_covers():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        common = rng.gamma(4.0, 1.0, 16)
        found = paired_ratio(2.0 * common * rng.lognormal(0.0, 0.3, 16), common * rng.lognormal(0.0, 0.3, 16))
        hits += found.low <= 2.0 <= found.high
    assert 360 <= hits <= 396


def test_verdicts_of_what_is_known():
    a, b = gather(made_up())
    assert (a.best(CONSTANT), b.best(CONSTANT)) == ("x", "y") and a.seeds == (0, 1) and a.unavoidable == 0.5
    assert a.over_hindsight(CONSTANT, "x").ratio == 3.0
    assert {lever: (at, ratio.ratio) for lever, (at, ratio) in a.levers().items()} == {
        "keep all": ("", 1.0), "one medium": ("token", pytest.approx(1.2))}
    assert b.levers()["one medium"][0] == "kv"
    passed = {what.partition(" is at least")[0]: holds for what, holds, _ in judge([a, b], Gate(winners=2))}
    assert passed == {
        "avoidable share of the best constant plan's cost": True, "best constant plan / hindsight": True,
        "best named policy / hindsight": True, "hindsight with keep all / hindsight": False,
        "hindsight with one medium / hindsight": True, "at least 2 different constant plans win": True}
    strict = {what: found for what, holds, found in judge([a, b], Gate(constant=2.5)) if not holds}
    assert strict["best constant plan / hindsight is at least 2.5 everywhere"] == "least 2.00 in b"


def test_episodes_that_somebody_has_not_played_do_not_count():
    rows = [row for row in made_up() if not (row["name"] == "y" and row["seed"] == 1 and row["scenario"] == "a")]
    a, b = gather(rows)
    assert a.seeds == (0,) and b.seeds == (0, 1)
    assert [one.name for one in gather([row for row in rows if row["kind"] != HINDSIGHT])] == []


def test_the_page_shows_everybody():
    text = page(gather(made_up()), Gate(), "python -m program")
    assert "`python -m program`: 2 episodes" in text
    for part in ("| hindsight |", "| foresight |", "| n |", "| x |", "1.20 [1.20, 1.20] (token)", "**no**"):
        assert part in text
    assert "No scenario" in page([], Gate(), "")


def test_rows_outlive_a_run_that_was_killed(tmp_path):
    path, made_by = tmp_path / "rows.jsonl", {"budget": 1.0}
    store = Store(path, made_by)
    store.add([{"seed": 0}, {"seed": 1}])
    with path.open("a") as file:
        file.write('{"seed": 2')
    again = Store(path, made_by)
    assert again.rows == [{"seed": 0}, {"seed": 1}]
    again.add([{"seed": 3}])
    assert Store(path, made_by).rows == [{"seed": 0}, {"seed": 1}, {"seed": 3}]
    with pytest.raises(ConfigError, match="other settings"):
        Store(path, {"budget": 2.0})


def test_a_run_writes_its_files_and_goes_on_with_what_is_missing(tmp_path, monkeypatch, capsys):
    few = [(CONSTANT, "constant:bits=4,when=early"), (NAMED, "cho"), (PREDICTED, "foresight")]
    monkeypatch.setattr(program, "policies", lambda path, overrides: few)
    arguments = ["--scenarios", "default", "--episodes", "2", "--budget", "20", "--lever-budget", "5", "--processes",
                 "1", "--quiet", "--out", str(tmp_path), *SMALL]
    program.command(arguments)
    assert "the gate is" in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"rows.jsonl", "headroom.md", "headroom.csv", "headroom.png"}
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    assert len(rows) == 2 * (1 + 9 + 3)
    cheapest = {row["seed"]: row["cost"] for row in rows if row["kind"] == HINDSIGHT}
    assert all(row["cost"] >= cheapest[row["seed"]] for row in rows)
    # Killed before the last rows were written.
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:-2]) + "\n")
    page_before = (tmp_path / "headroom.md").read_text()
    asked = []
    monkeypatch.setattr(program, "rows", lambda job: asked.append(job) or jobs.rows(job))
    program.command(arguments)
    assert [job.policy for job in asked] == ["foresight"]
    assert (tmp_path / "headroom.md").read_text() == page_before


def test_processes_bring_the_same_rows():
    todo = [Job("default", "default", ("num_ues=2", "episode_s=2.0"), policy, NAMED, (1, 2), 1.0, 0.0)
            for policy in ("cho", "tho")]
    alone = {job.policy: found for job, found in program.done(todo, 1)}
    assert {job.policy: found for job, found in program.done(todo, 2)} == alone
    assert [row["seed"] for row in alone["cho"]] == [1, 2]


@pytest.mark.parametrize("wrong, message", [
    (["--episodes", "0"], "--episodes is 0"), (["--budget", "0"], "--budget is 0"),
    (["--processes", "0"], "--processes is 0"), (["--lever-budget", "-1"], "--lever-budget is -1"),
])
def test_options_that_cannot_be_are_refused(wrong, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        program.command(["--out", str(tmp_path), *wrong])
