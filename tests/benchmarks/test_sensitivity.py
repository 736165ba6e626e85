"""Prices halved and doubled: amounts that make up what is charged, rankings by hand, a page that keeps its words."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from kvroam.agents.registry import make
from kvroam.benchmarks import sensitivity
from kvroam.benchmarks.repricing import NAMES, Played, changed, changes, rank, summary
from kvroam.envs import make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.harm.charges import TableAmounts, TableCharges, prices_of
from kvroam.errors import ConfigError
from kvroam.evaluation.rollout import rollout

SMALL = ["num_ues=4", "episode_s=20.0", "mobility.vehicle_share=1.0", "mobility.vehicle_speed_mps=[20.0, 30.0]"]


def of(**amounts):
    """Two episodes, one of twice everything."""
    row = np.array([amounts.get(name, 0.0) for name in NAMES])
    return Played(np.array([row, 2.0 * row]), np.array([0.1, 0.2]))


PRICES = changed(np.full(len(NAMES), 1.0), "pingpong", 0.0)
PLAYED = {"waits": of(interruption=1.1), "sends": of(interruption=0.1, traffic=0.8), "both": of(late=1.0, traffic=1.0)}


@pytest.mark.parametrize("policy", ["constant:medium=kv,bits=4,when=early", "cho",
                                    "constant:keep=0.25,bits=4,when=early,backfill=0.25"])
def test_amounts_at_their_prices_are_what_is_charged(policy):
    config = resolve("handover", ["scoring.mode=none", *SMALL])
    core, charges, counted = make_core(config, 2), TableCharges(config, 2), TableAmounts(config, 2)
    cost, floor, total, least_s = np.zeros(2), np.zeros(2), np.zeros((2, len(NAMES))), np.zeros(2)
    for step in rollout(core, make(policy, config), [3, 4]):
        if step == 0:
            charges.reset(core.task.sim)
            counted.reset(core.task.sim)
            continue
        for sums, more in zip((cost, floor), charges.of_step(core.task.sim), strict=True):
            sums += more
        for sums, more in zip((total, least_s), counted.of_step(core.task.sim), strict=True):
            sums += more
    assert (cost > floor).all() and (floor > 0.0).all()
    found = Played(total, least_s).avoidable(prices_of(config))
    # A cache that is harmed twice is followed by its price there, by each amount here.
    assert found == pytest.approx(cost - floor, rel=0.01) and (found > cost - floor - 1e-12).all()
    harmed = total[:, NAMES.index("drift")] > 0.0
    assert harmed.all() == (policy != "cho")


def test_rankings_by_hand():
    shipped = rank("s", PLAYED, PRICES)
    assert shipped.order == ["sends", "waits", "both"] and shipped.tau == 1.0 and shipped.price == ""
    assert list(shipped.costs.values()) == pytest.approx([0.8 * 1.5, 1.0 * 1.5, 1.9 * 1.5])
    assert shipped.margin.ratio == pytest.approx(1.25) and shipped.kept.ratio == 1.0
    dear = rank("s", PLAYED, PRICES, "traffic", 2.0)
    assert dear.order == ["waits", "sends", "both"] and dear.tau == pytest.approx(1 / 3)
    assert dear.kept.ratio == pytest.approx(1.6)
    # The unavoidable seconds are worth what the others are.
    halved = rank("s", PLAYED, PRICES, "interruption", 0.5)
    assert halved.costs["waits"] == pytest.approx(0.5 * 1.0 * 1.5) and halved.order[0] == "waits"
    again = rank("s", PLAYED, PRICES, "traffic", 2.0, {"sends": of(interruption=0.1, traffic=0.2)})
    assert again.order[0] == "sends" and again.costs["sends"] == pytest.approx(0.4 * 1.5)


def test_every_price_above_zero_is_halved_and_doubled():
    found = list(changes(PRICES))
    assert len(found) == 2 * (len(NAMES) - 1) and ("pingpong", 2.0) not in found and ("late", 0.5) in found
    rows = summary([rank("s", PLAYED, PRICES), *(rank("s", PLAYED, PRICES, *one) for one in found)])
    assert rows["traffic"] == {"tau": pytest.approx(1 / 3), "rankings": 2, "changed": 1, "lost": pytest.approx(0.6)}
    assert rows["gpu"] == {"tau": 1.0, "rankings": 2, "changed": 0, "lost": 0.0}


def test_only_the_generated_part_of_the_page_is_replaced(tmp_path):
    path = tmp_path / "prices.md"
    path.write_text(sensitivity.insert("old", path) + "\n## After\n")
    assert sensitivity.insert("new", path) == path.read_text().replace("old", "new") and "old" in path.read_text()
    path.write_text("words")
    with pytest.raises(ConfigError, match="has no lines"):
        sensitivity.insert("new", path)


def test_a_run_ranks_and_plays_again_who_is_told(tmp_path, capsys):
    sensitivity.command(["--scenarios", "default", "--policies", "tho", "split", "greedy-planner", "--replan",
                         "greedy-planner", "--episodes", "2", "--quiet", "--out", str(tmp_path), "--set", "num_ues=2",
                         "episode_s=4.0"])
    text = (tmp_path / "prices.md").read_text()
    assert "3 policies, 2 episodes" in text and "`greedy-planner` played again" in text and str(tmp_path) not in text
    assert "--replan greedy-planner --set num_ues=2" in text and "--quiet" not in text
    rows = list(csv.DictReader((tmp_path / "prices.csv").open()))
    assert len(rows) == 3 * (1 + 2 * 10) and {row["rank"] for row in rows} == {"1", "2", "3"}


def test_the_planner_is_told_the_price_that_was_changed():
    config = resolve("handover", SMALL)
    told = sensitivity.repriced(config, "gpu", 2.0)
    assert told.reward.gpu == 2.0 * config.reward.gpu and told.reward.late == config.reward.late


@pytest.mark.parametrize("wrong, message", [
    (["--episodes", "0"], "--episodes is 0"), (["--policies", "tho", "tho"], "at least two"),
    (["--replan", "stay", "--policies", "tho", "cho"], "--replan names stay"),
])
def test_options_that_cannot_be_are_refused(wrong, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        sensitivity.command(["--out", str(tmp_path), *wrong])
