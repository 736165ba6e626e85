"""The headroom gate: verdicts on rows that are made up, runs put together, and one that is killed and goes on."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from kvroam.agents.handover.hindsight.book import without
from kvroam.benchmarks.headroom import __main__ as program
from kvroam.benchmarks.headroom import jobs
from kvroam.benchmarks.headroom.figure import draw, series
from kvroam.benchmarks.headroom.jobs import CONSTANT, HINDSIGHT, LEVER, NAMED, PREDICTED, Job, Row
from kvroam.benchmarks.headroom.page import brief, page
from kvroam.benchmarks.headroom.store import Source, Store
from kvroam.benchmarks.headroom.verdicts import Gate, Single, easy, gather, judge, matters, single
from kvroam.envs.handover.config import resolve
from kvroam.errors import ConfigError

SMALL = ["--set", "num_ues=2", "episode_s=15.0", "mobility.vehicle_speed_mps=[25.0, 30.0]",
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


def test_verdicts_of_what_is_known():
    a, b = gather(made_up())
    assert (a.best(CONSTANT), b.best(CONSTANT)) == ("x", "y") and a.seeds == (0, 1) and a.unavoidable == 0.5
    assert a.over_hindsight(CONSTANT, "x").ratio == 3.0
    assert {lever: (at, ratio.ratio) for lever, (at, ratio) in a.levers().items()} == {
        "keep all": ("", 1.0), "one medium": ("token", pytest.approx(1.2))}
    assert b.levers()["one medium"][0] == "kv"
    gate = Gate(easy=0, winners=2)
    assert [holds for _, holds, _ in judge([a, b], gate)] == [True, True, False, False, True]
    # x costs twice the winner in b, y a third more than the winner in a.
    assert single([a, b]) == Single("y", pytest.approx(1 / 6), pytest.approx(1 / 6))
    assert matters([a, b], gate) == {"keep all": [], "one medium": ["a", "b"]}
    assert matters([a, b], Gate(lever=1.5))["one medium"] == ["b"]


def test_so_many_scenarios_may_be_easy():
    a, b = gather(made_up())
    strict = Gate(constant=2.5, easy=0)
    assert not easy(a, strict) and easy(b, strict) and easy(b, Gate(named=2.1))
    for gate, holds in ((strict, False), (Gate(constant=2.5, easy=1), True), (Gate(constant=9.0, easy=1), False)):
        assert judge([a, b], gate)[0][1] is holds
    assert "not in b" in judge([a, b], strict)[0][2]


def test_a_lever_whose_interval_holds_one_does_not_matter():
    rows = made_up()
    for row in rows:
        if row["scenario"] == "b" and row["name"] == "one medium: kv":
            row["cost"] = 0.5 + (0.9 if row["seed"] else 4.0)
    b = gather(rows)[1]
    _, over = b.levers()["one medium"]
    assert over.ratio > 1.5 and over.low < 1.0 and matters([b], Gate())["one medium"] == []


def test_plans_that_do_the_same_are_called_by_the_shortest_name():
    rows = made_up()
    twins = [{**row, "name": name} for row in rows if row["name"] == "x" for name in ("b-longer", "c")]
    assert gather([*twins, *rows])[0].best(CONSTANT) == "c"


def test_a_paper_stands_for_its_variants():
    rows = made_up()
    rows += [{**row, "name": name, "cost": row["cost"] + more} for row in rows if row["name"] == "n"
             for name, more in (("pallas", 0.1), ("pallas-int4", 0.0), ("pallasade", -1.0))]
    a = gather(rows)[0]
    assert a.paper("pallas") == "pallas-int4" and a.paper("ctho") is None


def test_scenarios_stand_in_the_order_of_the_grid():
    rows = [{**row, "scenario": {"a": "calm", "b": "default"}[row["scenario"]]} for row in made_up()]
    assert [one.name for one in gather([*made_up(), *rows])] == ["default", "calm", "a", "b"]


def test_episodes_that_somebody_has_not_played_do_not_count():
    rows = [row for row in made_up() if not (row["name"] == "y" and row["seed"] == 1 and row["scenario"] == "a")]
    a, b = gather(rows)
    assert a.seeds == (0,) and b.seeds == (0, 1)
    assert [one.name for one in gather([row for row in rows if row["kind"] != HINDSIGHT])] == []


def test_the_page_tells_what_was_found():
    source = Source({"budget": 300.0, "lever_budget": 50.0, "set": ["num_ues=2"]}, made_up())
    text = page(gather(source.rows), Gate(), [source])
    for part in ("plan book", "| a | 1.500 | `x` | 3.00 | `n` | 2.00 | 3.33", "**no**", "1.20 (token)",
                 "Does not matter enough to be asked for: keep all.",
                 "The best single one is `y`. It costs 17% more", "| `foresight` | 5.000 | 5.000 |",
                 "| a | 2 | 0.500 | 300 | 50 |", "--scenarios a b --episodes 2 --seed 0 --budget 300 --lever-budget 50 "
                 "--set num_ues=2"):
        assert part in text, part
    assert "be easy" not in text and "Not complete" not in text
    assert "No scenario" in page([], Gate(), [])


def test_the_page_says_what_is_easy_and_what_is_missing():
    rows = [{**row, "scenario": "calm" if row["scenario"] == "b" else "a"} for row in made_up(levers=False)]
    rows.append({**rows[0], "scenario": "begun"})
    text = page(gather(rows), Gate(constant=2.5), [Source({"budget": 1.0}, rows)])
    assert "asked in: calm. `calm` is there to be easy." in text and "left out: begun." in text
    assert "Which decisions matter" not in text


def test_a_constant_plan_is_told_in_words():
    assert brief("constant:keep=0.1,bits=4,when=predicted,backfill=0.25,lead_s=5.0") == (
        "split 4 bit, keep 0.1, predicted 5 s, backfill 0.25")
    assert brief("constant") == "split 16 bit" and brief("x") == "x"


def test_the_figure_shows_who_played(tmp_path):
    found = series(gather(made_up()))
    assert found["hindsight"] == [1.5, 1.5] and found["best constant plan"] == [4.5, 3.0] and "ctho" not in found
    draw(gather(made_up()), tmp_path / "a.png")
    draw([], tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size > 1000


def test_runs_that_were_made_apart_make_one_page(tmp_path, capsys):
    for scenario, budget in (("a", 600.0), ("b", 200.0)):
        Store(tmp_path / f"{scenario}.jsonl", {"budget": budget, "lever_budget": 20.0, "set": []}).add(
            row for row in made_up() if row["scenario"] == scenario)
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    program.command(["--rows", *files, "--out", str(tmp_path / "page")])
    text = (tmp_path / "page" / "headroom.md").read_text()
    assert "| a | 2 | 0.500 | 600 | 20 |" in text and "| b | 2 | 0.500 | 200 | 20 |" in text
    assert "--scenarios a --" in text and "--scenarios b --" in text and str(tmp_path) not in text
    assert len((tmp_path / "page" / "headroom.csv").read_text().splitlines()) == 1 + len(made_up())
    assert "the gate is not passed" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="both have episode 0 of 'hindsight' in 'a'"):
        program.command(["--rows", files[0], files[0], "--out", str(tmp_path)])
    with pytest.raises(ConfigError, match="cannot be read"):
        program.command(["--rows", str(tmp_path / "c.jsonl"), "--out", str(tmp_path)])
    (tmp_path / "c.jsonl").write_text('{"budget": 1.0}\n')
    with pytest.raises(ConfigError, match="has no rows"):
        program.command(["--rows", str(tmp_path / "c.jsonl"), "--out", str(tmp_path)])


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
    levers = sum(map(len, without(resolve("handover")).values()))
    assert len(rows) == 2 * (1 + levers + 3)
    cheapest = {row["seed"]: row["cost"] for row in rows if row["kind"] == HINDSIGHT}
    assert all(row["cost"] >= cheapest[row["seed"]] > row["unavoidable"] for row in rows if row["kind"] == LEVER)
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
