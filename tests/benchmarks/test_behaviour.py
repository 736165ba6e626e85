"""Behaviour: what is noted of an episode is what happened in it, by plans that are known and by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from kvroam.agents.registry import make
from kvroam.benchmarks.behaviour import __main__ as behaviour
from kvroam.benchmarks.behaviour import numbers, watch
from kvroam.benchmarks.behaviour.numbers import choice, hits, leads, right_by_time, wins
from kvroam.benchmarks.behaviour.watch import CHANGE, DROPPED, PREPARATION, USED, WRONG, Watch
from kvroam.envs.handover.world.state import MEDIA
from kvroam.errors import ConfigError
from kvroam.experiment import load_experiment

FAST = ["num_ues=4", "episode_s=20.0", "mobility.vehicle_share=1.0", "mobility.vehicle_speed_mps=[20.0,30.0]",
        "scoring.mode=table"]
SEEDS = range(3, 7)
LEAD = "constant:medium=kv,bits=4,when=predicted,lead_s=2"
SHORT = LEAD.replace("lead_s=2", "lead_s=1")
PLAYERS = (LEAD, SHORT, "cho", "greedy-planner", "constant:medium=kv,keep=0.25,bits=4,when=early,backfill=0.25")


@pytest.fixture(scope="module")
def experiment():
    return load_experiment("default", FAST)


@pytest.fixture(scope="module")
def played(experiment):
    """What some policies did in the same episodes."""
    return {name: watch.watch(make(name, experiment.environment), experiment, SEEDS) for name in PLAYERS}


def test_changes_of_cell_are_all_there_and_the_same_whoever_plays(played):
    first = played[LEAD]
    assert len(first.changes) == sum(metrics["handovers"] for metrics in first.metrics) > 20
    for one in played.values():
        for name in ("env", "ue", "time_s", "source", "target", "way_bps", "leaving"):
            assert (one.changes[name] == first.changes[name]).all()


def test_leads_of_a_plan_that_prepares_two_seconds_ahead_are_near_two_seconds(played):
    for name, lead_s in ((LEAD, 2.0), (SHORT, 1.0)):
        one = played[name]
        # Some changes of cell are expected later than that, or not before they are announced; some come late.
        found = leads(one.changes)
        assert found.prepared > 0.4 and 0.6 * lead_s < found.quantiles_s[1] < 1.25 * lead_s
        assert 0.75 * lead_s < found.quantiles_s[2] < 1.75 * lead_s
        relies = one.preparations[~one.preparations["announced"]]
        assert len(relies) and (relies["ahead_s"] <= lead_s).all() and np.median(relies["ahead_s"]) > 0.6 * lead_s
        made = hits(one.preparations)
        assert made.used + made.wrong + made.dropped + made.over == pytest.approx(1.0) and made.right > 0.5


def test_a_plan_that_moves_at_the_handover_prepares_nothing(played):
    one = played["cho"]
    assert leads(one.changes).prepared == 0.0 and not len(one.preparations)
    assert np.isnan(leads(one.changes).quantiles_s[1])


def test_what_is_sent_is_what_the_plan_says(played):
    for name, keep, bits in ((LEAD, 1.0, 4), ("cho", 1.0, 16), (PLAYERS[-1], 0.25, 4)):
        one = played[name]
        found, sends = choice(one.changes), one.changes[one.changes["medium"] == MEDIA.index("kv")]
        # A session whose first prompt is not read yet has no cache to send.
        assert found.medium == "kv" and found.media[MEDIA.index("kv")] > 0.9
        assert (sends["keep"] == keep).all() and (sends["bits"] == bits).all()
        assert choice(sends).sent == pytest.approx(keep * bits / 16)
    last = played[PLAYERS[-1]]
    assert last.moves >= last.cut >= last.followed >= last.arrived > 0
    assert played[LEAD].followed == 0 and last.arrived == sum(m["backfills"] for m in last.metrics)


def test_one_weight_for_all_is_an_equal_share(played):
    share, senders, first = numbers.urgency({"default": played[LEAD]})
    sending = (senders > 0) & (np.arange(len(senders)) < 6)
    assert sending.any() and share[sending] == pytest.approx(1.0) and first[0] == first[2] == 0
    planned = numbers.urgency({"default": played["greedy-planner"]})[2]
    assert planned[0] > planned[2]


def test_what_is_paid_for_changes_of_cell_is_what_is_paid(experiment, monkeypatch):
    # With nothing left before the first one, a user's costs are those of its changes of cell.
    monkeypatch.setattr(watch, "BEFORE_S", 1e3)
    one = watch.watch(make("cho", experiment.environment), experiment, SEEDS)
    for e in range(len(one.metrics)):
        mine = one.changes[one.changes["env"] == e]
        if len(set(mine["ue"])) == 4:
            break
    else:
        pytest.fail("in no episode does everybody change cell")
    assert mine["cost"].sum() == pytest.approx(4 * one.metrics[e]["avoidable_cost"], rel=1e-4)


def changes(**columns):
    """CHANGE records, of one environment unless said otherwise."""
    found = np.zeros(len(next(iter(columns.values()))), CHANGE)
    found["lead_s"] = np.nan
    for name, values in columns.items():
        found[name] = values
    return found


def test_numbers_by_hand():
    found = leads(changes(lead_s=[1.0, 2.0, 3.0, np.nan]))
    assert found.prepared == 0.75 and found.quantiles_s[1] == 2.0
    made = np.zeros(5, PREPARATION)
    made["announced"] = [True, False, False, False, False]
    made["end"], made["right"] = [USED, USED, WRONG, DROPPED, USED], [1, 1, 0, np.nan, 1]
    made["ahead_s"], made["behind"][-1] = [0.1, 0.4, 1.5, 0.2, 0.0], True
    total = hits(made)
    assert total.began == 4 and total.announced == 0.25 and total.right == 0.5
    assert (total.used, total.wrong, total.dropped) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert right_by_time(made)[0] == (1.0, 1) and right_by_time(made)[2] == (0.0, 1)
    sent = choice(changes(medium=[2, 2, 0], keep=[0.5, 0.5, 1.0], bits=[8, 8, 16], prefix=[0.5, 0.0, np.nan]))
    assert sent.medium == "split" and sent.prefix == 0.25 and sent.sent == pytest.approx((0.125 + 0.25 + 0.0) / 3)


def test_wins_pair_episodes():
    def one(times: float) -> Watch:
        rows = changes(env=[0, 0, 1, 1, 2], leaving=[0, 4, 0, 0, 0], cost=np.array([1.0, 9.0, 2.0, 1.0, 2.5]) * times,
                       way_bps=np.full(5, 7e8), waits=[True, True, False, False, False])
        return Watch(changes=rows, metrics=[{"avoidable_cost": 1.0}] * 3)

    found = {(row.what, row.level): row for row in wins({"s": one(0.5)}, {"s": one(1.0)})}
    alone = found["others who leave the cell within 3 s", "nobody else"]
    assert alone.changes == 4 and alone.mine == pytest.approx(6.5 / 8) and alone.times.ratio == pytest.approx(0.5)
    assert alone.times.n == 3 and found["others who leave the cell within 3 s", "3 to 5"].times.n == 1
    assert found["others who leave the cell within 3 s", "6 or more"].changes == 0
    assert found["link between the cells [Gbit/s]", "0.5 to 1"].changes == 5
    assert found["user waits for tokens then", "waits"].mine == pytest.approx(2.5)


def test_a_run_writes_page_table_and_figures(tmp_path, capsys):
    behaviour.command(["--policy", LEAD, "--beside", "cho", "--scenarios", "default", "calm", "--episodes", "2",
                       "--quiet", "--out", str(tmp_path), "--set", *FAST])
    text = (tmp_path / "behaviour.md").read_text()
    assert "## In short" in text and "kv 4 bit, predicted 2 s" in text and str(tmp_path) not in text
    for name in ("lead", "choices", "weights", "wins"):
        assert (tmp_path / f"behaviour_{name}.png").read_bytes().startswith(b"\x89PNG") and f"_{name}.png" in text
    rows = list(csv.DictReader((tmp_path / "behaviour.csv").open()))
    assert {row["scenario"] for row in rows} == {"default", "calm", "all"}
    assert len({row["policy"] for row in rows}) == 3


@pytest.mark.parametrize("wrong, message", [
    (["--episodes", "1"], "--episodes is 1"),
    (["--scenarios", "default", "--set", "actions.trigger=policy"], "set it to a3"),
])
def test_options_that_cannot_be_are_refused(wrong, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        behaviour.command(["--policy", "tho", "--quiet", "--out", str(tmp_path), *wrong])
