"""The leaderboard: which row replaces which, who is said to win, and what is put into the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvroam import agents
from kvroam.envs.handover.config import HandoverConfig
from kvroam.errors import KvroamError
from kvroam.evaluate import command as evaluate_command
from kvroam.evaluation import leaderboard
from kvroam.evaluation.leaderboard_page import MARKERS, block, page

KINDS = {"ppo": "learned", "hindsight": "upper_bound", "constant": "constant"}


def results_of(made_up, costs: dict[str, float], places=("calm", "rush")) -> dict:
    results = made_up([*costs], places, kinds=KINDS)
    for part in results.get("by_scenario", {"": results}).values():
        for name, cost in costs.items():
            part["policies"][name]["summary"]["avoidable_cost"] = {
                "mean": cost, "iqm": cost, "ci_low": cost - 0.1, "ci_high": cost + 0.1, "n": 6}
    return results


def test_a_row_says_who_played_what_and_where(made_up) -> None:
    rows = leaderboard.rows_of(results_of(made_up, {"ppo": 1.0, "hindsight": 0.5}))
    assert [(row["scenario"], row["policy"], row["kind"]) for row in rows] == [
        ("calm", "ppo", "learned"), ("calm", "hindsight", "upper_bound"),
        ("rush", "ppo", "learned"), ("rush", "hindsight", "upper_bound")]
    first = rows[0]
    assert first["environment"] == "kvroam/Handover-v0" and first["episodes"] == 6 and first["seed"] == 0
    assert first["config"] != rows[2]["config"]
    assert first["metrics"]["avoidable_cost"] == {"mean": 1.0, "iqm": 1.0, "ci_low": 0.9, "ci_high": 1.1, "n": 6}
    single = results_of(made_up, {"cho": 1.0}, ("calm",))
    assert [row["scenario"] for row in leaderboard.rows_of(single)] == ["calm"]


def test_only_the_row_of_the_same_settings_is_replaced(made_up, tmp_path) -> None:
    file = tmp_path / "deep" / "leaderboard.json"
    leaderboard.add(file, results_of(made_up, {"cho": 2.0, "ppo": 1.0}, ("calm",)))
    leaderboard.add(file, results_of(made_up, {"ppo": 3.0}, ("calm",)))
    costs = {row["policy"]: row["metrics"]["avoidable_cost"]["mean"] for row in leaderboard.read(file)}
    assert costs == {"cho": 2.0, "ppo": 3.0}
    before = file.read_text()
    leaderboard.add(file, results_of(made_up, {"ppo": 3.0}, ("calm",)))
    assert file.read_text() == before, "the order of the rows is fixed"
    changed = results_of(made_up, {"ppo": 4.0}, ("calm",)) | {"fingerprint": "other"}
    leaderboard.add(file, changed)
    leaderboard.add(file, results_of(made_up, {"ppo": 5.0}, ("rush",)))
    assert sorted(row["metrics"]["avoidable_cost"]["mean"] for row in leaderboard.read(file)) == [2.0, 3.0, 4.0, 5.0]


def test_the_page_ranks_by_avoidable_cost_and_says_who_wins(made_up) -> None:
    rows = leaderboard.rows_of(results_of(made_up, {"cho": 2.0, "ppo": 1.5, "hindsight": 0.5, "deadline": 1.0}))
    text = page(rows, "leaderboard.json")
    assert text.startswith("# Leaderboard\n\nPurpose: ") and "python evaluate.py" in text
    calm = text.partition("## calm")[2].partition("## rush")[0]
    order = [line.split("|")[1].strip(" `") for line in calm.splitlines() if line.startswith("| `")]
    assert order == ["hindsight", "deadline", "ppo", "cho"]
    assert "**`deadline` wins** with the lowest avoidable cost, 1; next is `ppo` with 1.5." in calm
    assert "The best learned policy, `ppo`, costs 1.5, 1.5 times as much." in calm
    assert "1.5 [1.4, 1.6]" in calm and "upper bound" in calm
    short = block(rows)
    assert "| calm | `deadline` | 1 [0.9, 1.1] | `ppo` | 1.5 [1.4, 1.6] | 0.5 |" in short
    assert short.count("\n") == 4


def test_a_scenario_without_a_learned_policy_or_with_bounds_only(made_up) -> None:
    assert "No learned policy" in page(leaderboard.rows_of(results_of(made_up, {"cho": 1.0})), "x.json")
    rows = leaderboard.rows_of(results_of(made_up, {"hindsight": 1.0}))
    assert "Nobody competes here." in page(rows, "x.json") and "| calm | - | - | - | - | 1 |" in block(rows)


def test_the_readme_is_rewritten_between_its_markers_only(made_up, tmp_path, capsys) -> None:
    file, readme = tmp_path / "board.json", tmp_path / "README.md"
    leaderboard.add(file, results_of(made_up, {"cho": 1.0}))
    readme.write_text(f"before\n\n{MARKERS[0]}\nold\n{MARKERS[1]}\n\nafter\n")
    for _ in range(2):
        assert leaderboard.command.main([str(file), "--readme", str(readme)]) == 0
        text = readme.read_text()
        assert text.startswith(f"before\n\n{MARKERS[0]}\n| scenario |") and text.endswith(f"|\n{MARKERS[1]}\n\nafter\n")
        assert "old" not in text
    assert (tmp_path / "board.md").read_text().startswith("# Leaderboard")
    readme.write_text("no markers")
    assert leaderboard.command.main([str(file), "--readme", str(readme)]) == 2
    assert MARKERS[0] in capsys.readouterr().err and readme.read_text() == "no markers"


@pytest.mark.parametrize(("text", "words"), [
    ("{", "no leaderboard"), ("[]", "format None"), ('{"format": 9}', "format 9"),
    ('{"format": 1, "rows": [{"policy": "x"}]}', "a row has no environment"),
])
def test_what_is_no_leaderboard_is_refused_before_anything_runs(text, words, tmp_path, capsys) -> None:
    file = tmp_path / "board.json"
    file.write_text(text)
    with pytest.raises(KvroamError, match=words):
        leaderboard.read(file)
    out = tmp_path / "out"
    assert evaluate_command.main(["--leaderboard", str(file), "--out", str(out), "--quiet"]) == 2
    assert words in capsys.readouterr().err and not out.exists() and file.read_text() == text
    assert leaderboard.command.main([str(file)]) == 2


def test_an_absent_or_empty_leaderboard_has_no_page(tmp_path, capsys) -> None:
    assert leaderboard.command.main([str(tmp_path / "absent.json")]) == 2
    (tmp_path / "empty.json").write_text('{"format": 1, "rows": []}')
    assert leaderboard.command.main([str(tmp_path / "empty.json")]) == 2
    assert capsys.readouterr().err.count("evaluate.py --leaderboard") == 2


def test_evaluate_writes_rows_with_the_kinds_of_the_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    evaluate_command(["--config", "calm", "--policies", "cho", "constant:bits=4", "foresight", "--episodes", "2",
                      "--quiet", "--out", str(tmp_path / "out"), "--leaderboard", str(file), "--set",
                      "scoring.mode=none", "episode_s=2.0", "num_ues=3"])
    rows = leaderboard.read(file)
    assert {row["policy"]: row["kind"] for row in rows} == {
        "cho": "heuristic", "constant:bits=4": "constant", "foresight": "upper_bound"}
    assert {row["scenario"] for row in rows} == {"calm"} and all(row["episodes"] == 2 for row in rows)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert rows[0]["config"] == written["fingerprint"]
    assert rows[0]["metrics"]["cost"]["mean"] == written["policies"]["cho"]["summary"]["cost"]["mean"]


def test_roles_of_everything_that_is_a_policy(tmp_path) -> None:
    config = HandoverConfig()
    found = {name: agents.role(name, config) for name in (
        "cho", "cho-int4", "constant:bits=4", "hindsight", "foresight:horizon_s=3", "mine.py:Mine", "runs/ppo")}
    assert found == {"cho": "heuristic", "cho-int4": "heuristic", "constant:bits=4": "constant",
                     "hindsight": "upper_bound", "foresight:horizon_s=3": "upper_bound", "mine.py:Mine": "heuristic",
                     "runs/ppo": "learned"}
    assert agents.role(lambda view: None, config) == "heuristic"
