"""The verdict on constant plans, and the command that reaches it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvroam.envs.handover.task import HandoverTask
from kvroam.evaluation import plans


def test_names_of_all_plans_differ() -> None:
    names = [plan.name for plan in plans.constant_plans()]
    assert len(set(names)) == len(names) == 1 + 6 * (1 + 2 * 3 * 2) + 4 * (2 * 3 + 2 * 2 * 2)


def test_the_verdict_names_the_winners_and_what_one_plan_for_all_costs() -> None:
    found = {"calm": {"a": 1.0, "b": 2.0, "c": 1.2}, "rush": {"a": 4.0, "b": 2.0, "c": 2.4}}
    winners, single, excess = plans.verdict(found)
    assert winners == {"calm": "a", "rush": "b"}
    assert single == "c" and excess == pytest.approx(0.2)


def test_the_command_plays_every_plan_in_every_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [plans.ConstantPlan("detour"), plans.ConstantPlan("token"), plans.ConstantPlan("kv", bits=4)]
    monkeypatch.setattr(plans, "constant_plans", lambda: few)
    plans.command(["--scenarios", "calm", "starved_backhaul", "--episodes", "1", "--out", str(tmp_path),
                   "--set", "scoring.mode=none", "episode_s=10.0"])
    text = (tmp_path / "plans.md").read_text()
    assert "| scenario | winner |" in text and "| calm | " in text and "| starved_backhaul | " in text
    assert all(f"| {plan.name} |" in text for plan in few)
    assert "--episodes 1 --seed 500 --set scoring.mode=none --set episode_s=10.0`" in text


def test_one_scenario_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="at least two"):
        plans.command(["--scenarios", "calm"])


def test_the_committed_page_says_what_its_own_table_says() -> None:
    text = (Path(__file__).parents[1] / "docs" / "plans.md").read_text()
    head, *rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in text.splitlines()
                   if line.startswith("| cost") or ("±" in line and line.startswith("|"))]
    found = {scenario: {row[0]: float(row[i].split()[0]) for row in rows} for i, scenario in enumerate(head) if i}
    winners, single, excess = plans.verdict(found)
    assert set(found) == set(HandoverTask.scenarios)
    assert set(found["default"]) == {plan.name for plan in plans.constant_plans()}
    stated = re.search(r"\* (\d+) different plans win.*over the grid, `(.*)`, costs (\d+) % more", text, re.S)
    assert stated is not None
    assert (int(stated[1]), stated[2]) == (len(set(winners.values())), single)
    assert abs(100 * excess - int(stated[3])) < 1.0
    # Choices matter: no plan is right everywhere, and taking one everywhere costs.
    assert len(set(winners.values())) >= 3 and excess >= 0.1
